"""Makes a canonical file of a foreign one, and looks at files: every problem at once, what they have, what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars.checks import Columns, Problem, check, refuse
from ktrdr_worker.trading.bars.deriving import derive
from ktrdr_worker.trading.bars.gaps import GapReport, find_gaps
from ktrdr_worker.trading.bars.loading import to_bars
from ktrdr_worker.trading.bars.reading import Reading, read
from ktrdr_worker.trading.bars.table import NO_TIME, PRICES, Bars, DataError
from ktrdr_zmq.strategy.formats import CANONICAL, BarFormat
from ktrdr_zmq.strategy.symbols import classify
from ktrdr_zmq.strategy.timeframes import MINUTES, can_derive

PIECE = 50_000


class Converted(NamedTuple):
    """A canonical file, its bars, what was done to rows, and what a person should know."""

    text: bytes
    bars: Bars
    changed: dict[str, int]
    ignored: list[str]
    warnings: list[str]


class Inspected(NamedTuple):
    """What is wrong with a file; its bars if nothing is."""

    problems: list[Problem]
    bars: Bars | None


def convert(path: Path, name: str, symbol: str, timeframe: str, form: BarFormat) -> Converted:
    """Make a canonical file: UTC, opens, one spelling of numbers. Nothing is filled in; rows are dropped only as ``form.duplicates`` says.

    Parameters
    ----------
    path : Path
        The file, CSV or Parquet.
    name : str
        What to call it in messages.
    symbol, timeframe : str
    form : BarFormat
        How it is written.

    Raises
    ------
    DataError
        For the first thing that is wrong, with its row.
    """
    reading = read(path, name, timeframe, form)
    columns, turned = _forwards(reading.columns)
    columns, dropped = _settle(columns, form.duplicates)
    refuse([*reading.problems, *check(columns, timeframe)], name)
    count = len(reading.columns.opens)
    changed = {
        "rows_read": count, "rows_written": len(columns.opens), "duplicates_dropped": dropped, "rows_reversed": turned,
        "times_converted": reading.converted, "times_shifted": count if form.bar_time == "close" else 0,
    }  # fmt: skip
    bars = to_bars(columns, symbol, timeframe)
    return Converted(canonical(bars, volume=reading.volume), bars, changed, reading.ignored, _warnings(reading, bars))


def inspect(path: Path, name: str, symbol: str, timeframe: str, form: BarFormat) -> Inspected:
    """Find everything that is wrong with a file: as a job would read it, or, if ``form`` says anything, as an import would."""
    try:
        reading = read(path, name, timeframe, form)
    except DataError as error:
        return Inspected([Problem("file", 0, 1, error.message, error.hint)], None)
    columns = reading.columns
    if form != CANONICAL:
        columns, _ = _forwards(columns)
        columns, _ = _settle(columns, form.duplicates)
    problems = sorted([*reading.problems, *check(columns, timeframe)], key=lambda each: each.row)
    return Inspected(problems, None if problems else to_bars(columns, symbol, timeframe))


class Summary(NamedTuple):
    """What is missing in bars, and what can be made of them: timeframe, number of bars, why not."""

    report: GapReport
    derived: list[tuple[str, int, str]]


def summarise(bars: Bars, name: str) -> Summary:
    """Look at bars from outside."""
    kind = classify(bars.symbol)
    derived = []
    for timeframe in MINUTES:
        if timeframe == bars.timeframe or not can_derive(bars.timeframe, timeframe):
            continue
        try:
            count, why_not = len(derive(bars, timeframe, kind, [], name).opens), ""
        except DataError as error:
            count, why_not = 0, error.message
        derived.append((timeframe, count, why_not))
    return Summary(find_gaps(bars, kind), derived)


def canonical(bars: Bars, *, volume: bool = True) -> bytes:
    """Bars as the text of a canonical file. Numbers are written as short as they can be told apart, so that reading gives the same bits."""
    fields = (*PRICES, "volume") if volume else PRICES
    times = np.datetime_as_string(bars.opens.astype("datetime64[ns]"), unit="s")
    columns = [getattr(bars, field) for field in fields]
    lines = [",".join(("timestamp", *fields)) + "\n"]
    for first in range(0, len(times), PIECE):
        part: list[Any] = [column[first : first + PIECE].tolist() for column in columns]
        lines += [f"{time}Z,{','.join(map(_number, row))}\n" for time, *row in zip(times[first : first + PIECE], *part, strict=True)]
    return "".join(lines).encode()


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")


def _forwards(columns: Columns) -> tuple[Columns, int]:
    """A file that runs from the newest to the oldest, turned round as a whole; how many rows that were."""
    steps = np.diff(columns.opens)
    if len(steps) and (steps <= 0).all() and (steps < 0).any() and (columns.opens != NO_TIME).all():
        return Columns(*(column[::-1] for column in columns)), len(columns.opens)
    return columns, 0


def _settle(columns: Columns, duplicates: str) -> tuple[Columns, int]:
    """Drop rows whose time is there twice, as was said; how many that were."""
    same = np.diff(columns.opens) == 0
    same &= columns.opens[1:] != NO_TIME
    if duplicates == "last":
        keep: Array = np.append(~same, True)
    elif duplicates == "first":
        keep = np.append(True, ~same)
    elif duplicates == "identical":
        equal = np.logical_and.reduce([column[1:] == column[:-1] for column in columns[1:-1]])
        keep = np.append(True, ~(same & equal))
    else:
        return columns, 0
    return Columns(*(column[keep] for column in columns)), int((~keep).sum())


def _warnings(reading: Reading, bars: Bars) -> list[str]:
    told = []
    if not reading.volume:
        told.append("The file has no volume; indicators that need it cannot be used.")
    elif not bars.volume.any():
        told.append("The volume is 0 in every bar.")
    if reading.ignored:
        told.append(f"Columns that were ignored: {', '.join(reading.ignored)[:300]}.")
    return told
