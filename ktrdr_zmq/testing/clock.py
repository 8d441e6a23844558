"""The clocks of a simulated host. Pure arithmetic over the World's own time."""

from __future__ import annotations

from typing import Final

WALL_START: Final = 1_800_000_000_000_000


class Clock:
    """A monotonic clock that runs a little fast or slow, and a wall clock that can be set.

    Parameters
    ----------
    rate : float
        Seconds of this clock for each second of the World.
    origin : float
        What the monotonic clock shows when the World begins.
    """

    __slots__ = ("_origin", "_rate", "_skew")

    def __init__(self, rate: float = 1.0, origin: float = 0.0) -> None:
        self._rate = rate
        self._origin = origin
        self._skew = 0

    def now(self, world: float) -> float:
        """Monotonic seconds of this host at a moment of the World."""
        return self._origin + world * self._rate

    def wall(self, world: float) -> int:
        """UTC microseconds that this host shows."""
        return WALL_START + int(world * 1e6) + self._skew

    def when(self, now: float) -> float:
        """The moment of the World at which the monotonic clock shows ``now``."""
        return (now - self._origin) / self._rate

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._skew += int(seconds * 1e6)

    def stand_still(self, seconds: float) -> None:
        """The host was suspended: its monotonic clock has not seen these seconds of the World."""
        self._origin -= seconds * self._rate
