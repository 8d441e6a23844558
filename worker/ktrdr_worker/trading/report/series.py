"""Curves that can be drawn, and returns by the month. Arrays in, arrays out."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import DAY, session_numbers
from ktrdr_zmq.strategy.symbols import SymbolClass
from ktrdr_zmq.strategy.timeframes import MINUTES

BUCKETS: Final = 1500
"""Columns of pixels that a curve is thinned for: more than a chart has on most screens."""


def thin(values: Array, buckets: int = BUCKETS) -> Array:
    """Which points of a curve to draw so that it looks as if all were.

    Of each bucket of neighbouring points the first, the lowest, the highest and the last one are kept, so that no peak and no trough is
    lost, whatever falls between two strides (M4: Jugel et al., VLDB 7 (2014) 797).

    Parameters
    ----------
    values : array of float64, shape (n,)
    buckets : int

    Returns
    -------
    array of int64
        Rising indices; all of them where there are no more than four a bucket.
    """
    count = len(values)
    if count <= 4 * buckets:
        return np.arange(count)
    edges = np.linspace(0, count, buckets + 1).astype(np.int64)
    buckets_of = [(begin, values[begin:end]) for begin, end in pairwise(edges.tolist())]
    extremes = [begin + int(find(part)) for begin, part in buckets_of for find in (np.argmin, np.argmax)]
    return np.unique(np.concatenate((edges[:-1], edges[1:] - 1, extremes)))


class Year(NamedTuple):
    """Returns of one year as fractions: twelve months, None where the window has none of it, and the whole."""

    year: int
    months: list[float | None]
    total: float | None


def monthly(closes: Array, equity: Array, capital: float, timeframe: str, kind: SymbolClass) -> list[Year]:
    """Returns of months and years, from equity at the last close of each one's last session.

    A session belongs to the month of its date (forex: Sunday evening is Monday's); a bar of a week to that in which it closes.

    Parameters
    ----------
    closes : array of int64, shape (n,)
        When the bars close, in nanoseconds since 1970, UTC.
    equity : array of float64, shape (n,)
    capital : float
        Equity before the first bar.
    timeframe : str
    kind : SymbolClass

    Returns
    -------
    list of Year
        The product of all months, and that of all years, is the total return. None also after equity was lost.
    """
    days = session_numbers(closes - 1, timeframe, kind) if MINUTES[timeframe] < MINUTES["1d"] else (closes - DAY // 2) // DAY
    months: Array = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)  # since 1970
    last = np.flatnonzero(np.append(np.diff(months) != 0, True))
    ends = dict(zip(months[last].tolist(), equity[last].tolist(), strict=True))
    found: list[Year] = []
    before = year_before = capital
    for year in range(int(months[0]) // 12, int(months[-1]) // 12 + 1):
        row: list[float | None] = []
        for month in range(12 * year, 12 * year + 12):
            end = ends.get(month)
            row.append(_growth(before, end))
            before = before if end is None else end
        found.append(Year(1970 + year, row, _growth(year_before, before) if any(12 * year + m in ends for m in range(12)) else None))
        year_before = before
    return found


def _growth(before: float, after: float | None) -> float | None:
    return None if after is None or before <= 0 else after / before - 1.0
