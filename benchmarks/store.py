"""What many jobs cost the broker: memory for those that wait, and time at the start for those that have ended.

    python benchmarks/store.py
    python benchmarks/store.py --queued 100000 --ended 1000000 --json

Queued jobs are submitted through the public API to a broker without workers. Ended ones are written into the database by the broker's own
store, then the broker is started on it: once after a clean stop, and once as if the last one had been killed, which has every page of the
database checked.

    queued_octets_per_job     resident memory of the broker's process for each queued job
    submit_per_s              of those
    start_empty_s             start of a broker on a new folder, until it is ready
    start_clean_s             the same on a folder with all the ended jobs
    start_killed_s            the same after a broker that did not end cleanly
    start_queued_s            the same on the folder with the queued jobs
    list_ms                   the newest hundred of the ended jobs, asked for by a client
    database_mb               with the ended jobs
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from ktrdr_broker.model import Job, Saves
from ktrdr_broker.sqlite import FILE_NAME, SqliteStore
from ktrdr_zmq import AsyncClient, JobRequest, LocalCluster, __version__
from ktrdr_zmq.jobs import Attempt, JobSpec, JobState, Reason

BATCH = 5_000
BODY = {"symbol": "EURUSD", "timeframe": "1h", "fast": 12, "slow": 26, "threshold": 0.25}


def resident(pid: int) -> int:
    """Octets."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def started(folder: Path) -> tuple[LocalCluster, float]:
    """A broker on a folder, and the seconds until it was ready."""
    begun = time.perf_counter()
    cluster = LocalCluster([], folder)
    return cluster, time.perf_counter() - begun


async def fill(cluster: LocalCluster, count: int) -> float:
    """Submit so many jobs that wait; returns how many a second."""
    begun = time.perf_counter()
    async with AsyncClient(cluster.broker) as client:
        for first in range(0, count, BATCH):
            many = range(first, min(first + BATCH, count))
            await client.submit_many(JobRequest(kind="echo", body={**BODY, "number": n}, queue=True) for n in many)
    return count / (time.perf_counter() - begun)


async def list_newest(cluster: LocalCluster) -> float:
    """Milliseconds for the newest hundred."""
    async with AsyncClient(cluster.broker) as client:
        begun = time.perf_counter()
        assert len(await client.jobs(limit=100)) == 100
        return 1000 * (time.perf_counter() - begun)


def write_ended(folder: Path, count: int) -> None:
    """So many jobs that are done, as the broker would have left them."""
    store = SqliteStore(folder / "broker", fsync=False)
    store.load(time.time_ns() // 1000)
    spec = JobSpec(kind="backtesting", submitter="ada@lab")
    raw, body = msgspec.msgpack.encode(spec), msgspec.msgpack.encode(BODY)
    digest, result = hashlib.sha256(raw + body).digest(), b"x" * 300
    wall = time.time_ns() // 1000
    for first in range(0, count, BATCH):
        jobs = {}
        for seq in range(first + 1, min(first + BATCH, count) + 1):
            attempt = Attempt(1, seq, "worker-1", b"i" * 16, "cpu", wall, wall, Reason.COMPLETED)
            job = Job(
                job_id=os.urandom(16), seq=seq, spec=spec, spec_raw=raw, body=body, digest=digest, submitted_at=wall, state=JobState.DONE,
                reason=Reason.COMPLETED, rev=4, token=seq, attempt=1, worker_id="worker-1", instance=b"i" * 16, tag="cpu",
                attempts=[attempt], started_at=wall, finished_at=wall, run_s=0.1, result_size=len(result),
            )  # fmt: skip
            jobs[job.job_id] = job
        store.commit(Saves(jobs=jobs, results=dict.fromkeys(jobs, result)))
    store.close()


def measure(folder: Path, queued: int, ended: int) -> dict[str, float]:
    """All figures."""
    empty, start_empty = started(folder / "queued")
    before = resident(empty.processes[0].pid)
    rate = asyncio.run(fill(empty, queued))
    grown = resident(empty.processes[0].pid) - before
    empty.stop()
    again, start_queued = started(folder / "queued")
    again.stop()
    (folder / "ended" / "broker").mkdir(parents=True)
    write_ended(folder / "ended", ended)
    clean, start_clean = started(folder / "ended")
    listed = asyncio.run(list_newest(clean))
    clean.stop()
    database = folder / "ended" / "broker" / FILE_NAME
    with sqlite3.connect(database) as db:
        db.execute("UPDATE meta SET value = x'30' WHERE key = 'clean'")
    db.close()
    killed, start_killed = started(folder / "ended")
    killed.stop()
    return {
        "queued_octets_per_job": round(grown / queued),
        "submit_per_s": round(rate),
        "start_empty_s": round(start_empty, 3),
        "start_queued_s": round(start_queued, 3),
        "start_clean_s": round(start_clean, 3),
        "start_killed_s": round(start_killed, 3),
        "list_ms": round(listed, 2),
        "database_mb": round(database.stat().st_size / 1e6, 1),
    }


def main() -> None:
    """Run it all and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=100_000, metavar="N", help="jobs that wait (default 100000)")
    parser.add_argument("--ended", type=int, default=1_000_000, metavar="N", help="jobs that have ended (default a million)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    conditions: dict[str, Any] = {
        "queued": options.queued, "ended": options.ended, "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version,
        "ktrdr-zmq": __version__,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ktrdr-store-") as temporary:
        figures = measure(Path(temporary), options.queued, options.ended)
    if options.json:
        json.dump({"schema": 1, **figures, "conditions": conditions}, sys.stdout)
        return
    for name, value in figures.items():
        print(f"{name:24} {value:14,.3f}")
    print("\n" + ", ".join(f"{name} {value}" for name, value in conditions.items()))


if __name__ == "__main__":
    main()
