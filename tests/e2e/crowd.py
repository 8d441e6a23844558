"""Many connections at once, each of which says HELLO as a worker: plain ZeroMQ, one thread."""

from __future__ import annotations

import os
import time
from typing import Any, Self

import zmq

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m


class Crowd:
    """So many DEALERs in this process, connected to a broker's port for workers."""

    def __init__(self, port: int, size: int) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, max(size + 10, 1024))
        self._poller = zmq.Poller()
        self._sockets: list[Any] = []
        self._instance = os.urandom(16)
        for _ in range(size):
            socket = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(f"tcp://127.0.0.1:{port}")
            self._poller.register(socket, zmq.POLLIN)
            self._sockets.append(socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for socket in self._sockets:
            socket.close(0)
        self._context.term()

    def greet(self) -> None:
        """Each says HELLO; nobody offers anything that is asked for."""
        for number, socket in enumerate(self._sockets):
            info = m.WorkerInfo(
                worker_id=f"visitor-{number}", instance=self._instance, hello_seq=1, versions=[m.MAJOR], slots=[("cpu", 1)],
                kinds=[("nothing", 1, 1)],
            )  # fmt: skip
            socket.send_multipart(codec.encode(m.WorkerHello(info)))

    def welcomed(self, seconds: float) -> int:
        """How many were answered with HELLO_OK within so many seconds."""
        answered: set[Any] = set()
        end = time.monotonic() + seconds
        while len(answered) < len(self._sockets) and time.monotonic() < end:
            for socket, _ in self._poller.poll(200):
                message, _ = codec.decode(socket.recv_multipart(), codec.TO_WORKER)
                if isinstance(message, m.HelloOk):
                    answered.add(socket)
        return len(answered)
