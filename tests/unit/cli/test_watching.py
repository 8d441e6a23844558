"""Progress as it is shown: pace, attempts, and the last event."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from ktrdr_cli.output import Meter
from ktrdr_cli.watching import Pace, Watch, outages, worst
from ktrdr_zmq.events import JobUpdate, ProgressUpdate
from ktrdr_zmq.jobs import JobState
from tests.unit.cli.fake import FakeClient


class Recorder(Meter):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, float, str]] = []
        self.said: list[str] = []
        self.events: list[Mapping[str, Any]] = []

    def bar(self, key: str, name: str, stage: str, fraction: float, detail: str) -> None:
        self.bars.append((stage, fraction, detail))

    def say(self, text: str) -> None:
        self.said.append(text)

    def event(self, document: Mapping[str, Any]) -> None:
        self.events.append(document)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def progress(fraction: float, epoch: int, attempt: int = 1) -> ProgressUpdate:
    return ProgressUpdate("ab" * 16, attempt, fraction, "training", f"epoch {epoch} of 10", {}, "trainer", "gpu")


def state(which: JobState, attempt: int = 1, reason: str = "", worker: str = "trainer") -> JobUpdate:
    return JobUpdate("ab" * 16, which, reason, 1, attempt, worker, "gpu")


def test_speed_and_time_left() -> None:
    clock, meter = Clock(), Recorder()
    watch = Watch(meter, "ab" * 16, "training x", clock)
    watch.update(state(JobState.RUNNING))
    watch.update(progress(0.1, 1))
    clock.now = 2.0
    watch.update(progress(0.3, 5))
    assert meter.bars[-1] == ("training", 0.3, "epoch 5 of 10, 2.0 epochs/s, 7.0 s left, trainer (gpu)")
    assert meter.events[-1]["eta_s"] == 7.0
    watch.update(state(JobState.DONE, reason="COMPLETED"))
    assert meter.bars[-1][:2] == ("done", 1.0)
    assert meter.events[-1]["fraction"] == 1.0


def test_slow_things_are_told_in_seconds_each() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.add(1, 0.1, "fold 1 of 10")
    clock.now = 20.0
    pace.add(1, 0.2, "fold 2 of 10")
    assert pace.speed() == "20.0 s/fold"


def test_no_pace_before_it_can_be_told() -> None:
    pace = Pace(Clock())
    assert (pace.left(), pace.speed()) == (None, "")
    pace.add(1, 0.1, "")
    pace.add(1, 0.1, "")
    assert (pace.left(), pace.speed()) == (None, "")


def test_only_the_last_half_minute_counts() -> None:
    clock = Clock()
    pace = Pace(clock)
    for second in range(100):
        clock.now = float(second)
        pace.add(1, second / 1000 if second < 60 else 0.06 + (second - 60) / 100, "")
    left = pace.left()
    assert left is not None
    assert abs(left - (1 - 0.45) * 100) < 1e-6


def test_another_attempt_begins_anew_and_is_told() -> None:
    meter = Recorder()
    watch = Watch(meter, "ab" * 16, "training x", Clock())
    watch.update(progress(0.8, 8))
    watch.update(state(JobState.QUEUED, 1, "WORKER_LOST", worker=""))
    assert meter.said == ["training x: attempt 1 ended (the worker was lost); it runs again."]
    watch.update(progress(0.1, 1, attempt=2))
    assert meter.bars[-1][1] == 0.1


def test_a_bar_never_goes_back_within_an_attempt() -> None:
    meter = Recorder()
    watch = Watch(meter, "ab" * 16, "training x", Clock())
    watch.update(progress(0.5, 5))
    watch.update(progress(0.4, 4))
    assert meter.bars[-1][1] == 0.5


def test_the_worst_of_several_codes() -> None:
    assert worst([]) == 0
    assert worst([0, 5]) == 5
    assert worst([5, 6]) == 6
    assert worst([6, 1, 5]) == 1


def test_a_broker_that_is_gone_is_told_once_and_its_return_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ktrdr_cli.watching.LOOK_S", 0.001)
    meter, client = Recorder(), FakeClient()

    async def work() -> None:
        async with outages(client, meter):  # type: ignore[arg-type]
            for reachable in (True, False, False, True, True):
                client.reachable = reachable
                await asyncio.sleep(0.02)

    asyncio.run(work())
    assert meter.said == ["The broker does not answer; trying again ...", "The broker is back."]
    assert [event["reachable"] for event in meter.events] == [False, True]
