"""Plays seeds of the World: ``python -m tests.sim.run --seeds 1000``, or one with everything that happens: ``--seed 17 --trace``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from ktrdr_zmq.testing import Violation
from tests.sim.audit import Coverage
from tests.sim.scenario import KINDS_OF_FAULT, run_story


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="play this one only")
    parser.add_argument("--without", action="append", default=[], choices=KINDS_OF_FAULT, help="a kind of fault to leave out")
    parser.add_argument("--jobs", type=int, help="at most so many jobs in a story")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    options = parser.parse_args(argv)
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    begun = time.perf_counter()
    steps, simulated, failed = 0, 0.0, 0
    seen: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    coverage = Coverage()
    for seed in seeds:
        try:
            story = run_story(seed, print if options.trace else None, without=options.without, jobs=options.jobs)
        except Violation as violation:
            failed += 1
            print(violation, file=sys.stderr)
            continue
        steps += story.steps
        simulated += story.simulated_s
        seen += story.seen
        outcomes += story.outcomes
        coverage += story.coverage
    took = time.perf_counter() - begun
    print(f"{len(seeds)} seeds, {failed} violations, {simulated / 3600:.1f} simulated hours, {steps:,} steps, {steps / took:,.0f} steps/s")
    print("faults:", ", ".join(f"{name} {count:,}" for name, count in seen.most_common()))
    print("outcomes:", ", ".join(f"{name} {count:,}" for name, count in outcomes.most_common()))
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
