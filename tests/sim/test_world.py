"""The seeded World: no promise is broken in any of many stories, and deliberate bugs are found out."""

from __future__ import annotations

import pytest

from ktrdr_zmq.testing import Violation
from tests.sim.mutations import MUTATIONS, Mutation
from tests.sim.scenario import run_story

pytestmark = [pytest.mark.sim, pytest.mark.timeout(300)]

SEEDS = 300
BATCH = 50
MOST_SEEDS = 150


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_promise_is_broken(first: int) -> None:
    stories = [run_story(seed) for seed in range(first, first + BATCH)]
    seen = sum((story.seen for story in stories), start=stories[0].seen - stories[0].seen)
    assert {
        "drop",
        "duplicate",
        "cut",
        "block one way",
        "block both ways",
        "kill",
        "crash",
        "freeze",
        "suspend",
        "jump",
        "full",
    } <= seen.keys()
    outcomes = sum((story.outcomes for story in stories), start=stories[0].outcomes - stories[0].outcomes)
    assert {"done", "failed", "cancelled"} <= outcomes.keys()


def test_a_seed_always_tells_the_same_story() -> None:
    first: list[str] = []
    second: list[str] = []
    assert run_story(7, first.append) == run_story(7, second.append)
    assert first == second


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_deliberate_bug_is_found_out(mutation: Mutation) -> None:
    with mutation():
        for seed in range(MOST_SEEDS):
            try:
                run_story(seed)
            except Exception as error:
                if isinstance(error, Violation):
                    assert f"--seed {seed}" in str(error)
                return
    pytest.fail(f"{mutation.__name__} survived {MOST_SEEDS} stories")
