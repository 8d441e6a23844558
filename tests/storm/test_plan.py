"""Schedules come back from their seeds; growth is told from noise."""

from __future__ import annotations

from collections import Counter

from tests.storm import engine, plan, watch


def test_a_schedule_is_that_of_its_seed_and_has_what_was_asked_for() -> None:
    faults = plan.draw(7, plan.FULL, 100.0)
    assert faults == plan.draw(7, plan.FULL, 100.0)
    assert faults != plan.draw(8, plan.FULL, 100.0)
    assert Counter(fault.what for fault in faults) == plan.FULL
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert all(plan.HOLD[f.what][0] <= f.hold <= plan.HOLD[f.what][1] for f in faults)


def test_every_fault_can_be_carried_out() -> None:
    assert plan.FULL.keys() == plan.HOLD.keys() == plan.SOAK.keys()
    assert all(callable(getattr(engine.Storm, f"_{name.replace('-', '_')}")) for name in plan.HOLD)


def test_a_soak_has_its_rates() -> None:
    counts = plan.soak_counts(1, 600.0)
    assert all(abs(counts[name] - 600.0 * rate) <= 1 for name, rate in plan.SOAK.items())


def test_growth_is_told_from_noise() -> None:
    still = [watch.Sample(float(n), 50_000_000 + 1_000_000 * (n % 3), 20 + n % 2) for n in range(300)]
    leak = [watch.Sample(float(n), 50_000_000 + 200_000 * n, 20 + n // 2) for n in range(300)]
    looker = watch.Watch(1, dict)
    looker.lives = {("broker", 1): still}
    assert looker.broken() == []
    looker.lives = {("broker", 1): leak}
    assert len(looker.broken()) == 2
    looker.lives = {("broker", 1): leak[:50]}
    assert looker.broken() == []
