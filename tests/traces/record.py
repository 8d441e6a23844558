"""Scripted dialogues of the real cores, written down as text: what a stranger reads to see how they talk.

``python -m tests.traces.record`` writes them anew after a wanted change; the difference shows in review what the change does to the wire.
Heartbeats and progress are left out. Times are simulated seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ktrdr_broker.config import BrokerConfig
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import JobSpec
from ktrdr_zmq.testing import Effect, Frames, Publication, ToPeer, World
from tests.sim.broker_machine import TABLES, BrokerMachine
from tests.sim.client_machine import ClientMachine, Planned, numbered
from tests.sim.ledger import Ledger
from tests.sim.trace import QUIET, brief
from tests.sim.worker_machine import Work, WorkerMachine

FOLDER = Path(__file__).parent
CONFIG = BrokerConfig(reclaim_max=30.0)
TO_PEER = {"workers": codec.TO_WORKER, "clients": codec.TO_CLIENT}


class Spy(BrokerMachine):
    """A broker that tells what it hears and says."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(CONFIG, random.Random(1))
        self._say = say
        self._names: dict[bytes, str] = {}

    def receive(self, port: str, peer: bytes, frames: Frames, now: float, wall: int) -> None:
        message, _ = codec.decode(frames, TABLES[port][1])
        if isinstance(message, m.WorkerHello):
            self._names[peer] = message.info.worker_id
        elif isinstance(message, m.ClientHello):
            self._names[peer] = "client"
        self._tell(now, f"{self._names.get(peer, '?')} -> broker", message)
        super().receive(port, peer, frames, now, wall)

    def effects(self, now: float, wall: int) -> list[Effect]:
        effects = super().effects(now, wall)
        for effect in effects:
            if isinstance(effect, ToPeer):
                message, _ = codec.decode(effect.frames, TO_PEER[effect.port])
                self._tell(now, f"broker -> {self._names.get(effect.peer, '?')}", message)
            elif isinstance(effect, Publication):
                message, _ = codec.decode(effect.frames, codec.EVENTS)
                self._tell(now, "broker -> subscribers", message)
        return effects

    def _tell(self, now: float, way: str, message: Any) -> None:
        if not isinstance(message, QUIET):
            self._say(f"{now:9.3f}  {way:<22} {type(message).__name__}{brief(message)}")


def plan(*seconds: float, cancel: float = -1.0) -> list[Planned]:
    """Jobs that take so long, submitted a tenth of a second after each other."""
    spec = JobSpec("long", queue=True, reclaim_after=2.0)
    return [
        Planned(0.1 * n, numbered(n), spec, msgspec.msgpack.encode(Work(s, 0, False, b"r")), cancel)
        for n, s in enumerate(seconds, 1)
    ]  # fmt: skip


def a_job_from_submit_to_result(world: World) -> Iterator[list[Planned]]:
    """One job, nothing goes wrong."""
    yield plan(1.5)
    world.run(5.0)


def a_broker_that_is_killed_and_comes_back(world: World) -> Iterator[list[Planned]]:
    """The job runs on meanwhile; HELLO names it, and the verdict lets it go on in the same attempt."""
    yield plan(8.0)
    world.run(2.0)
    world.kill("broker")
    world.run(2.0)
    world.start("broker")
    world.run(30.0)


def a_worker_that_is_lost(world: World) -> Iterator[list[Planned]]:
    """Its job is given to the other one after its return was waited for."""
    yield plan(6.0)
    world.run(1.0)
    world.kill("one")
    world.run(40.0)


def a_job_that_is_cancelled(world: World) -> Iterator[list[Planned]]:
    """The worker is told, stops the child, and says so."""
    yield plan(30.0, cancel=1.0)
    world.run(5.0)


SCENES = (a_job_from_submit_to_result, a_broker_that_is_killed_and_comes_back, a_worker_that_is_lost, a_job_that_is_cancelled)


def played(scene: Callable[[World], Iterator[list[Planned]]]) -> str:
    """A scene as text."""
    lines: list[str] = []
    spy = Spy(lines.append)
    ledger = Ledger(spy.audit)
    world = World(1, spy, trace=lambda line: lines.append(line.rstrip()))
    story = scene(world)
    jobs = next(story)
    ledger.expected.update({job.job_id: b"r" for job in jobs})
    for name in ("one", "two"):
        world.add(WorkerMachine(name, {"cpu": 1}, random.Random(name), ledger), ["workers", "bulk"])
    world.add(ClientMachine(jobs, random.Random("client"), ledger), ["clients", "events", "bulk"])
    for _ in story:
        raise AssertionError("a scene yields its jobs once")
    return f"{scene.__name__.replace('_', ' ')}: {str(scene.__doc__).strip()}\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    """Write all scenes."""
    for scene in SCENES:
        (FOLDER / f"{scene.__name__}.txt").write_text(played(scene), encoding="utf-8")


if __name__ == "__main__":
    main()
