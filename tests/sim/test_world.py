"""The seeded World: no promise is broken in any of many stories, and deliberate bugs are found out.

``--seeds N`` plays N stories in place of the usual ones, without the deliberate bugs, and prints what they went through.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ktrdr_zmq.testing import Violation
from tests.sim.mutations import MUTATIONS, SEEDS_THAT_SHOW, Mutation, name_of
from tests.sim.run import Report
from tests.sim.scenario import run_story

SEEDS = 300
BATCH = 50
MOST_SEEDS = 150
MANY = 3000
RARE = {"leased -> timed_out", "leased -> failed", "leased -> cancelling", "queued -> timed_out"}
"""Changes of state that some dozens of stories need not have: most of them need an ACCEPT that is lost."""
FAULTS = {
    "drop", "duplicate", "cut", "block one way", "block both ways", "kill", "crash", "freeze", "suspend", "jump", "overrun", "full",
    "stop broker", "stop worker", "copy", "twin", "restore",
}  # fmt: skip

pytestmark = [pytest.mark.sim, pytest.mark.timeout(300)]


@pytest.fixture
def usual(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--seeds"):
        pytest.skip("--seeds was given")


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_promise_is_broken(first: int) -> None:
    report = Report().play(range(first, first + BATCH))
    assert report.violations == []
    assert {"done", "failed", "cancelled", "timed_out"} <= report.outcomes.keys()
    assert set(report.missing_transitions()) <= RARE


@pytest.mark.timeout(0)
def test_so_many_stories_as_were_asked_for(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    count = request.config.getoption("--seeds") or 10
    begun = time.perf_counter()
    report = Report().play(range(count))
    with capsys.disabled():
        print("\n" + "\n".join(report.lines(time.perf_counter() - begun)))
    assert report.violations == []
    assert set(report.missing_transitions()) <= (RARE if count < MANY else set())
    if count > SEEDS:
        assert report.missing_messages() == []
        assert report.seen.keys() >= FAULTS


@pytest.mark.usefixtures("usual")
def test_a_seed_always_tells_the_same_story() -> None:
    stories, traces = [], []
    for _ in range(2):
        lines: list[str] = []
        story = run_story(7, lines.append)
        stories.append((story.steps, story.simulated_s, story.seen, story.outcomes))
        traces.append(lines)
    assert stories[0] == stories[1]
    assert traces[0] == traces[1]
    assert any("-> broker" in line and "WorkerHello" in line for line in traces[0])


@pytest.mark.usefixtures("usual")
def test_a_seed_tells_the_same_story_in_every_process() -> None:
    """Each process hashes strings in its own way; in this story the order of two strings once decided what came first."""
    code = "from tests.sim.scenario import run_story; run_story(117, print)"
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    told = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": number}, cwd=root, capture_output=True, text=True, check=True).stdout
        for number in ("1", "2")
    ]
    assert told[0] == told[1]
    assert "WorkerHello" in told[0]


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("mutation", MUTATIONS, ids=name_of)
def test_a_deliberate_bug_is_found_out(mutation: Mutation) -> None:
    hint = SEEDS_THAT_SHOW.get(name_of(mutation), 0)
    with mutation():
        for seed in (hint, *range(MOST_SEEDS)):
            try:
                run_story(seed)
            except Violation as violation:
                assert f"--seed {seed}" in str(violation)
                return
    pytest.fail(f"{name_of(mutation)} survived {MOST_SEEDS} stories")


@pytest.mark.usefixtures("usual")
def test_a_bug_whose_place_has_gone_is_an_error() -> None:
    edit = next(mutation for mutation in MUTATIONS if hasattr(mutation, "old"))._replace(old="what is not there")
    with pytest.raises(AssertionError, match="is not once in"), edit():
        pass
