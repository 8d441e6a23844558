"""A client without a broker: jobs, workers and results that a test puts there; submitted jobs run through a script of updates."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any, Self

import msgspec

from ktrdr_zmq import payload
from ktrdr_zmq.errors import UnknownJob
from ktrdr_zmq.events import ProgressUpdate, Watched
from ktrdr_zmq.handles import AsyncJob, JobRequest
from ktrdr_zmq.jobs import Failure, JobState
from ktrdr_zmq.results import BACKTEST_METRICS, CLASSIFICATION_METRICS
from ktrdr_zmq.views import ArtifactInfo, AttemptInfo, Explanation, JobInfo, LogChunk, WorkerInfo

AT = dt.datetime(2026, 6, 1, 12, 0, 0, tzinfo=dt.UTC)
MODEL = ArtifactInfo("model", "ab" * 32, 12_345, "application/zip")
TRADES = ArtifactInfo("trades", "cd" * 32, 17, "text/csv")
EQUITY = ArtifactInfo("equity", "ce" * 32, 17, "text/csv")
PAGE = ArtifactInfo("report", "ba" * 32, 17, "text/html")
CRASH = Failure("Crashed", "The job's process was killed.", signal=11, exit_code=0, stderr_tail="segmentation\nfault\n")


def job(number: int = 1, **changes: Any) -> JobInfo:
    """A training that is done; with changes."""
    attempt = AttemptInfo(1, "trainer", "cpu", AT, AT + dt.timedelta(seconds=12), "COMPLETED", None)
    plain: dict[str, Any] = {
        "id": f"{number:032x}", "kind": "training", "state": JobState.DONE, "reason": "COMPLETED", "rev": 3, "name": "mine", "labels": {},
        "submitter": "ada@lab", "priority": 0, "device": "auto", "attempt": 1, "worker_id": "trainer", "tag": "cpu", "crashes": 0,
        "losses": 0, "submitted": AT, "started": AT, "finished": AT, "run_s": 12.0, "fraction": 1.0, "stage": "", "text": "", "metrics": {},
        "artifacts": [MODEL], "failure": None, "attempts": [attempt], "notice": "", "retry_of": "", "inputs": {"data": "ef" * 32}, "seq": 1,
        "result_size": 10,
    }  # fmt: skip
    return JobInfo(**{**plain, **changes})


def worker(name: str = "trainer", **changes: Any) -> WorkerInfo:
    """A live worker with a CPU slot; with changes."""
    plain: dict[str, Any] = {
        "worker_id": name, "state": "live", "gpu": False, "gpu_type": None, "gpu_count": 0, "simulated_gpu": False, "address": "127.0.0.1",
        "hostname": "lab", "slots": {"cpu": 2}, "kinds": {"training": (1, 1)}, "running": [], "draining": False, "silent_s": 0.5,
        "connected_at": AT, "software": {"torch": "2.13"}, "numeric": "f00d",
        "pid": 7, "cpus": 2, "memory": 4 << 30, "lag": 0.0, "load": 0.5,
    }  # fmt: skip
    return WorkerInfo(**{**plain, **changes})


def scores(balanced: float = 0.45) -> dict[str, Any]:
    """Classification figures."""
    figures: dict[str, Any] = dict.fromkeys(CLASSIFICATION_METRICS, 0.5)
    return {
        "output_format": "classification",
        **figures,
        "samples": 1234,
        "balanced_accuracy": balanced,
        "mcc": None,
        "confusion": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    }


def trained(**changes: Any) -> dict[str, Any]:
    """A training's result."""
    part = {
        "samples": 100, "purged": 4, "skipped": 0,
        "first": "2017-10-01T00:00:00Z", "last": "2017-12-01T00:00:00Z", "label_end": "2017-12-02T00:00:00Z",
        "class_counts": [30, 40, 30], "by_symbol": {"EURUSD": 100},
    }  # fmt: skip
    history: dict[str, list[float]] = {
        name: [0.5] for name in ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "learning_rate")
    }
    return {
        "schema": 1, "kind": "training", "strategy_name": "neuro_mean_reversion", "symbols": ["EURUSD"], "timeframe": "1h",
        "timeframes": ["1h"], "overrides": {}, "data": [_data()],
        "output_format": "classification", "model_type": "mlp", "sequence_length": 1, "classes": ["SELL", "HOLD", "BUY"],
        "feature_ids": ["rsi.low", "rsi.high"], "train_part": part,
        "validation_part": part, "test_part": part, "epochs_run": 17, "best_epoch": 5, "stopped_early": True,
        "history": {"epoch": [1], **history}, "train": scores(), "validation": scores(), "test": scores(0.4263), "baseline": scores(1 / 3),
        "majority_class": "HOLD", "gap": 0.01, "parameters": 99, "seed": 42, "device": "cpu", "threads": 1, "duration_s": 3.3,
        "model_digest": MODEL.digest, "config_digest": "12" * 32, "fingerprint": {"torch": "2.13"}, "conventions": {},
        "warnings": ["Take care."], "digest": "34" * 32,
        **changes,
    }  # fmt: skip


