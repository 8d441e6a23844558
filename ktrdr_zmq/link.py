"""A client's connection: the sockets that carry `session` and `events`, and the futures of those who wait. Knows nothing of jobs' contents.

Everything runs on one loop. What is asked for during one turn of it leaves together, so that many callers at once cost few messages.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import zmq

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.artifacts import BulkClient
from ktrdr_zmq.config import Endpoint
from ktrdr_zmq.errors import (
    AmbiguousJob,
    BrokerUnreachable,
    KtrdrError,
    NoCapableWorker,
    ProtocolError,
    Refused,
    UnknownJob,
    UsageError,
)
from ktrdr_zmq.events import Tracker, Watched
from ktrdr_zmq.jobs import SYNC_TOPIC
from ktrdr_zmq.session import Answer, ClientSession, Reconnect, Send, State, Submitted
from ktrdr_zmq.transport import Channel, connect_dealer, connect_sub

PATIENCE: Final = 30.0
"""Seconds of silence after which an unanswered request fails. Waiting for a job's end has no such limit."""
BARRIER: Final = 2.0


class Link:
    """The broker as seen from one client.

    Parameters
    ----------
    endpoint : Endpoint
    info : ClientInfo
        What the client says of itself.

    Attributes
    ----------
    tracker : Tracker
        Watched jobs, kept up to date by events and by STATUS.
    bulk : BulkClient
        For artifacts.
    """

    def __init__(self, endpoint: Endpoint, info: m.ClientInfo) -> None:
        self.endpoint = endpoint
        self.tracker = Tracker()
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[Any] = zmq.Context()
        self.bulk = BulkClient(self._context, endpoint.url(3))
        self._session = ClientSession(info, time.monotonic(), random.random)
        self._session.watch(on=True)
        self._answers: dict[int, asyncio.Future[tuple[Any, list[bytes]]]] = {}
        self._acks: dict[bytes, asyncio.Future[m.SubmitReply]] = {}
        self._syncs: dict[bytes, asyncio.Future[None]] = {}
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._repairs: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._planned = False
        self._closed: KtrdrError | None = None
        self._epoch = 0
        self._dial()
        events = connect_sub(self._context, endpoint.url(2), reconnect_ms=random.randint(100, 300))
        self._events = Channel(events, self._on_events, budget=1024)
        self._events.open()
        self._pump()

    @property
    def reachable(self) -> bool:
        """Whether the broker answers, as far as is known: false from some seconds of silence until it has answered again."""
        return self._session.state is State.OPEN

    # ------------------------------------------------------------ life

    async def opened(self, timeout: float) -> None:
        """Wait until the broker has answered.

        Raises
        ------
        BrokerUnreachable
            When nothing answers within so many seconds.
        ProtocolError
            When the broker speaks another version.
        """
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._opened)
        except TimeoutError:
            raise BrokerUnreachable(
                f"The broker does not answer at {self.endpoint} (tried its port for clients, {self.endpoint.port + 1}, for {timeout:g} s).",
                hint="Give the first of its four ports. Start one with: ktrdr broker run, or a whole cluster with: ktrdr up",
            ) from None

    async def close(self) -> None:
        """Close the connection; whoever still waits gets `BrokerUnreachable`."""
        if self._events.closed:
            return
        self._fail(BrokerUnreachable("The client was closed."))
        for repair in tuple(self._repairs):
            repair.cancel()
        await asyncio.gather(*self._repairs, return_exceptions=True)
        self.bulk.close()
        self._channel.close(200)
        self._events.close(0)
        self._context.term()

    def _fail(self, error: KtrdrError) -> None:
        """The end of this connection."""
        if self._closed is not None:
            return
        self._closed = error
        if self._timer is not None:
            self._timer.cancel()
        self._give_up(error)
        _reject(self._opened, error)
        for sync in self._syncs.values():
            _reject(sync, error)
        self.tracker.fail(error)

    def _give_up(self, error: KtrdrError) -> None:
        """Nobody shall wait any longer for the answers that are due."""
        for request, answer in self._answers.items():
            self._session.forget(request)
            _reject(answer, error)
        for ack in self._acks.values():
            _reject(ack, error)
        self._answers.clear()
        self._acks.clear()

    def _dial(self) -> None:
        socket = connect_dealer(self._context, self.endpoint.url(1), reconnect_ms=random.randint(100, 300), hwm=20_000)
        self._channel = Channel(socket, self._on_batch, on_writable=self._on_writable, budget=1024)
        self._channel.open()

    # ------------------------------------------------------------ what comes in

    def _on_batch(self, batch: list[list[bytes]]) -> None:
        now = time.monotonic()
        for frames in batch:
            try:
                message, bodies = codec.decode(frames, codec.TO_CLIENT)
            except ProtocolError:
                continue  # a newer broker's: what cannot be read was not asked for
            self._session.on_message(message, bodies, now)
        self._pump()

    def _on_events(self, batch: list[list[bytes]]) -> None:
        now = time.monotonic()
        for _, *frames in batch:
            try:
                message, bodies = codec.decode(frames, codec.EVENTS)
            except ProtocolError:
                continue
            if isinstance(message, m.SyncEvent):
                sync = self._syncs.get(message.nonce)
                if sync is not None and not sync.done():
                    sync.set_result(None)
            else:
                self.tracker.on_event(message, bodies, now)

    def _on_writable(self) -> None:
        self._session.on_writable(time.monotonic())
        self._pump()

    # ------------------------------------------------------------ the pump

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Carry out what the session wants, and see when it wants to be woken."""
        self._planned = False
        if self._closed is not None:
            return
        for output in self._session.drain():
            if isinstance(output, Send):
                self._channel.send(codec.encode(output.message, output.bodies))
            elif isinstance(output, Submitted):
                ack = self._acks.pop(output.reply.job_id, None)
                if ack is not None and not ack.done():
                    ack.set_result(output.reply)
            elif isinstance(output, Answer):
                answer = self._answers.pop(output.request, None)
                if answer is not None and not answer.done():
                    answer.set_result((output.reply, output.bodies))
            elif isinstance(output, Reconnect):
                self._channel.close(0)
                self._dial()
        self._look_at_state()

    def _look_at_state(self) -> None:
        session = self._session
        if session.state is State.FAILED:
            refusal = session.refusal
            self._fail(ProtocolError(refusal.text if refusal else "", code=refusal.code if refusal else "VERSION"))
            return
        if session.epoch != self._epoch:  # opened, or the broker was restarted: events may have been missed
            self._epoch = session.epoch
            self.tracker.lost_touch()
            if not self._opened.done():
                self._opened.set_result(None)
        due = session.next_deadline()
        if self._timer is None or self._timer_due > due + 0.001:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = due
            self._timer = self._loop.call_later(max(due - time.monotonic(), 0.001), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        self._session.on_tick(now)
        if self._session.state is State.OPEN:
            silent = self.tracker.due(now)
            if silent:
                repair = self._loop.create_task(self._repair(silent))
                self._repairs.add(repair)
                repair.add_done_callback(self._repairs.discard)
        elif now - self._session.last_heard > PATIENCE:
            self._give_up(self._silence())
        self._pump()

    def _silence(self) -> BrokerUnreachable:
        seconds = time.monotonic() - self._session.last_heard
        return BrokerUnreachable(
            f"The broker has not answered at {self.endpoint.url(1)} for {seconds:.0f} s.",
            hint="Jobs that it has acknowledged are safe; ask again later.",
        )

    async def _repair(self, job_ids: list[bytes]) -> None:
        """Ask STATUS about jobs of which nothing has been heard."""
        try:
            reply, _ = await self.ask(m.Status(0, [job_id.hex() for job_id in job_ids]))
        except (BrokerUnreachable, ProtocolError, Refused):
            return  # they stay watched, and are asked about again
        now = time.monotonic()
        for view in reply.jobs:
            self.tracker.on_view(view, now)
        for error in reply.errors:
            if error.code == UnknownJob.code:
                self.tracker.on_unknown(bytes.fromhex(error.ref))

    # ------------------------------------------------------------ what goes out

    async def ask(self, message: Any) -> tuple[Any, list[bytes]]:
        """Ask something; returns the reply and its bodies.

        Raises
        ------
        BrokerUnreachable
            When no answer comes.
        Refused, UnknownJob, AmbiguousJob, UsageError
            When the broker says no.
        """
        if self._closed is not None:
            raise self._closed
        number = self._session.request(message, now=time.monotonic())
        answer = self._answers[number] = self._loop.create_future()
        self._plan()
        try:
            async with asyncio.timeout(PATIENCE):
                reply, bodies = await answer
        except TimeoutError:
            raise BrokerUnreachable(f"The broker at {self.endpoint.url(1)} has not answered a request for {PATIENCE:g} s.") from None
        finally:
            self._answers.pop(number, None)
            self._session.forget(number)
        if isinstance(reply, m.Nack):
            raise refusal(reply.code, reply.text, retryable=reply.retryable, retry_after=reply.retry_after)
        return reply, bodies

    async def offer(self, job_id: bytes, spec: bytes, body: bytes) -> m.SubmitReply:
        """Submit a job and return the broker's word on it.

        Raises
        ------
        BrokerUnreachable
            When no answer comes; the job may or may not have been accepted then, and may be submitted again under the same id.
        """
        while (other := self._acks.get(job_id)) is not None:  # the same id twice at once: one after the other
            await asyncio.wait([other])
        if self._closed is not None:
            raise self._closed
        ack: asyncio.Future[m.SubmitReply] = self._loop.create_future()
        self._acks[job_id] = ack
        self._session.submit(job_id, spec, body, now=time.monotonic())
        self._plan()
        return await asyncio.shield(ack)  # it stays when the caller gives up: whoever offers the same id again waits for it above

    async def subscribe(self, topic: bytes) -> None:
        """Subscribe, and wait until that has arrived: everything published from then on is heard."""
        if self._closed is not None:
            raise self._closed
        nonce = secrets.token_hex(8).encode()
        sync = self._syncs[nonce] = self._loop.create_future()
        self._events.socket.setsockopt(zmq.SUBSCRIBE, topic)
        self._events.socket.setsockopt(zmq.SUBSCRIBE, SYNC_TOPIC + nonce)
        self._events.rearm()
        try:
            async with asyncio.timeout(BARRIER):
                await sync
        except TimeoutError:
            pass  # events are hints: without them STATUS is asked every few seconds
        finally:
            del self._syncs[nonce]
            self._unsubscribe(SYNC_TOPIC + nonce)

    async def follow(self, watched: Watched, topic: bytes) -> None:
        """Subscribe to a job that is not covered by a lane, until nothing more will be heard of it."""

        def leave(_: object) -> None:
            if watched.over:
                watched.listeners.remove(leave)
                self._unsubscribe(topic)

        watched.listeners.append(leave)
        await self.subscribe(topic)

    def _unsubscribe(self, topic: bytes) -> None:
        if not self._events.closed:
            self._events.socket.setsockopt(zmq.UNSUBSCRIBE, topic)
            self._events.rearm()


def _reject(future: asyncio.Future[Any], error: KtrdrError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: nobody need be waiting for it


_ERRORS: Final[dict[str, Callable[[str], KtrdrError]]] = {
    "UNKNOWN_JOB": UnknownJob,
    "AMBIGUOUS_JOB": AmbiguousJob,
    "BAD_SPEC": UsageError,
    "VERSION": lambda text: ProtocolError(text, code="VERSION"),
}


def refusal(code: str, text: str, *, retryable: bool = False, retry_after: float = 0.0) -> KtrdrError:
    """The exception for a code of the broker."""
    if code == "NO_CAPABLE_WORKER":
        hint = "" if retryable else "Start one with: ktrdr worker run, or let the job wait with --queue."
        return NoCapableWorker(text, hint=hint, retryable=retryable, retry_after=retry_after)
    make = _ERRORS.get(code)
    return make(text) if make is not None else Refused(text, code=code, retryable=retryable, retry_after=retry_after)
