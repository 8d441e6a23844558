"""How much processor time a cluster takes while nothing happens: a broker and its workers, their children included.

    python benchmarks/idle.py
    python benchmarks/idle.py --seconds 60 --workers 8 --json

Nobody is connected and no job was ever submitted: heartbeats and watchdogs are all that is left. Figures are in percent of one core. Ends
with code 1 when the sum is above the limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from ktrdr_zmq import LocalCluster


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time that all threads of a process and of those below it have had, to the nanosecond (Linux)."""
    tasks = (task for member in tree(pid) for task in Path(f"/proc/{member}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measure(cluster: LocalCluster, seconds: float) -> dict[str, float]:
    """Percent of one core for each daemon."""
    before = {process.name: cpu_seconds(process.pid) for process in cluster.processes}
    begun = time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - begun
    return {process.name: 100 * (cpu_seconds(process.pid) - before[process.name]) / took for process in cluster.processes}


def main() -> int:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="how long to look (default 20)")
    parser.add_argument("--settle", type=float, default=3.0, metavar="S", help="seconds between start and looking (default 3)")
    parser.add_argument("--workers", type=int, default=2, metavar="W", help="worker processes, one slot each (default 2)")
    parser.add_argument("--limit", type=float, default=2.0, metavar="P", help="percent of one core that the sum may be (default 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    workers = [{"id": f"worker-{n + 1}", "kinds": ["noop"], "slots": "cpu=1"} for n in range(options.workers)]
    with LocalCluster(workers) as cluster:
        time.sleep(options.settle)
        figures = measure(cluster, options.seconds)
    total = sum(figures.values())
    if options.json:
        print(json.dumps({"schema": 1, "cpu_percent": figures, "total": total, "limit": options.limit, "seconds": options.seconds}))
    else:
        for name, value in {**figures, "total": total}.items():
            print(f"{name:12} {value:7.3f} % of one core")
        print(f"\nover {options.seconds:g} s, {options.workers} workers, nobody connected; the limit is {options.limit:g} %")
    return 0 if total <= options.limit else 1


if __name__ == "__main__":
    sys.exit(main())
