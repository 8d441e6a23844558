"""The kinds ``data-import`` and ``data-check``: a person's file in, a canonical one or a list of problems out. Glue."""

from __future__ import annotations

import time
from typing import Any, Self

import msgspec

from ktrdr_worker.handler import JobContext
from ktrdr_worker.jobs.inputs import input_of, read_body
from ktrdr_worker.trading.bars import Bars, stamp
from ktrdr_worker.trading.bars.converting import convert, inspect, summarise
from ktrdr_zmq import datasets
from ktrdr_zmq.strategy.formats import BarFormat
from ktrdr_zmq.strategy.timeframes import parse_timeframe


class Request(msgspec.Struct, kw_only=True):
    """The body of both; `ktrdr_zmq.datasets` makes it."""

    symbol: str
    timeframe: str
    filename: str
    format: dict[str, Any] = {}

    @classmethod
    def read(cls, body: dict[str, Any]) -> Self:
        """Read a body.

        Raises
        ------
        JobError
            When something is missing or of another type.
        """
        request = read_body(body, cls)
        parse_timeframe(request.timeframe)
        return request


class Importing:
    """Makes a canonical file, which the cluster then knows by the job's name."""

    kind = datasets.IMPORT
    versions = (1, 1)

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Import the file in the inputs; see `ImportResult`."""
        begun = time.monotonic()
        request = Request.read(body)
        form = BarFormat.read(request.format)
        context.progress(0.05, stage="reading")
        made = convert(input_of(context, "data"), request.filename, request.symbol, request.timeframe, form)
        context.check_cancelled()
        context.progress(0.7, stage="writing", text=f"{len(made.bars.opens):,} bars")
        digest = context.add_artifact(datasets.BARS, made.text, "text/csv")
        context.progress(0.8, stage="gaps")
        summary = summary_of(made.bars, request.filename)
        context.progress(1.0, stage="done")
        return datasets.ImportResult(
            symbol=request.symbol, timeframe=request.timeframe, filename=request.filename, digest=digest,
            source_digest=context.input_digests["data"], format=request.format, summary=summary, changed=made.changed,
            ignored_columns=made.ignored, duration_s=time.monotonic() - begun, warnings=made.warnings,
        ).to_dict()  # fmt: skip


class Checking:
    """Finds everything that is wrong with a file, and says what it has."""

    kind = datasets.CHECK
    versions = (1, 1)

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Check the file in the inputs; see `CheckResult`."""
        begun = time.monotonic()
        request = Request.read(body)
        form = BarFormat.read(request.format)
        context.progress(0.05, stage="reading")
        found = inspect(input_of(context, "data"), request.filename, request.symbol, request.timeframe, form)
        context.check_cancelled()
        context.progress(0.7, stage="gaps")
        problems = [
            datasets.Problem(code=each.code, row=each.row, times=each.often, text=each.text, hint=each.hint) for each in found.problems
        ]
        summary = None if found.bars is None else summary_of(found.bars, request.filename)
        context.progress(1.0, stage="done")
        return datasets.CheckResult(
            symbol=request.symbol, timeframe=request.timeframe, filename=request.filename, digest=context.input_digests["data"],
            good=not problems, problems=problems, summary=summary, duration_s=time.monotonic() - begun,
        ).to_dict()  # fmt: skip


def summary_of(bars: Bars, name: str) -> datasets.Summary:
    """What a file has, for a result."""
    report, derived = summarise(bars, name)
    return datasets.Summary(
        bars=len(bars.opens), first=stamp(bars.opens[0]), last=stamp(bars.opens[-1]), gaps=report.places, missing_bars=report.bars,
        largest_gaps=[datasets.Gap(**gap) for gap in report.largest],
        derived=[datasets.Derived(timeframe=timeframe, bars=count, why_not=why) for timeframe, count, why in derived],
    )  # fmt: skip


importing = Importing()
checking = Checking()
