"""What the World asks of a machine, and what a machine may cause. Pure data and a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

Frames = Sequence[bytes]


class Violation(AssertionError):
    """An invariant does not hold; the message says which, when, and how to see it again."""


class Crash(Exception):
    """Raised by a machine whose process dies in the middle of `Machine.effects`, for example between commit and send.

    Parameters
    ----------
    text : str
        Shown in the trace.
    sent : sequence of Effect
        What had left the process before.
    """

    def __init__(self, text: str, sent: Sequence[Effect] = ()) -> None:
        super().__init__(text)
        self.sent = sent


class ToServer(NamedTuple):
    """A dealer sends to the server's port."""

    port: str
    frames: Frames


class ToPeer(NamedTuple):
    """The server sends to one of its peers."""

    port: str
    peer: bytes
    frames: Frames


class Publication(NamedTuple):
    """The server publishes to whoever has subscribed to a beginning of the topic."""

    topic: bytes
    frames: Frames


class Subscribe(NamedTuple):
    """A machine wants publications whose topic begins so."""

    topic: bytes


class Unsubscribe(NamedTuple):
    """A machine wants them no more."""

    topic: bytes


class Reconnect(NamedTuple):
    """A dealer throws its socket for this port away and takes a new one."""

    port: str


class Timer(NamedTuple):
    """Call `Machine.timer` with this payload after so many simulated seconds, unless the machine has died by then."""

    delay: float
    payload: Any


class Quit(NamedTuple):
    """The process ends by its own decision; `World.on_quit` is told, and says whether it comes back."""

    code: int


Effect = ToServer | ToPeer | Publication | Subscribe | Unsubscribe | Reconnect | Timer | Quit


class Machine(Protocol):
    """One process. Its object outlives the process: what it keeps between `stop` and `start` is its disk.

    ``now`` is the monotonic clock of its host in seconds, ``wall`` that host's UTC microseconds; two hosts never agree about either.
    """

    name: str

    def start(self, now: float, wall: int) -> None:
        """Begin a process with nothing in memory but what the disk has."""

    def stop(self) -> None:
        """The process is killed: memory is gone."""

    def receive(self, port: str, peer: bytes, frames: Frames, now: float, wall: int) -> None:
        """Take in one message; ``peer`` is the sender's connection on a server and empty elsewhere."""

    def subscribed(self, topic: bytes, now: float, wall: int) -> None:
        """A subscription arrived (servers only)."""

    def unreachable(self, port: str, peer: bytes, now: float, wall: int) -> None:
        """A send found no such connection (servers only)."""

    def timer(self, payload: Any, now: float, wall: int) -> None:
        """A `Timer` of this process is due."""

    def tick(self, now: float, wall: int) -> None:
        """Let time act."""

    def next_deadline(self) -> float:
        """When `tick` is due at the latest, on the monotonic clock."""

    def effects(self, now: float, wall: int) -> list[Effect]:
        """Hand over what the step caused; may raise `Crash`."""

    def check(self) -> list[str]:
        """What is wrong with this machine; empty if nothing is."""
