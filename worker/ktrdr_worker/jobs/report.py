"""The kind ``report``: what a backtest left in, one page of HTML out. Glue between the framework and `ktrdr_worker.trading.report`."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from ktrdr_worker.handler import JobContext
from ktrdr_worker.jobs.inputs import Source, bars_of, input_of, read_body
from ktrdr_worker.trading.bars import Bars
from ktrdr_worker.trading.report.material import Equity, Material, Ran, read_equity, read_trades, window_of
from ktrdr_worker.trading.report.page import render, title_of
from ktrdr_zmq import results
from ktrdr_zmq.version import __version__


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the body tells it: what it was, and its result document."""

    job: Ran
    result: dict[str, Any]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a report; `ktrdr_zmq.followups` makes it."""

    backtest: Told
    training: Told | None = None


class Reporting:
    """Makes the page of a backtest."""

    kind = "report"
    versions = (1, 1)

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Make the page of the backtest that ``body`` tells of; see `ReportResult` for what comes back."""
        begun = time.monotonic()
        context.progress(0.05, stage="reading")
        library = _library()
        request = read_body(body, Request)
        result = results.BacktestResult.from_dict(request.backtest.result)
        training = results.TrainingResult.from_dict(request.training.result) if request.training else None
        equity = read_equity(input_of(context, "equity").read_bytes(), result)
        trades = read_trades(input_of(context, "trades").read_bytes(), result)
        context.check_cancelled()
        context.progress(0.3, stage="bars", text=f"{len(equity.closes):,} bars, {len(trades):,} trades")
        bars = _bars(context, result, equity)
        notes = [] if bars is not None else ["The bars of the backtest are not there: neither prices nor buy and hold are drawn."]
        context.check_cancelled()
        context.progress(0.6, stage="page")
        material = Material(
            job=request.backtest.job, result=result, training=training, training_job=request.training.job if request.training else None,
            equity=equity, trades=trades, bars=bars, software={"ktrdr-zmq": __version__, "plotly.js": library.version}, notes=notes,
        )  # fmt: skip
        page = render(material, library.source).encode()
        context.check_cancelled()
        digest = context.add_artifact("report", page, "text/html")
        context.progress(1.0, stage="done")
        return results.ReportResult(
            title=title_of(material), backtest=material.job.id, training=material.training_job.id if material.training_job else "",
            bars=len(equity.closes), trades=len(trades), with_prices=bars is not None, in_sample=result.in_sample, octets=len(page),
            report_digest=digest, duration_s=time.monotonic() - begun, warnings=notes, digest="",
        ).sealed().to_dict()  # fmt: skip


class Library(msgspec.Struct, frozen=True):
    """The chart library as it is put into the page."""

    source: str
    version: str


def _library() -> Library:
    """Load plotly where it is needed: no other job has to wait for its import."""
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    return Library(get_plotlyjs(), get_plotlyjs_version())


def _bars(context: JobContext, result: results.BacktestResult, equity: Equity) -> Bars | None:
    """The bars of the window, if there are any and they are the same."""
    if "data" not in context.inputs:
        return None
    data = result.data
    source = Source(data.symbol, data.source_timeframe, data.filename, data.origin)
    return window_of(bars_of(context, "data", source, result.symbol, result.timeframe).bars, equity)


handler = Reporting()
