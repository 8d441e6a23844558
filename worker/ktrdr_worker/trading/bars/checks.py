"""What can be wrong in the columns of a file: between the columns of a row, and between rows. Finds all, repairs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars.table import MINUTE, NO_TIME, DataError, stamp
from ktrdr_zmq.strategy.timeframes import MINUTES

SHORTEST: Final = {"1d": 20 * 60, "1w": 6 * 1440}
"""Minutes that must lie between two bars of a day or a week, whose length is only nominal."""


class Problem(NamedTuple):
    """Something wrong in a file: how often, and where first. ``row`` counts from 1, a header included; 0 is the file as a whole."""

    code: str
    row: int
    often: int
    text: str
    hint: str = ""


def problem(code: str, wrong: Array, rows: Array, describe: Callable[[int], str], hint: str = "") -> list[Problem]:
    """A problem where any is wrong, else none; ``describe`` gets the index of the first."""
    found = np.flatnonzero(wrong)
    return [Problem(code, int(rows[found[0]]), len(found), describe(int(found[0])), hint)] if len(found) else []


def refuse(problems: list[Problem], name: str) -> None:
    """Raise for the problem that comes first in the file, if there is any.

    Raises
    ------
    DataError
    """
    if problems:
        first = min(problems, key=lambda each: each.row)
        where = f"{name}, row {first.row}: " if first.row else f"{name} "
        also = "" if len(problems) == 1 else f"There is more: ktrdr data check {name} shows all."
        raise DataError(where + first.text, hint=" ".join(filter(None, (first.hint, also))))


class Columns(NamedTuple):
    """What a file has, row by row.

    Attributes
    ----------
    opens : array of int64, shape (n,)
        Nanoseconds since 1970, UTC; `NO_TIME` where there is none.
    open, high, low, close, volume : array of float64, shape (n,)
        NaN where there is none.
    rows : array of int64, shape (n,)
        Where in the file each stands, for messages.
    """

    opens: Array
    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    rows: Array


def check(columns: Columns, timeframe: str) -> list[Problem]:
    """Whatever is wrong with bars of a timeframe; rows that could not be read have been told already, and are passed over."""
    bars = Columns(*(column[columns.opens != NO_TIME] for column in columns))
    return [*_order(bars, timeframe), *_place(bars, timeframe), *_shape(bars)]


def _order(bars: Columns, timeframe: str) -> list[Problem]:
    steps = np.diff(bars.opens, prepend=bars.opens[:1] - (1 << 40) * 10_000)
    least = SHORTEST.get(timeframe, MINUTES[timeframe]) * MINUTE
    rows, times = bars.rows, bars.opens
    return [
        *problem(
            "duplicate", steps == 0, rows, lambda i: f"the time {stamp(times[i])} is there twice.",
            "ktrdr data import --duplicates first, last or identical drops rows, and counts them.",
        ),
        *problem("order", steps < 0, rows, lambda i: f"the time {stamp(times[i])} lies before the row above."),
        *problem(
            "too_soon", (steps > 0) & (steps < least), rows,
            lambda i: f"{stamp(times[i])} follows too soon on the row above for bars of {timeframe}.",
            "Is it the right timeframe?",
        ),
    ]  # fmt: skip


def _place(bars: Columns, timeframe: str) -> list[Problem]:
    grid = min(MINUTES[timeframe], 15) * MINUTE if timeframe not in SHORTEST else MINUTE  # exchanges open at a quarter of an hour
    beside = bars.opens % grid != 0
    return problem(
        "off_grid", beside, bars.rows, lambda i: f"no bar of {timeframe} opens at {stamp(bars.opens[i])}.",
        "Where a file has the times of closes: ktrdr data import --bar-time close.",
    )  # fmt: skip


def _shape(bars: Columns) -> list[Problem]:
    top, bottom = np.maximum(bars.open, bars.close), np.minimum(bars.open, bars.close)
    return [  # whatever is compared with NaN is false, and was told already
        *problem("high", bars.high < top, bars.rows, lambda _: "the high is below its open or close."),
        *problem("low", bars.low > bottom, bars.rows, lambda _: "the low is above its open or close."),
    ]
