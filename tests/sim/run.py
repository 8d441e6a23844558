"""Plays seeds of the World: ``python -m tests.sim.run --seeds 1000``, or one with everything that happens: ``--seed 17 --trace``.

``--shrink`` looks for less that still fails: fewer kinds of faults, then fewer jobs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import TRANSITIONS
from ktrdr_zmq.testing import Violation
from tests.sim.audit import Coverage
from tests.sim.scenario import KINDS_OF_FAULT, run_story

MESSAGES = {
    "workers": {*m.FROM_WORKER.values(), *m.TO_WORKER.values()},
    "clients": {*m.FROM_CLIENT.values(), *m.TO_CLIENT.values()},
    "events": set(m.EVENTS.values()),
    "bulk": {*m.BULK_TO_BROKER.values(), *m.BULK_FROM_BROKER.values()},
}


class Report:
    """What many stories went through."""

    def __init__(self) -> None:
        self.stories = self.steps = 0
        self.simulated = 0.0
        self.violations: list[str] = []
        self.seen: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.coverage = Coverage()

    def play(self, seeds: Iterable[int], **how: Any) -> Report:
        """Add these stories."""
        for seed in seeds:
            self.stories += 1
            try:
                story = run_story(seed, **how)
            except Violation as violation:
                self.violations.append(str(violation))
                print(violation, file=sys.stderr, flush=True)
                continue
            self.steps += story.steps
            self.simulated += story.simulated_s
            self.seen += story.seen
            self.outcomes += story.outcomes
            self.coverage += story.coverage
        return self

    def missing_messages(self) -> list[str]:
        """Kinds of messages that never travelled, of all that the protocol has, with their port."""
        every = {(port, kind) for port, kinds in MESSAGES.items() for kind in kinds}
        return sorted(f"{kind.__name__} ({port})" for port, kind in every - self.coverage.messages.keys())

    def missing_transitions(self) -> list[str]:
        """Changes of state that the table allows and that never happened."""
        every = {(old, new) for old, news in TRANSITIONS.items() for new in news}
        return sorted(f"{old} -> {new}" for old, new in every - self.coverage.transitions.keys())

    def lines(self, took: float) -> list[str]:
        """All of it in words."""
        transitions = sum(map(len, TRANSITIONS.values()))
        kinds = sum(map(len, MESSAGES.values()))
        return [
            f"{self.stories:,} seeds, {len(self.violations)} violations",
            f"{self.simulated / 3600:.1f} simulated hours, {self.steps:,} steps, {self.steps / took:,.0f} steps/s",
            "faults: " + _counts(self.seen),
            "jobs: " + _counts(self.outcomes),
            f"transitions: {transitions - len(self.missing_transitions())} of {transitions}" + _never(self.missing_transitions()),
            f"kinds of messages by port: {kinds - len(self.missing_messages())} of {kinds}" + _never(self.missing_messages()),
        ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counter.most_common())


def _never(missing: list[str]) -> str:
    return f"; never: {', '.join(missing)}" if missing else ""


def shrink(seed: int, **how: Any) -> dict[str, Any]:
    """Less that still fails: leave out each kind of fault in turn, then take half of the jobs as often as that helps."""

    def fails(**less: Any) -> bool:
        try:
            run_story(seed, **{**how, **less})
        except Violation:
            return True
        return False

    without: list[str] = []
    for kind in KINDS_OF_FAULT:
        if fails(without=[*without, kind]):
            without.append(kind)
    jobs = 32
    while jobs > 1 and fails(without=without, jobs=jobs // 2):
        jobs //= 2
    return {"without": without, "jobs": jobs}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="play this one only")
    parser.add_argument("--without", action="append", default=[], choices=KINDS_OF_FAULT, help="a kind of fault to leave out")
    parser.add_argument("--jobs", type=int, help="at most so many jobs in a story")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--shrink", action="store_true", help="with --seed: look for less that still fails")
    options = parser.parse_args(argv)
    how: dict[str, Any] = {"without": options.without, "jobs": options.jobs}
    if options.shrink and options.seed is not None:
        how = shrink(options.seed)
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    begun = time.perf_counter()
    report = Report().play(seeds, trace=print if options.trace else None, **how)
    print("\n".join(report.lines(time.perf_counter() - begun)))
    return min(len(report.violations), 1)


if __name__ == "__main__":
    sys.exit(main())
