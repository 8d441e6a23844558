"""How fast jobs that do nothing go through a whole cluster: client, broker with fsync, workers and back, all on this machine.

    python benchmarks/dispatch.py --jobs 20000 --workers 1
    python benchmarks/dispatch.py --json

Each job is submitted by itself through the public API and its result awaited. For throughput `--window` callers do so at the same time;
round trips are measured one job at a time, with nothing else under way. The figures depend on the disk (every job is synced to it twice:
when it is accepted and when it ends) and on what else the machine does, so a yardstick is measured in the same run: plain pyzmq, one ROUTER
that echoes, the same window.

    jobs_per_s                    submitted, run, and result received
    rtt_p50_ms, rtt_p99_ms        one job after the other on the idle cluster: submit to result
    submit_per_s                  submitted and acknowledged as durable, while earlier ones run
    broker_cpu_ms_per_1000_jobs   processor time of the broker's process, all threads
    client_cpu_ms_per_1000_jobs   of this process
    raw_zmq_per_s                 the yardstick: messages of 200 octets echoed
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from ktrdr_zmq import AsyncClient, LocalCluster, __version__

ECHO = """
import zmq
socket = zmq.Context().socket(zmq.ROUTER)
print(socket.bind_to_random_port("tcp://127.0.0.1"), flush=True)
while True:
    frames = socket.recv_multipart()
    if frames[-1] == b"stop":
        break
    socket.send_multipart(frames)
"""


def raw_zmq(messages: int, window: int) -> float:
    """Echoes a second, with so many messages under way."""
    with subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(f"tcp://127.0.0.1:{port}")
        payload = b"x" * 200
        for _ in range(window):
            socket.send(payload)
        begun = time.perf_counter()
        for _ in range(messages):
            socket.recv()
            socket.send(payload)
        took = time.perf_counter() - begun
        socket.send(b"stop")
        socket.close(1000)
        context.term()
    return messages / took


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def spread(jobs: int, window: int, one: Callable[[], Awaitable[object]]) -> float:
    """Run so many, ``window`` of them at a time; returns how many a second."""
    left = iter(range(jobs))

    async def caller() -> None:
        for _ in left:
            await one()

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(window):
            group.create_task(caller())
    return jobs / (time.perf_counter() - begun)


async def measure(cluster: LocalCluster, jobs: int, window: int, samples: int) -> dict[str, float]:
    """All figures but the yardstick."""
    async with AsyncClient(cluster.broker) as client:

        async def whole() -> None:
            job = await client.submit("noop", {})
            await job.result()

        await spread(min(jobs, 500), window, whole)  # children are warm now, and the broker knows that the kind is short
        trips = []
        for _ in range(samples):
            begun = time.perf_counter()
            await whole()
            trips.append(1000 * (time.perf_counter() - begun))
        trips.sort()
        broker, own = cpu_seconds(cluster.processes[0].pid), time.process_time()
        rate = await spread(jobs, window, whole)
        broker, own = cpu_seconds(cluster.processes[0].pid) - broker, time.process_time() - own
        accepted = []

        async def submit() -> None:
            accepted.append(await client.submit("noop", {}))

        submits = await spread(jobs, window, submit)
        for job in accepted:
            await job.result()
    return {
        "jobs_per_s": round(rate, 1),
        "rtt_p50_ms": round(trips[len(trips) // 2], 3),
        "rtt_p99_ms": round(trips[int(len(trips) * 0.99)], 3),
        "submit_per_s": round(submits, 1),
        "broker_cpu_ms_per_1000_jobs": round(broker * 1e6 / jobs, 2),
        "client_cpu_ms_per_1000_jobs": round(own * 1e6 / jobs, 2),
    }


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "ktrdr-zmq": __version__,
        "pyzmq": zmq.__version__,
        "libzmq": zmq.zmq_version(),
        "msgspec": msgspec.__version__,
        "fsync": not options.no_fsync,
        "jobs": options.jobs,
        "workers": options.workers,
        "throughput": f"{options.window} jobs under way at a time",
        "rtt": f"one job at a time on the otherwise idle cluster, {options.samples} times",
    }


def main() -> None:
    """Run it all and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, metavar="N", help="jobs for the throughput (default 10000)")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="worker processes, one slot each (default 1)")
    parser.add_argument("--window", type=int, default=256, metavar="N", help="callers at a time (default 256)")
    parser.add_argument("--samples", type=int, default=500, metavar="N", help="round trips on the idle cluster (default 500)")
    parser.add_argument("--no-fsync", action="store_true", help="let the broker not wait for the disk")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    given = conditions(options)
    workers = [{"id": f"worker-{n + 1}", "kinds": ["noop"], "slots": "cpu=1"} for n in range(options.workers)]
    with LocalCluster(workers, broker_options=["--no-fsync"] if options.no_fsync else []) as cluster:
        figures = asyncio.run(measure(cluster, options.jobs, options.window, options.samples))
    figures["raw_zmq_per_s"] = round(raw_zmq(20_000, options.window), 1)
    if options.json:
        print(json.dumps({"schema": 1, **figures, "conditions": given}))
        return
    for name, value in figures.items():
        print(f"{name:30} {value:12,.3f}")
    print("\n" + ", ".join(f"{name} {value}" for name, value in given.items()))


if __name__ == "__main__":
    main()
