"""The bulk port in the World: uploads and downloads of files that are nothing but their digest. The cores see what matters of it:
when an artifact is stored, that PUT_DONE follows the commit, and that one may be missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ktrdr_broker.model import ArtifactDelete, ArtifactStored
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.testing import Effect, Frames, Timer, ToPeer, ToServer

AGAIN_AFTER = 5.0


class BulkDesk:
    """The broker's side: files that outlive the process, and peers that wait for PUT_DONE."""

    def __init__(self) -> None:
        self.files: set[bytes] = set()
        self.problems: list[str] = []
        self.sends: list[Effect] = []
        self._uploads: dict[tuple[bytes, int], m.Put] = {}
        self._waiting: dict[bytes, list[tuple[bytes, int]]] = {}

    def restart(self) -> None:
        """A new process: uploads under way are forgotten."""
        self._uploads, self._waiting, self.sends = {}, {}, []

    def receive(self, peer: bytes, message: Any, stored: Callable[[bytes, int], None]) -> None:
        """Take in one request; ``stored`` tells the core that a file is on disk."""
        if isinstance(message, m.Put):
            if message.digest in self.files:
                self._send(peer, m.PutReady(message.request, 0, stored=True))
                self._done(peer, message, stored)
            else:
                self._uploads[peer, message.request] = message
                self._send(peer, m.PutReady(message.request, 8))
        elif isinstance(message, m.PutChunk):
            put = self._uploads.pop((peer, message.request), None)
            if put is None:
                self._send(peer, m.Nack(code="HELLO_REQUIRED", request=message.request, retryable=True))
            else:
                self.files.add(put.digest)
                self._done(peer, put, stored)
        elif message.digest in self.files:
            self._send(peer, m.Chunk(message.request, 0, 1, 1), (b"x",))
        else:
            self._send(peer, m.Nack(code="MISSING_ARTIFACT", request=message.request))

    def _done(self, peer: bytes, put: m.Put, stored: Callable[[bytes, int], None]) -> None:
        self._waiting.setdefault(put.digest, []).append((peer, put.request))
        stored(put.digest, put.total)

    def order(self, send: ArtifactStored | ArtifactDelete, rows: Any) -> None:
        """What the core says after the commit."""
        if isinstance(send, ArtifactStored):
            for peer, request in self._waiting.pop(send.digest, []):
                self._send(peer, m.PutDone(request, send.digest))
        elif send.digest not in self._waiting:
            self.files.discard(send.digest)
            if send.digest in rows:
                self.problems.append("a file is deleted whose row is on disk")

    def _send(self, peer: bytes, message: m.Message, bodies: tuple[bytes, ...] = ()) -> None:
        self.sends.append(ToPeer("bulk", peer, codec.encode(message, bodies)))


class Transfers:
    """A peer's side: says everything again until it is answered."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self._number = 0
        self._open: dict[int, tuple[m.Put | m.Get, Callable[[str, float], None]]] = {}

    def put(self, digest: bytes, done: Callable[[str, float], None]) -> None:
        """Upload; then call ``done`` with no error."""
        self._begin(m.Put(0, digest, 1), done)

    def get(self, digest: bytes, done: Callable[[str, float], None]) -> None:
        """Download; then call ``done``, with an error if there is nothing."""
        self._begin(m.Get(0, digest, 0, 8), done)

    def _begin(self, message: Any, done: Callable[[str, float], None]) -> None:
        self._number += 1
        message.request = self._number
        self._open[self._number] = (message, done)
        self.timer(self._number)

    def timer(self, number: int) -> None:
        """Still not answered: once more."""
        if number in self._open:
            self.effects += [ToServer("bulk", codec.encode(self._open[number][0])), Timer(AGAIN_AFTER, ("bulk", number))]

    def receive(self, frames: Frames, now: float) -> None:
        """Take in an answer."""
        message, _ = codec.decode(frames, codec.BULK_FROM_BROKER)
        if message.request not in self._open:
            return
        request, done = self._open[message.request]
        if isinstance(message, m.PutReady):
            if not message.stored:
                self.effects.append(ToServer("bulk", codec.encode(m.PutChunk(message.request, 0, 1), (b"x",))))
        elif isinstance(message, m.Nack) and message.code == "HELLO_REQUIRED":
            self.effects.append(ToServer("bulk", codec.encode(request)))
        else:
            del self._open[message.request]
            done(message.code if isinstance(message, m.Nack) else "", now)

    def take(self) -> list[Effect]:
        """What is to be done."""
        effects, self.effects = self.effects, []
        return effects
