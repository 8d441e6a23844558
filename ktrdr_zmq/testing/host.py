"""One simulated host: a machine with its clock, its connections and the state of its process. Pure data; the World acts on it."""

from __future__ import annotations

from collections.abc import Callable

from ktrdr_zmq.testing.clock import Clock
from ktrdr_zmq.testing.machine import Machine
from ktrdr_zmq.testing.network import Link


class Host:
    """A machine with its clock, its connections and the state of its process."""

    __slots__ = ("clock", "gone", "links", "machine", "process", "suspended_at", "thaw_at", "topics", "up", "waiting", "wake_at")

    def __init__(self, machine: Machine, clock: Clock) -> None:
        self.machine = machine
        self.clock = clock
        self.up = False
        self.gone = False
        self.process = 0
        self.thaw_at = 0.0
        self.suspended_at: float | None = None
        self.waiting: list[Callable[[], None]] = []
        """What has happened to it while it was frozen, in order."""
        self.wake_at = -1.0
        self.links: dict[str, Link] = {}
        self.topics: list[bytes] = []
