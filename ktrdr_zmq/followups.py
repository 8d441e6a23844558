"""Jobs about jobs that are done: a report of a backtest, checks of a model. No sockets of its own; asks a client.

Inputs are named by digests that the broker has already, so that nothing but bars of one's own is uploaded.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ktrdr_zmq import payload, recipes
from ktrdr_zmq.datasets import known_to
from ktrdr_zmq.errors import Refused, UsageError
from ktrdr_zmq.handles import AsyncJob, JobRequest
from ktrdr_zmq.jobs import JobState

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.views import JobInfo

TABLES: Final = ("trades", "equity")
SAMPLES: Final = {"check-lookahead": 50, "check-warmup": 200}


async def report(client: AsyncClient, backtest: AsyncJob | str = "last", *, name: str | None = None, **options: Any) -> JobRequest:
    """A report of a backtest.

    Parameters
    ----------
    client : AsyncClient
    backtest : AsyncJob or str
        A backtest: a job, its id, or ``last`` for the newest one. One that still runs is waited for.
    name : str, optional
        Name of the report; the backtest's by default.
    options
        Anything else that `JobRequest` takes; a GPU would be of no use to it.

    Raises
    ------
    UsageError
        When it is no backtest, did not succeed, or its files are not kept any more.
    Refused
        When its result is not kept any more.
    """
    info = await find_backtest(client, backtest)
    files = {artifact.name: artifact.digest for artifact in info.artifacts}
    missing = [table for table in TABLES if table not in files]
    if missing:
        raise UsageError(
            f"Backtest {info.id[:8]} has no {' and no '.join(missing)} any more, so that there is nothing to draw.",
            hint=f"Run it again with: ktrdr jobs retry {info.id[:8]}",
        )
    body: dict[str, Any] = {"schema": 1, "backtest": {"job": _told(info), "result": payload.unpack(await client.fetch_result(info.id))}}
    inputs = {table: files[table] for table in TABLES}
    if "data" in info.inputs:
        inputs["data"] = info.inputs["data"]
    training = await _training(client, info.inputs.get("model", ""))
    if training is not None:
        body["training"] = training
    return JobRequest(kind="report", body=body, inputs=inputs, name=info.name if name is None else name, **{"device": "cpu", **options})


async def check(
    client: AsyncClient, kind: str, model: AsyncJob | str = "last", symbol: str | None = None, timeframe: str | None = None, *,
    samples: int | None = None, seed: int = 0, data_dir: str | Path | None = None, name: str | None = None, **options: Any,
) -> JobRequest:  # fmt: skip
    """A check of a trained model.

    Parameters
    ----------
    client : AsyncClient
    kind : str
        ``check-lookahead`` or ``check-warmup``.
    model : AsyncJob or str
        A training: a job, its id, ``last``, NAME (the newest) or NAME@N. One that still runs is waited for.
    symbol : str, optional
        On whose bars to check it; the first that the model was trained on by default.
    timeframe : str, optional
        Only for a check: the timeframe that the model decides on.
    samples : int, optional
        How many bars to look at; 50 for look-ahead, 200 for warm-up by default.
    seed : int
        Chooses them.
    data_dir : Path, optional
        Folder with bars of one's own, looked in first.
    name : str, optional
        Name of the job; the model's by default.
    options
        Anything else that `JobRequest` takes.

    Raises
    ------
    UsageError
        When there is no such model, there are no bars, or a number makes no sense.
    """
    count = SAMPLES[kind] if samples is None else samples
    if not 1 <= count <= 100_000 or not 0 <= seed < 1 << 31:
        raise UsageError(f"samples must be between 1 and 100,000, and seed between 0 and {(1 << 31) - 1:,}.")
    info = await recipes.find_model(client, model)
    trained = payload.unpack(await client.fetch_result(info.id))
    request = recipes.backtesting(
        info, trained, symbol, timeframe, data_dir=data_dir, known=await known_to(client), name=name, **options
    )  # fmt: skip
    request.kind = kind
    request.body = {key: request.body[key] for key in ("schema", "symbol", "timeframe", "data")} | {"samples": count, "seed": seed}
    return request


async def find_backtest(client: AsyncClient, backtest: AsyncJob | str) -> JobInfo:
    """The backtest behind a job or a reference, with its end awaited.

    Raises
    ------
    UsageError
        When it is none, or did not succeed.
    """
    if isinstance(backtest, str):
        backtest = await client.job("last:backtesting" if backtest == "last" else backtest)
    elif not hasattr(backtest, "status"):
        raise UsageError(f"{backtest!r:.80} is no backtest: give a job or its id.")
    info = await backtest.status()
    if info.kind != "backtesting":
        raise UsageError(
            f"Job {info.id[:8]} is no backtest: its kind is {info.kind}.", hint="See the backtests with: ktrdr jobs list --kind backtesting"
        )
    if not info.terminal:
        info = await backtest.wait()
    if info.state is not JobState.DONE:
        raise UsageError(f"Backtest {info.id[:8]} has no result: it is {info.state.value}.", hint=f"See why: ktrdr jobs show {info.id[:8]}")
    return info


async def _training(client: AsyncClient, model: str) -> dict[str, Any] | None:
    """The newest training that made a model, with its result; None if the broker knows neither or no more."""
    for info in await client.jobs(states=["done"], kinds=["training"], limit=10_000):
        if any(artifact.digest == model for artifact in info.artifacts):
            try:
                return {"job": _told(info), "result": payload.unpack(await client.fetch_result(info.id))}
            except Refused:
                return None
    return None


def _told(info: JobInfo) -> dict[str, Any]:
    """A job as the report tells it."""
    return {
        "id": info.id, "name": info.name, "labels": dict(info.labels), "submitter": info.submitter, "submitted": _moment(info.submitted),
        "finished": _moment(info.finished), "worker_id": info.worker_id, "tag": info.tag, "attempt": info.attempt,
    }  # fmt: skip


def _moment(moment: dt.datetime | None) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else ""
