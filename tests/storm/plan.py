"""Which faults a storm brings, in which order and when: drawn from a seed, so that a schedule can be had again. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final, NamedTuple

HOLD: Final[dict[str, tuple[float, float]]] = {
    "broker-kill": (0.0, 0.0),
    "broker-term": (0.0, 0.0),
    "broker-stop": (0.2, 4.0),
    "worker-kill": (0.0, 0.0),
    "worker-away": (2.0, 4.0),
    "worker-term": (0.0, 0.0),
    "worker-stop": (0.2, 4.0),
    "worker-twin": (0.0, 0.0),
    "child-kill": (0.0, 0.0),
    "child-stop": (0.1, 2.0),
    "client-kill": (0.0, 0.0),
    "client-stop": (0.2, 6.0),
    "joins": (0.0, 0.0),
    "clock": (0.0, 0.0),
}
"""Every fault, and for how many seconds it may last. The broker of a storm calls a worker dead after 1.5 s: the range lies around that."""

FULL: Final[dict[str, int]] = {
    "broker-kill": 200, "broker-term": 10, "broker-stop": 10, "worker-kill": 500, "worker-away": 10, "worker-term": 20, "worker-stop": 20,
    "worker-twin": 20, "child-kill": 200, "child-stop": 20, "client-kill": 20, "client-stop": 8, "joins": 4, "clock": 20,
}  # fmt: skip
"""How often each happens in the full form."""

SOAK: Final[dict[str, float]] = {
    "broker-kill": 0.3, "broker-term": 0.1, "broker-stop": 0.2, "worker-kill": 0.5, "worker-away": 0.2, "worker-term": 0.2,
    "worker-stop": 0.3, "worker-twin": 0.1, "child-kill": 2.0, "child-stop": 1.0, "client-kill": 0.3, "client-stop": 0.3, "joins": 0.1,
    "clock": 0.5,
}  # fmt: skip
"""How often a minute in a soak: seldom enough that processes live long, since a leak shows only in those."""


class Fault(NamedTuple):
    """One thing that goes wrong: ``at`` seconds after the begin, to the ``who``-th of its kind, for ``hold`` seconds."""

    at: float
    what: str
    who: int
    hold: float


def draw(seed: int, counts: Mapping[str, int], seconds: float) -> list[Fault]:
    """A schedule with exactly so many of each, spread over so many seconds.

    Examples
    --------
    >>> draw(1, {"child-kill": 2}, 10.0) == draw(1, {"child-kill": 2}, 10.0)
    True
    """
    chance = random.Random(seed)
    names = [name for name, count in counts.items() for _ in range(count)]
    chance.shuffle(names)
    moments = sorted(chance.uniform(0.0, seconds) for _ in names)
    return [
        Fault(round(at, 3), name, chance.randrange(1 << 16), round(chance.uniform(*HOLD[name]), 2))
        for at, name in zip(moments, names, strict=True)
    ]


def soak_counts(seed: int, minutes: float) -> dict[str, int]:
    """How often each happens in so many minutes: the rate, rounded by lot."""
    chance = random.Random(f"{seed} counts")
    return {name: int(rate * minutes + chance.random()) for name, rate in SOAK.items()}
