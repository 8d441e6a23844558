"""``ktrdr demo``: a whole training and a whole backtest on a small cluster of its own; the model travels between two workers."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from ktrdr_cli.cluster import DEMO_WORKERS
from ktrdr_cli.common import Command, Face, connect, face
from ktrdr_cli.local import start_in_background
from ktrdr_cli.output import Output
from ktrdr_cli.reports import report
from ktrdr_cli.watching import result_of

if TYPE_CHECKING:
    from ktrdr_zmq.handles import JobResult
    from ktrdr_zmq.views import JobInfo

STRATEGY: Final = "neuro_mean_reversion"
SYMBOL: Final = "EURUSD"
TIMEFRAME: Final = "1h"


class Ended(NamedTuple):
    """A job of the demo with its result."""

    info: JobInfo
    result: JobResult


@click.command("demo", cls=Command)
@click.option("--keep", is_flag=True, help="Leave the cluster running afterwards, as 'ktrdr up' would; stop it with 'ktrdr down'.")
def demo(keep: bool) -> None:
    """Train a network on real EURUSD bars and backtest it, on a small cluster of its own.

    It starts a broker and two workers in a temporary folder. One worker trains; the trained model travels to the other, which backtests it
    on bars that the model never saw.
    """
    shown = face()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the cluster is ended then, too
    try:
        with _cluster(shown.out, keep=keep) as (broker, folder):
            trained, tested = asyncio.run(_run(shown, broker))
            document = {
                "schema": 1, "broker": broker if keep else None, "training": training_entry(trained),
                "backtesting": backtesting_entry(tested),
            }  # fmt: skip
            blocks = [*report(trained.result, trained.info), *report(tested.result, tested.info)]
            shown.out.show(document, *blocks, "\n".join(_next_steps(keep, broker, folder)), essence=[trained.info.id, tested.info.id])
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _cluster(out: Output, *, keep: bool) -> Iterator[tuple[str, str]]:
    """A cluster for the demo: its broker's address, and its folder."""
    out.note("Starting a broker and two workers on this machine ...")
    if keep:
        folder = tempfile.mkdtemp(prefix="ktrdr-demo-")
        there = start_in_background(["--demo-workers", "--data-dir", folder], Path(folder) / "up.log")
        yield str(there["broker"]), folder
        return
    from ktrdr_zmq.cluster import LocalCluster

    with LocalCluster(DEMO_WORKERS) as cluster:
        yield cluster.broker, str(cluster.folder)


async def _run(shown: Face, broker: str) -> tuple[Ended, Ended]:
    from ktrdr_zmq.recipes import training

    out = shown.out
    async with connect(broker) as client:
        workers = ", ".join(sorted(worker.worker_id for worker in await client.workers()))
        out.note(f"Broker at {broker}; workers: {workers}.")
        out.note(f"Training {STRATEGY} on {SYMBOL} {TIMEFRAME} ...")
        job = await client.submit_request(training(STRATEGY, SYMBOL, TIMEFRAME))
        trained, trained_info = await result_of(job, out, f"training {STRATEGY}")
        out.note(f"The model {trained['model_digest'][:16]} goes from {trained_info.worker_id} to the other worker for its backtest ...")
        test = await client.backtest(job)
        tested, tested_info = await result_of(test, out, f"backtesting {STRATEGY}")
    return Ended(trained_info, trained), Ended(tested_info, tested)


def training_entry(ended: Ended) -> dict[str, Any]:
    """The training in the demo's JSON."""
    result = ended.result
    return {
        "job_id": ended.info.id, "worker": ended.info.worker_id, "device": result["device"], "tag": ended.info.tag,
        "symbols": result["symbols"], "timeframe": result["timeframe"], "epochs": result["epochs_run"], "best_epoch": result["best_epoch"],
        "duration_s": result["duration_s"], "test": result["test"], "baseline": result["baseline"], "model_digest": result["model_digest"],
    }  # fmt: skip


def backtesting_entry(ended: Ended) -> dict[str, Any]:
    """The backtest in the demo's JSON."""
    result: Mapping[str, Any] = ended.result
    return {
        "job_id": ended.info.id, "worker": ended.info.worker_id, "device": result["device"], "tag": ended.info.tag,
        "symbol": result["symbol"], "timeframe": result["timeframe"], "trades": result["metrics"]["trades"], "metrics": result["metrics"],
        "in_sample": result["in_sample"], "window": result["window"], "duration_s": result["duration_s"],
        "model_digest": result["model_digest"],
    }  # fmt: skip


def _next_steps(keep: bool, broker: str, folder: str) -> list[str]:
    if keep:
        return [
            f"The cluster keeps running at {broker}, its data in {folder}. Every command finds it:",
            "  ktrdr jobs list                      what it did",
            "  ktrdr backtest run -m last           backtest the model again",
            "  ktrdr backtest report                a page about the last backtest",
            "  ktrdr down                           stop it",
        ]
    return [
        "How to go on:",
        "  ktrdr up                             a cluster that stays, on this machine",
        f"  ktrdr models train --strategy {STRATEGY} --symbol {SYMBOL} --timeframe 1d",
        "  ktrdr backtest run -m last           backtest the last model",
        "  ktrdr backtest report                a page about the last backtest",
        f"  ktrdr strategies copy {STRATEGY} mine",
    ]