def backtested(**changes: Any) -> dict[str, Any]:
    """A backtest's result."""
    metrics: dict[str, Any] = {name: 3 if metric.unit == "count" else 0.0123 for name, metric in BACKTEST_METRICS.items()}
    metrics |= {"max_bars_held": 7, "sortino_ratio": None, "equity_final": 101_954.4}
    return {
        "schema": 1, "kind": "backtesting", "strategy_name": "neuro_mean_reversion", "symbol": "EURUSD", "timeframe": "1h",
        "timeframes": ["1h"], "overrides": {}, "data": _data(),
        "window": {"first": "2017-10-01T00:00:00Z", "last": "2017-12-29T00:00:00Z", "bars": 900, "chosen": False, "seen_bars": 11},
        "in_sample": False, "capital": 100_000.0, "commission_bps": 0.5, "slippage_bps": 0.5, "metrics": metrics, "signals": {"BUY": 3},
        "open_at_end": False, "model_digest": MODEL.digest, "artifacts": {}, "device": "cpu", "duration_s": 1.0, "fingerprint": {},
        "conventions": {"fill": "at the next open"}, "warnings": [], "digest": "34" * 32, **changes,
    }  # fmt: skip


def _check(kind: str) -> dict[str, Any]:
    return {
        "schema": 1, "kind": kind, "strategy_name": "neuro_mean_reversion", "symbol": "EURUSD", "timeframe": "1h", "timeframes": ["1h"],
        "data": _data(), "model_digest": MODEL.digest, "seed": 0, "device": "cpu", "threads": 1, "duration_s": 0.5, "fingerprint": {},
        "conventions": {}, "warnings": [], "digest": "0d" * 32,
    }  # fmt: skip


def looked(*changes: dict[str, Any]) -> dict[str, Any]:
    """A look-ahead check's result."""
    return {**_check("check-lookahead"), "clean": not changes, "cuts": 50, "bars": 6194, "changes": list(changes)}


def warmed(**changes: Any) -> dict[str, Any]:
    """A warm-up check's result."""
    length = {
        "multiple": 1, "bars": 27, "samples": 200, "changed": 6, "share": 0.03, "feature": "1h_trend_strong", "largest_feature": 1.0,
        "largest_output": 0.0278,
    }  # fmt: skip
    longer = {**length, "multiple": 4, "bars": 108, "changed": 0, "share": 0.0, "largest_output": 0.0004}
    return {
        **_check("check-warmup"), "warmup_bars": 27, "history_required": 30, "lengths": [length, longer],
        "recommended": 108, "enough": False, **changes,
    }  # fmt: skip


def reported(**changes: Any) -> dict[str, Any]:
    """A report's result."""
    return {
        "schema": 1, "kind": "report", "title": "mine on EURUSD 1h", "backtest": "b" * 32, "training": "", "bars": 900, "trades": 84,
        "with_prices": True, "in_sample": False, "octets": 5_100_000, "report_digest": PAGE.digest, "duration_s": 0.6, "warnings": [],
        "digest": "0d" * 32,
        **changes,
    }  # fmt: skip


def _data() -> dict[str, Any]:
    return {
        "symbol": "EURUSD", "timeframe": "1h", "digest": "ef" * 32, "filename": "EURUSD_1h.csv", "origin": "built-in",
        "source_timeframe": "1h",
        "bars": 6225, "warmup_bars": 20, "gaps": 0, "first": "2017-01-01T00:00:00Z", "last": "2017-12-29T00:00:00Z",
    }  # fmt: skip


