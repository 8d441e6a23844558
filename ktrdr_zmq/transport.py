"""One ZeroMQ socket on an asyncio loop: the only place that knows the rules of ZMQ_FD.

ZMQ_FD is edge-triggered and speaks for both directions: after every send and every receive the socket's EVENTS must be read again, or a
wake-up is lost for ever. So each `Channel` re-arms itself after a send, drains with a bound, and yields to the loop between two drains.
zmq.asyncio does the same per message and costs three times as much; a bounded drain handles a burst in one turn.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import zmq
from zmq.backend import Socket as RawSocket

from ktrdr_zmq.messages import MAX_MESSAGE

Socket = zmq.Socket[bytes]

LARGE: Final = 64 * 1024
"""Frames from this size on are sent without a copy: below it the bookkeeping costs more than the copy."""

# Plain numbers: joining pyzmq's enumerations for each frame costs more than the call into libzmq.
_LAST: Final = int(zmq.DONTWAIT)
_MORE: Final = int(zmq.DONTWAIT) | int(zmq.SNDMORE)
_READABLE: Final = int(zmq.POLLIN)
_WRITABLE: Final = int(zmq.POLLOUT)


def configure(socket: Socket, *, hwm: int = 2000, linger: int = 0) -> None:
    """Options that all sockets of the protocol share. ZMTP heartbeats only find dead TCP peers; liveness is the application's."""
    socket.setsockopt(zmq.LINGER, linger)
    socket.setsockopt(zmq.SNDHWM, hwm)
    socket.setsockopt(zmq.RCVHWM, hwm)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 5_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 20_000)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 30_000)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)


def bind_router(context: zmq.Context[Any], endpoint: str, *, hwm: int = 2000) -> Socket:
    """A broker's ROUTER. MANDATORY makes an unknown peer an error and not a silent drop; HANDOVER=0 keeps a peer's identity its own."""
    socket = context.socket(zmq.ROUTER)
    configure(socket, hwm=hwm, linger=500)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
    socket.setsockopt(zmq.BACKLOG, 1024)
    socket.setsockopt(zmq.IPV6, 1 if "[" in endpoint else 0)
    return _bind(socket, endpoint)


def bind_xpub(context: zmq.Context[Any], endpoint: str, *, hwm: int = 20_000) -> Socket:
    """The event socket. VERBOSE hands every subscription to the broker (join barrier); a slow subscriber loses messages, never delays."""
    socket = context.socket(zmq.XPUB)
    configure(socket, hwm=hwm)
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)
    socket.setsockopt(zmq.BACKLOG, 1024)
    socket.setsockopt(zmq.IPV6, 1 if "[" in endpoint else 0)
    return _bind(socket, endpoint)


def connect_dealer(context: zmq.Context[Any], endpoint: str, *, reconnect_ms: int, hwm: int = 2000) -> Socket:
    """A peer's DEALER. IMMEDIATE queues nothing for a connection that does not stand; the caller's session resends."""
    socket = context.socket(zmq.DEALER)
    configure(socket, hwm=hwm)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    return _connect(socket, endpoint, reconnect_ms)


def connect_sub(context: zmq.Context[Any], endpoint: str, *, reconnect_ms: int, hwm: int = 20_000) -> Socket:
    """A watcher's SUB."""
    socket = context.socket(zmq.SUB)
    configure(socket, hwm=hwm)
    return _connect(socket, endpoint, reconnect_ms)


def _bind(socket: Socket, endpoint: str) -> Socket:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError:
        socket.close(0)
        raise
    return socket


def _connect(socket: Socket, endpoint: str, reconnect_ms: int) -> Socket:
    # RECONNECT_IVL_MAX stays 0: setting it would turn libzmq's jitter off; the session makes its own back-off.
    socket.setsockopt(zmq.RECONNECT_IVL, reconnect_ms)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, 5_000)
    socket.setsockopt(zmq.IPV6, 1 if "[" in endpoint else 0)
    socket.connect(endpoint)
    return socket


class Channel:
    """A socket whose messages are handed over in batches.

    Parameters
    ----------
    socket : zmq.Socket
        Owned from now on: `close` closes it.
    on_batch : callable
        Gets a list of messages, each a list of frames, at most ``budget`` of them.
    on_writable : callable, optional
        Called on a turn in which the socket can send, after a send was refused.
    budget : int
        Most messages handed over in one turn; the rest waits for the next turn of the loop.
    with_origin : bool
        The first frame is handed over as a `zmq.Frame`, which knows its sender's address (``frame.get("Peer-Address")``).
    """

    def __init__(
        self,
        socket: Socket,
        on_batch: Callable[[list[list[Any]]], None],
        *,
        on_writable: Callable[[], None] | None = None,
        budget: int = 256,
        with_origin: bool = False,
    ) -> None:
        self.socket = socket
        self._on_batch = on_batch
        self._on_writable = on_writable
        self._budget = budget
        # pyzmq's send_multipart and recv_multipart take three times as long as the calls that they are made of.
        self._send_frame = partial(RawSocket.send, socket)
        self._receive_frame: Callable[[], Any] = partial(RawSocket.recv, socket, _LAST, False)
        self._events: Callable[[], Any] = partial(RawSocket.get, socket, zmq.EVENTS)
        self._with_origin = with_origin
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = -1
        self._armed = False
        self._blocked = False

    def open(self) -> None:
        """Start reading on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._fd = int(self.socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._ready)
        self.rearm()

    def close(self, linger: int | None = None) -> None:
        """Stop reading and close the socket; safe to call twice."""
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None
        if not self.socket.closed:
            self.socket.close(linger)

    @property
    def closed(self) -> bool:
        return self._loop is None

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send without blocking.

        Returns
        -------
        bool
            False if the peer is unknown (EHOSTUNREACH) or its queue is full; nothing was sent then.
        """
        last = frames[-1]
        try:
            for frame in frames[:-1]:
                self._send_frame(frame, _MORE)
            self._send_frame(last, _LAST, len(last) < LARGE)
        except zmq.ZMQError as error:
            self.rearm()
            if error.errno in (zmq.EAGAIN, errno.EHOSTUNREACH):
                self._blocked = self._on_writable is not None
                return False
            raise
        self.rearm()
        return True

    def rearm(self) -> None:
        """Look at the socket again on the next turn: a send may have swallowed the edge that announced a message."""
        if not self._armed and self._loop is not None:
            self._armed = True
            self._loop.call_soon(self._look)

    def _receive(self) -> list[Any]:
        """One message; `zmq.Again` if there is none."""
        frame = self._receive_frame()
        frames: list[Any] = [frame if self._with_origin else frame.bytes]
        while frame.more:
            frame = self._receive_frame()
            frames.append(frame.bytes)
        return frames

    def _look(self) -> None:
        self._armed = False
        wanted = _READABLE | _WRITABLE if self._blocked else _READABLE
        if self._loop is not None and self._events() & wanted:
            self._ready()

    def _ready(self) -> None:
        if self._loop is None:
            return
        batch: list[list[Any]] = []
        for count in range(self._budget):
            # Asking is cheaper than the exception that says that there is no more; behind a second message, many more are likely.
            if count == 1 and not self._events() & _READABLE:
                break
            try:
                batch.append(self._receive())
            except zmq.Again:
                break
        else:
            self.rearm()
        if batch:
            self._on_batch(batch)
        if self.closed:  # by the callback
            return
        if self._blocked and self._on_writable is not None and self._events() & _WRITABLE:
            self._blocked = False
            self._on_writable()
