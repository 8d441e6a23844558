"""Public doubles for tests: a seeded World in which broker, workers and clients live in simulated time.

The World owns the clocks, the network and the plug of every machine. Messages are really encoded and decoded by the machines; here they
are frames. It knows nothing of brokers or jobs: a `Machine` wraps a pure core, and says after each step whether its invariants hold. All
randomness comes from the seed, so a failing seed replays exactly. It imports neither broker nor worker, and touches no socket or disk.
"""

from ktrdr_zmq.testing.clock import WALL_START, Clock
from ktrdr_zmq.testing.machine import (
    Crash,
    Effect,
    Frames,
    Machine,
    Publication,
    Quit,
    Reconnect,
    Subscribe,
    Timer,
    ToPeer,
    ToServer,
    Unsubscribe,
    Violation,
)
from ktrdr_zmq.testing.network import CALM, Faults
from ktrdr_zmq.testing.world import World

__all__ = [
    "CALM",
    "WALL_START",
    "Clock",
    "Crash",
    "Effect",
    "Faults",
    "Frames",
    "Machine",
    "Publication",
    "Quit",
    "Reconnect",
    "Subscribe",
    "Timer",
    "ToPeer",
    "ToServer",
    "Unsubscribe",
    "Violation",
    "World",
]
