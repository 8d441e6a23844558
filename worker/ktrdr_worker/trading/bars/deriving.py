"""Coarser bars from finer ones. Every bar's beginning and end follow from the calendar alone, never from which bars happen to be there,
so that bars that come later cannot change when an earlier one was complete.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars.sessions import (
    AFTER,
    BEFORE,
    REGULAR,
    days_of,
    part_of_day,
    regular_hours,
    session_starts,
    weekday,
)
from ktrdr_worker.trading.bars.table import DAY, MINUTE, Bars, DataError, cut, stamp
from ktrdr_zmq.strategy.symbols import SymbolClass
from ktrdr_zmq.strategy.timeframes import MINUTES

HOUR: Final = 60 * MINUTE


def derive(source: Bars, timeframe: str, kind: SymbolClass, warnings: list[str], name: str) -> Bars:
    """Make coarser bars.

    Days are sessions (forex: from 17:00 New York, so that Sunday evening is Monday's; stocks: regular hours), weeks are Monday's to
    Friday's sessions (crypto: Sunday's), and what is shorter is counted from the beginning of a session. A first or last bar that the
    source covers only in part is left out, and said.

    Parameters
    ----------
    source : Bars
    timeframe : str
        A multiple of the source's.
    kind : SymbolClass
    warnings : list of str
        Gets a line for what was left out.
    name : str
        What to call the file in messages.

    Raises
    ------
    DataError
        When a source bar lies astride the end of a coarser one, on a weekend where weeks have none, or when stock bars do not look like
        those of New York's session.
    """
    days = days_of(source, kind)
    if kind.regular is not None and MINUTES[source.timeframe] < MINUTES["1d"] <= MINUTES[timeframe]:
        kept = _regular(source, days, kind, timeframe, warnings, name)
        source, days = _choose(source, kept), days[kept]
    if timeframe == "1w":
        _refuse_weekends(source, days, kind, name)
    begins, ends = _spans(source, days, timeframe, kind)
    astride = np.flatnonzero(source.closes > ends)
    if len(astride):
        raise DataError(
            f"{name}: the bar of {source.timeframe} that opens at {stamp(source.opens[astride[0]])} lies astride the end of one of "
            f"{timeframe} at {stamp(ends[astride[0]])}, so that no bars of {timeframe} can be made of these.",
            hint=f"Give bars of {timeframe} themselves, or shorter ones, in a file of their own.",
        )
    first = np.flatnonzero(np.concatenate(([True], np.diff(begins) != 0)))
    last = np.concatenate((first[1:], [len(begins)])) - 1
    made = Bars(
        source.symbol, timeframe, begins[first], ends[last], source.open[first], np.maximum.reduceat(source.high, first),
        np.minimum.reduceat(source.low, first), source.close[last], np.add.reduceat(source.volume, first),
        np.arange(len(first), dtype=np.int64) if MINUTES[timeframe] >= MINUTES["1d"] else days[first],
    )  # fmt: skip
    by_date = MINUTES[source.timeframe] >= MINUTES["1d"]  # weeks of days begin with the first day that there is
    front = int(weekday(days[0]) > 0) if by_date else int(source.opens[0] > made.opens[0])
    back = int(source.closes[-1] < made.closes[-1])
    for index, part in ((0, front), (-1, back)):
        if part:
            warnings.append(f"The {timeframe} bar of {stamp(made.opens[index])} was left out: the file has only a part of it.")
    return cut(made, front, max(len(made.opens) - back, front))


def _choose(bars: Bars, kept: Array) -> Bars:
    columns: tuple[Any, ...] = tuple(bars)
    return Bars(bars.symbol, bars.timeframe, *(column[kept] for column in columns[2:]))


def _regular(source: Bars, days: Array, kind: SymbolClass, timeframe: str, warnings: list[str], name: str) -> Array:
    """Which bars days and weeks are made of: those of regular hours, whatever else the file has."""
    kept: Array = part_of_day(source, days, kind) == REGULAR
    _, end = regular_hours(days, kind)
    reached = np.unique(days[kept & (source.closes > end - HOUR)])
    if 2 * len(reached) < len(np.unique(days)):
        raise DataError(
            f"{name}: {source.symbol} counts as a stock of New York, but on most days the file has no bar in the last hour of its session "
            f"(9:30 to 16:00), so that it cannot be told what a day is.",
            hint=f"Give bars of {timeframe} themselves, in a file of their own.",
        )
    outside = len(kept) - int(kept.sum())
    if outside:
        warnings.append(f"{outside:,} bars outside regular hours (9:30 to 16:00 New York) are no part of the {timeframe} bars.")
    return kept


def _refuse_weekends(source: Bars, days: Array, kind: SymbolClass, name: str) -> None:
    wrong = np.flatnonzero(weekday(days) >= kind.days_a_week)
    if len(wrong):
        raise DataError(
            f"{name}: the bar that opens at {stamp(source.opens[wrong[0]])} belongs to a weekend, but {source.symbol} counts as "
            f"{kind.name}, whose weeks end on Friday. No bars of 1w can be made of these."
        )


def _spans(source: Bars, days: Array, timeframe: str, kind: SymbolClass) -> tuple[Array, Array]:
    """Beginning and end of the coarser bar that each source bar belongs to."""
    monday = days - weekday(days)
    final = monday + kind.days_a_week - 1
    if MINUTES[source.timeframe] >= MINUTES["1d"]:  # weeks from days: they begin with the first, and end when the last would
        _, first, place = np.unique(monday, return_index=True, return_inverse=True)
        return source.opens[first][place], source.closes + (final - days) * DAY
    if timeframe == "1w":
        return regular_hours(monday, kind)[0], _at_least(regular_hours(final, kind)[1], source, kind, final == days)
    if timeframe == "1d":
        begins, ends = regular_hours(days, kind)
        return begins, _at_least(ends, source, kind)
    return _pieces(source, days, MINUTES[timeframe] * MINUTE, kind)


def _at_least(ends: Array, source: Bars, kind: SymbolClass, where: Array | bool = True) -> Array:
    """Ends of regular hours, or of a source bar that nominally ends after them: an hour from 15:30, say."""
    if kind.regular is None:
        return ends
    longer: Array = np.where((source.opens < ends) & where, np.maximum(ends, source.closes), ends)
    return longer


def _pieces(source: Bars, days: Array, length: int, kind: SymbolClass) -> tuple[Array, Array]:
    """Bars shorter than a day: counted from the session's beginning; before regular hours backwards from it, after them from their end."""
    starts, next_starts = session_starts(days, kind), session_starts(days + 1, kind)
    if kind.regular is None:
        begins = starts + (source.opens - starts) // length * length
        return begins, np.minimum(begins + length, next_starts)
    opening, closing = regular_hours(days, kind)
    parts = part_of_day(source, days, kind)
    number = (source.opens - np.where(parts == AFTER, closing, opening)) // length
    number = np.where(parts == REGULAR, np.maximum(number, 0), number)  # an hour from 9:00 belongs to the first regular bar
    begins = np.where(parts == AFTER, closing, opening) + number * length
    ends = np.minimum(begins + length, np.choose(parts, [opening, closing, next_starts]))
    ends = _at_least(ends, source, kind, (parts == REGULAR) & (ends == closing))
    return np.where(parts == BEFORE, np.maximum(begins, starts), begins), ends