class FakeClient:
    """As much of `AsyncClient` as the command line uses."""

    endpoint = "tcp://127.0.0.1:5555"
    reachable = True

    def __init__(self) -> None:
        self.infos: list[JobInfo] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.crew: list[WorkerInfo] = [worker()]
        self.requests: list[JobRequest] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.log = b""
        self.refusals: list[Exception] = []
        self.ends = JobState.DONE
        self.failure: Failure | None = None
        self.answer: dict[str, Any] = trained()
        self.on_submit: Any = None
        self.addresses: list[str | None] = []
        self.plays = False
        self.products: list[ArtifactInfo] = [MODEL]

    def put(self, info: JobInfo, result: dict[str, Any] | None = None) -> JobInfo:
        """Let there be a job; the newest is put last."""
        self.infos.append(info)
        if result is not None:
            self.results[info.id] = result
        return info

    def connect(self, broker: str | None) -> Self:
        self.addresses.append(broker)
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    # ------------------------------------------------------------ jobs

    async def job_info(self, ref: str) -> JobInfo:
        last, _, kind = ref.partition(":")
        for info in reversed(self.infos):
            if info.id == ref or (len(ref) >= 4 and info.id.endswith(ref)) or (last == "last" and kind in ("", info.kind)):
                return info
        raise UnknownJob(f"There is no job {ref}.")

    async def job(self, ref: str) -> AsyncJob:
        info = await self.job_info(ref)
        watched = _watched(info)
        if self.plays and not info.terminal:
            self._playing = asyncio.ensure_future(self._play(info, watched))
        return AsyncJob(self, watched)  # type: ignore[arg-type]

    async def jobs(self, **filters: Any) -> list[JobInfo]:
        self.calls.append(("jobs", filters))
        found = [
            info
            for info in reversed(self.infos)
            if (not filters.get("states") or info.state in filters["states"])
            and (not filters.get("kinds") or info.kind in filters["kinds"])
            and (not filters.get("name") or info.name == filters["name"])
        ]
        return found[: filters.get("limit", 100)]

    async def submit_request(self, request: JobRequest) -> AsyncJob:
        self.requests.append(request)
        while self.refusals:
            refusal = self.refusals.pop(0)
            if not callable(request.wait_refusals) or not getattr(refusal, "retryable", False):
                raise refusal
            request.wait_refusals(refusal)  # type: ignore[arg-type]
        info = self.put(
            job(
                0xABCD0000 + len(self.requests),
                kind=request.kind,
                name=request.name,
                state=JobState.QUEUED,
                fraction=0.0,
                reason="SUBMITTED",
                artifacts=self.products,
            ),
            self.answer,
        )
        if self.on_submit is not None:
            self.on_submit()
        watched = _watched(info)
        self._playing = asyncio.ensure_future(self._play(info, watched))
        return AsyncJob(self, watched)  # type: ignore[arg-type]

    async def _play(self, info: JobInfo, watched: Watched) -> None:
        for epoch in range(1, 5):
            await asyncio.sleep(0)
            watched.state, watched.reason, watched.attempt = JobState.RUNNING, "ACCEPTED", 1
            watched.worker_id, watched.tag = "trainer", "cpu"
            watched.tell(ProgressUpdate(info.id, 1, epoch / 5, "training", f"epoch {epoch} of 5", {}, "trainer", "cpu"))
        watched.state, watched.reason, watched.failure = (
            self.ends,
            "COMPLETED" if self.ends is JobState.DONE else "HANDLER_ERROR",
            self.failure,
        )
        self.infos[self.infos.index(info)] = msgspec.structs.replace(
            info, state=self.ends, reason=watched.reason, failure=self.failure, fraction=1.0
        )
        watched.tell(watched.update())

    async def fetch_result(self, ref: str) -> bytes:
        return payload.pack(self.results[ref])

    async def cancel(self, refs: Any, *, grace: float) -> list[JobInfo]:
        self.calls.append(("cancel", {"refs": refs, "grace": grace}))
        return [msgspec.structs.replace(await self.job_info(ref), state=JobState.CANCELLING) for ref in refs]

    async def retry(self, ref: str, *, resume: bool = False) -> AsyncJob:
        info = await self.job_info(ref)
        again = self.put(job(0xEEEE, state=JobState.QUEUED, retry_of=info.id))
        return AsyncJob(self, _watched(again))  # type: ignore[arg-type]

    async def logs(self, ref: str, offset: int, limit: int) -> LogChunk:
        data = self.log[offset : offset + min(limit, 10)]
        return LogChunk(offset, data, offset + len(data) >= len(self.log))

    async def explain(self, ref: str) -> Explanation:
        return Explanation(
            await self.job_info(ref), "The job waits for a free slot.", [("trainer", "all cpu slots are taken"), ("other", "")]
        )

    # ------------------------------------------------------------ cluster and artifacts

    async def workers(self) -> list[WorkerInfo]:
        return self.crew

    async def admin(self, action: str, **args: Any) -> dict[str, Any]:
        self.calls.append((action, args))
        counts = {"removed": 1, "changed": 1, "running": 1}
        return {"paused": action == "pause", **counts, **({"worker_id": args["worker_id"]} if "worker_id" in args else {})}

    async def status(self) -> dict[str, Any]:
        return {
            "schema": 1, "version": "0.1", "started_at": int(AT.timestamp() * 1e6), "states": {"running": 2, "queued": 3},
            "queued": {"cpu": 3},
            "paused": True, "storage": "ok", "counters": {}, "workers": {"live": 1},
            "disk": {
                "jobs": {"done": 4}, "artifacts": 2, "artifact_octets": 2_000_000, "database_octets": 5000,
                "disk_free_octets": 9_000_000_000,
                "data_dir": "/data",
            },
        }  # fmt: skip

    async def get_artifact(self, digest: str, to: Path) -> Path:
        await asyncio.to_thread(to.write_text, digest)
        return to


def _watched(info: JobInfo) -> Watched:
    watched = Watched(bytes.fromhex(info.id), 0.0, acknowledged=True)
    watched.state, watched.reason, watched.rev, watched.attempt = info.state, info.reason, info.rev, info.attempt
    watched.worker_id, watched.tag, watched.failure = info.worker_id, info.tag, info.failure
    return watched
