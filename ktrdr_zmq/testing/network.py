"""The network of the World: connections of dealers to the server, and what becomes of messages on their way.

A connection behaves like TCP under ZeroMQ: in order, nothing lost while it stands, everything under way lost when it breaks; a blocked
one holds what it has. ``drop`` and ``duplicate`` are worse than that, and repaired by the protocol all the same.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ktrdr_zmq.testing.machine import Frames

UP: Final = 0
DOWN: Final = 1
SUBSCRIBER_HWM: Final = 40
"""Publications on their way to a subscriber beyond which the next ones are dropped, as an XPUB does."""


@dataclass(frozen=True)
class Faults:
    """What may go wrong. ``drop`` and ``duplicate`` are probabilities for each message; ``cut`` to ``jump`` are rates per simulated second
    over the whole World. Durations are seconds, drawn from the range so that short and long ones are equally likely. ``drift`` is how
    far a monotonic clock may run from the true rate, as a fraction.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.002
    cut: float = 0.0
    block: float = 0.0
    block_for: tuple[float, float] = (1.0, 30.0)
    kill: float = 0.0
    down_for: tuple[float, float] = (0.1, 20.0)
    freeze: float = 0.0
    freeze_for: tuple[float, float] = (0.5, 40.0)
    jump: float = 0.0
    jump_by: float = 3600.0
    drift: float = 0.0


CALM: Final = Faults()


def draw(rng: random.Random, span: tuple[float, float]) -> float:
    """A duration from a range, evenly on a logarithmic scale."""
    return math.exp(rng.uniform(math.log(span[0]), math.log(span[1])))


class Link:
    """A dealer's connection to one port of the server."""

    __slots__ = ("blocked_until", "clear_at", "generation", "held", "owner", "peer", "port", "queued")

    def __init__(self, owner: str, port: str, peer: bytes) -> None:
        self.owner = owner
        self.port = port
        self.peer = peer
        self.generation = 0
        self.queued = 0
        self.clear_at = [0.0, 0.0]
        self.blocked_until = [0.0, 0.0]
        self.held: list[list[Callable[[], None]]] = [[], []]


class Network:
    """All connections.

    Parameters
    ----------
    rng : random.Random
    at : callable
        Lets something happen at a moment; what is planned for the same moment happens in the order of planning.
    arrive : callable
        Takes what has arrived: link, direction, frames or topic, and how to deliver it again if nobody can take it yet. Tells whether
        somebody took it.
    seen : Counter
        Faults are counted here.
    tell : callable, optional
        Takes a line of the trace: link, direction, frames, and a mark for what became of them.
    """

    def __init__(
        self,
        rng: random.Random,
        at: Callable[[float, Callable[[], None]], None],
        arrive: Callable[[Link, int, Frames | bytes, Callable[[], None]], bool],
        seen: Counter[str],
        tell: Callable[[Link, int, Frames, str], None] | None,
    ) -> None:
        self.now = 0.0
        self.faults = CALM
        self.peers: dict[bytes, Link] = {}
        self._random = rng
        self._at = at
        self._arrive = arrive
        self._seen = seen
        self._tell = tell

    def connect(self, owner: str, port: str) -> Link:
        """A new dealer."""
        link = Link(owner, port, self._random.randbytes(5))
        self.peers[link.peer] = link
        return link

    def reset(self, link: Link) -> None:
        """The connection breaks: what is under way is lost, and the dealer comes back under another generated id."""
        self.peers.pop(link.peer, None)
        link.generation += 1
        link.queued = 0
        link.held = [[], []]
        link.peer = self._random.randbytes(5)
        link.clear_at = [self.now, self.now]
        self.peers[link.peer] = link

    def block(self, link: Link, directions: tuple[int, ...], seconds: float) -> None:
        """Nothing gets through for a while, in one direction or both; the connection stands, and what it holds arrives afterwards."""
        for way in directions:
            link.blocked_until[way] = self.now + seconds
        self._at(self.now + seconds, lambda: self._release(link))

    def _release(self, link: Link) -> None:
        for way in (UP, DOWN):
            if link.blocked_until[way] <= self.now:
                held, link.held[way] = link.held[way], []
                for deliver in held:
                    self._at(self.now, deliver)

    def heal(self) -> None:
        """No more faults, no more blocks."""
        self.faults = CALM
        for link in self.peers.values():
            link.blocked_until = [0.0, 0.0]
            self._release(link)

    def send(self, link: Link, way: int, frames: Frames) -> None:
        """Put a message on its way."""
        copies, mark = 1, ""
        faults = self.faults
        if faults.drop and self._random.random() < faults.drop:
            copies, mark = 0, "drop"
        elif faults.duplicate and self._random.random() < faults.duplicate:
            copies, mark = 2, "duplicate"
        if mark:
            self._seen[mark] += 1
        if self._tell is not None:
            self._tell(link, way, frames, mark)
        for _ in range(copies):
            self.carry(link, way, frames)

    def publish(self, link: Link, frames: Frames) -> None:
        """Put a publication on its way to one subscriber; a slow one loses it."""
        if link.queued >= SUBSCRIBER_HWM:
            self._seen["overrun"] += 1
            if self._tell is not None:
                self._tell(link, DOWN, frames, "overrun")
            return
        self.send(link, DOWN, frames)

    def carry(self, link: Link, way: int, what: Frames | bytes) -> None:
        """Deliver after a delay: in order within one direction of a connection, in any order between connections."""
        delay = self.faults.delay
        arrives = self.now + self._random.expovariate(1.0 / delay) if delay else self.now
        arrives = max(arrives, link.clear_at[way])
        link.clear_at[way] = arrives
        link.queued += way
        generation = link.generation
        self._at(arrives, lambda: self._deliver(link, generation, way, what))

    def _deliver(self, link: Link, generation: int, way: int, what: Frames | bytes) -> None:
        if link.generation != generation:
            return
        if link.held[way] or link.blocked_until[way] > self.now:
            link.held[way].append(lambda: self._deliver(link, generation, way, what))
        elif self._arrive(link, way, what, lambda: self._deliver(link, generation, way, what)):
            link.queued -= way
