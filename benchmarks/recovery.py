"""How long it takes until a fault is noticed and made good: real processes, the intervals that a broker has by default.

    python benchmarks/recovery.py
    python benchmarks/recovery.py --times 10 --json

A job that takes a while runs on one of two workers when the fault comes. Measured is the time from the fault to the moment at which a
client hears that the job runs again (or, after a restart of the broker, to the one at which it sees all workers again).

    child_killed          SIGKILL for the process that runs the job: its worker sees the end and starts it again
    worker_restarted      SIGKILL for the worker, which is started again at once, as systemd would
    worker_lost           SIGKILL for the worker, which stays away: only its silence tells
    worker_silent         SIGSTOP for the worker: its connection stays up and nothing comes
    worker_stopped        SIGTERM for the worker: it hands the job back
    broker_restarted      SIGKILL for the broker, which is started again at once: until all workers are back
    broker_start          of that, until the new process is ready
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ktrdr_zmq import AsyncClient, AsyncJob, JobUpdate, LocalCluster, __version__
from ktrdr_zmq.cluster import Process


async def running(job: AsyncJob, attempt: int) -> float:
    """The moment at which it is heard that this attempt runs."""
    async for update in job.events():
        if isinstance(update, JobUpdate) and update.attempt >= attempt and update.state == "running":
            return time.perf_counter()
    raise RuntimeError("the job has ended")


class Bench:
    """A cluster of two workers, and one fault after the other."""

    def __init__(self, cluster: LocalCluster, client: AsyncClient) -> None:
        self.cluster = cluster
        self.client = client

    def worker_of(self, name: str) -> Process:
        return next(process for process in self.cluster.processes if process.name == name)

    async def redispatch(self, fault: Callable[[Process], None]) -> float:
        """Seconds from the fault to the job's second attempt."""
        job = await self.client.submit("echo", {"seconds": 600.0})
        await running(job, 1)
        victim = self.worker_of((await job.status()).worker_id)
        begun = time.perf_counter()
        fault(victim)
        seconds = await running(job, 2) - begun
        await job.cancel(grace=0.0)
        await self.whole()
        return seconds

    async def whole(self) -> float:
        """Wait until all workers are there, those that were hurt included; returns the moment."""
        while True:
            for process in self.cluster.processes[1:]:
                if not process.alive:
                    process.start(again=True)
                os.kill(process.pid, signal.SIGCONT)
            wanted = {process.name: process.pid for process in self.cluster.processes[1:]}
            if {w.worker_id: w.pid for w in await self.client.workers() if w.state == "live" and not w.draining} == wanted:
                return time.perf_counter()
            await asyncio.sleep(0.02)

    async def broker_restarted(self) -> tuple[float, float]:
        """Seconds until the new broker is ready, and until all workers are back."""
        broker = self.cluster.processes[0]
        begun = time.perf_counter()
        broker.kill()
        broker.start()
        await asyncio.to_thread(broker.wait_ready)
        ready = time.perf_counter() - begun
        return ready, await self.whole() - begun


def kill_child(worker: Process) -> None:
    for pid in map(int, Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()):
        if b"ktrdr_worker.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def kill(worker: Process) -> None:
    worker.kill()


def restart(worker: Process) -> None:
    worker.kill()
    worker.start(again=True)


def stop(worker: Process) -> None:
    os.kill(worker.pid, signal.SIGSTOP)


def terminate(worker: Process) -> None:
    worker.terminate()


FAULTS = {"child_killed": kill_child, "worker_restarted": restart, "worker_lost": kill, "worker_silent": stop, "worker_stopped": terminate}


async def measure(times: int, workers: int) -> dict[str, list[float]]:
    """Every fault so many times."""
    found: dict[str, list[float]] = {name: [] for name in (*FAULTS, "broker_restarted", "broker_start")}
    specs = [{"id": f"worker-{n + 1}", "kinds": ["echo"], "slots": "cpu=1"} for n in range(workers)]
    with LocalCluster(specs) as cluster:
        async with AsyncClient(cluster.broker) as client:
            bench = Bench(cluster, client)
            for _ in range(times):
                for name, fault in FAULTS.items():
                    found[name].append(await bench.redispatch(fault))
                ready, back = await bench.broker_restarted()
                found["broker_start"].append(ready)
                found["broker_restarted"].append(back)
    return found


def main() -> None:
    """Run it all and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, metavar="N", help="how often each (default 5)")
    parser.add_argument("--workers", type=int, default=2, metavar="W", help="workers, one slot each, 2 at least (default 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found = asyncio.run(measure(options.times, max(options.workers, 2)))
    figures = {
        name: {"min": round(min(took), 3), "median": round(statistics.median(took), 3), "max": round(max(took), 3)}
        for name, took in found.items()
    }
    conditions: dict[str, Any] = {
        "times": options.times, "workers": options.workers, "cores": len(os.sched_getaffinity(0)), "load_before": round(load, 2),
        "python": platform.python_version(), "ktrdr-zmq": __version__, "ping_interval_s": 2.0, "dead_after_s": 10.0,
    }  # fmt: skip
    if options.json:
        json.dump({"schema": 1, "seconds": figures, "conditions": conditions}, sys.stdout)
        return
    print(f"{'seconds':20} {'min':>8} {'median':>8} {'max':>8}")
    for name, row in figures.items():
        print(f"{name:20} {row['min']:8.2f} {row['median']:8.2f} {row['max']:8.2f}")
    print("\n" + ", ".join(f"{name} {value}" for name, value in conditions.items()))


if __name__ == "__main__":
    main()
