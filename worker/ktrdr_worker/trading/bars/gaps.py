"""Where bars are missing, and how many. Nothing is filled."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars.sessions import REGULAR, days_of, part_of_day, session_starts, weekday
from ktrdr_worker.trading.bars.table import MINUTE, Bars, stamp
from ktrdr_zmq.strategy.symbols import SymbolClass
from ktrdr_zmq.strategy.timeframes import MINUTES

SHOWN: Final = 10


class GapReport(NamedTuple):
    """What is missing in a file.

    Attributes
    ----------
    places : int
        Where bars are missing.
    bars : int
        Bars that would fit there.
    largest : list of dict
        The largest places, the largest first: ``after`` and ``before`` are opens of the bars beside it, ``bars`` how many would fit.
    """

    places: int
    bars: int
    largest: list[dict[str, Any]]


def find_gaps(bars: Bars, kind: SymbolClass) -> GapReport:
    """Where bars are missing while the market is open. Holidays and half days are not known, and count."""
    missing = _missing(bars, kind)
    places = np.flatnonzero(missing)
    largest = places[np.argsort(-missing[places], kind="stable")][:SHOWN]
    shown = [{"after": stamp(bars.opens[i]), "before": stamp(bars.opens[i + 1]), "bars": int(missing[i])} for i in largest]
    return GapReport(len(places), int(missing.sum()), shown)


def count_gaps(bars: Bars, kind: SymbolClass) -> int:
    """The number of places that `find_gaps` finds."""
    return int(np.count_nonzero(_missing(bars, kind)))


def _missing(bars: Bars, kind: SymbolClass) -> Array:
    """How many bars are missing between each bar and the next, shape (n - 1,)."""
    days = days_of(bars, kind)
    if bars.timeframe == "1w":
        weeks: Array = np.maximum(np.rint(np.diff(days) / 7).astype(np.int64) - 1, 0)
        return weeks
    passed = np.diff(days) if kind.days_a_week == 7 else _weekdays(days[:-1], days[1:])
    if bars.timeframe == "1d":
        days_missing: Array = np.maximum(passed - 1, 0)
        return days_missing
    length = MINUTES[bars.timeframe] * MINUTE
    idle = bars.opens[1:] - bars.closes[:-1]
    if kind.regular is not None:
        return _of_stock(bars, days, idle, passed, kind)
    if kind.days_a_week < 7:
        idle = np.where(np.diff(days) == 0, idle, _open_time(bars, days, passed, kind))
    bars_missing: Array = np.maximum(idle // length, 0)
    return bars_missing


def _weekdays(first: Array, last: Array) -> Array:
    """Weekdays from a date to another one."""
    count: Array = np.asarray(np.busday_count(first.astype("datetime64[D]"), last.astype("datetime64[D]")))
    return count


def _open_time(bars: Bars, days: Array, passed: Array, kind: SymbolClass) -> Array:
    """Time from each close to the next open in another session, in which the market is open: sessions of weekdays, 24 hours each."""
    before, after = days[:-1], days[1:]
    working = weekday(before) < kind.days_a_week
    rest = np.where(working, session_starts(before + 1, kind) - bars.closes[:-1], 0)
    begun = np.where(weekday(after) < kind.days_a_week, bars.opens[1:] - session_starts(after, kind), 0)
    between = np.maximum(passed - working, 0) * MINUTES["1d"] * MINUTE
    return rest + begun + between


def _of_stock(bars: Bars, days: Array, idle: Array, passed: Array, kind: SymbolClass) -> Array:
    """Inside regular hours, and weekdays without any bar; trading outside of them has no bars in many minutes."""
    assert kind.regular is not None
    length = MINUTES[bars.timeframe] * MINUTE
    parts = part_of_day(bars, days, kind)
    inside = (np.diff(days) == 0) & (parts[:-1] == REGULAR) & (parts[1:] == REGULAR)
    a_day = -(-(kind.regular[1] - kind.regular[0]) // MINUTES[bars.timeframe])
    missing: Array = np.where(inside, np.maximum(idle // length, 0), np.maximum(passed - 1, 0) * a_day)
    return missing
