"""The storm and the soak from the command line.

    python -m tests.storm                                                  short: about a minute
    python -m tests.storm --jobs 50000 --broker-kills 200 --worker-kills 500
    python -m tests.storm --minutes 30                                     a soak: fewer faults a minute, memory and descriptors watched
    python -m tests.storm --seed 4711 --show                               the schedule of a seed

Ends with code 0 if no promise was broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.storm.engine import Setting, Storm, conditions, random_seed
from tests.storm.plan import FULL, draw, soak_counts

SHORT_JOBS = 3000
SHORT_KILLS = 8


def options(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, metavar="N", help=f"how many jobs (default {SHORT_JOBS}; in a soak 100 a second)")
    parser.add_argument(
        "--broker-kills", type=int, default=SHORT_KILLS, metavar="N", help=f"how often the broker is killed ({SHORT_KILLS})"
    )
    parser.add_argument("--worker-kills", type=int, metavar="N", help="how often a worker is (default 2.5 times as often)")
    parser.add_argument("--pace", type=float, default=0.5, metavar="S", help="mean seconds between two faults (default 0.5)")
    parser.add_argument("--minutes", type=float, metavar="M", help="a soak of so many minutes")
    parser.add_argument("--workers", type=int, default=3, metavar="N")
    parser.add_argument("--window", type=int, default=100, metavar="N", help="jobs under way for each of the two submitters")
    parser.add_argument("--seed", type=int, help="draw the schedule from this seed")
    parser.add_argument("--show", action="store_true", help="print the schedule and end")
    parser.add_argument("--keep", type=Path, metavar="D", help="leave logs, books and database in this folder")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run a storm; returns the exit code."""
    chosen = options(sys.argv[1:] if argv is None else argv)
    seed = chosen.seed if chosen.seed is not None else random_seed()
    if chosen.minutes:
        counts = soak_counts(seed, chosen.minutes)
        seconds = chosen.minutes * 60.0
        jobs = chosen.jobs or int(seconds * 100)
    else:
        share = chosen.broker_kills / FULL["broker-kill"]
        counts = {name: max(round(count * share), 1) for name, count in FULL.items()}
        counts["broker-kill"] = chosen.broker_kills
        counts["worker-kill"] = chosen.worker_kills if chosen.worker_kills is not None else round(FULL["worker-kill"] * share)
        seconds = sum(counts.values()) * chosen.pace
        jobs = chosen.jobs or SHORT_JOBS
    plan = draw(seed, counts, seconds)
    if chosen.show:
        for fault in plan:
            print(*fault)
        return 0

    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {text}", file=sys.stderr, flush=True)

    say(f"seed {seed}: {jobs} jobs, {len(plan)} faults over {seconds:.0f} s and more")
    with tempfile.TemporaryDirectory(prefix="ktrdr-storm-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        storm = Storm(folder, Setting(seed, jobs, workers=chosen.workers, window=chosen.window, say=say))
        try:
            verdict = storm.run(plan)
        finally:
            storm.close()
        report = {
            "schema": 1, "seed": seed, "seconds": round(time.monotonic() - begun, 1), **verdict.counts, "faults": storm.done,
            "clock": "set" if storm.clock.works else "not set: no libfaketime", "resources": storm.watch.report(),
            "broken": verdict.broken, "conditions": conditions(),
        }  # fmt: skip
    if chosen.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:24} {value}")
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
