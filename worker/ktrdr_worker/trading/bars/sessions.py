"""Sessions: which day a bar belongs to, when days begin and end. All that is known of exchanges is in `ktrdr_zmq.strategy.symbols`."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars.table import DAY, Bars
from ktrdr_zmq.strategy.symbols import SymbolClass
from ktrdr_zmq.strategy.timeframes import MINUTES


def session_days(opens: Array, kind: SymbolClass) -> Array:
    """The date (days since 1970) of the session that each moment belongs to."""
    local = pd.DatetimeIndex(opens.astype("datetime64[ns]"), tz="UTC").tz_convert(ZoneInfo(kind.session_zone)).tz_localize(None)
    if kind.session_start_hour:
        local = local + pd.Timedelta(hours=24 - kind.session_start_hour)
    days: Array = local.to_numpy().astype("datetime64[D]").astype(np.int64)
    return days


def session_numbers(opens: Array, timeframe: str, kind: SymbolClass) -> Array:
    """The session of each bar, as a number that never falls: a day, or the bar itself where it is a day or more."""
    if MINUTES[timeframe] >= MINUTES["1d"]:
        return np.arange(len(opens), dtype=np.int64)
    return session_days(opens, kind)


def days_of(bars: Bars, kind: SymbolClass) -> Array:
    """The date (days since 1970) of the session of each bar: of a bar of a day or more, the date in its first half."""
    if MINUTES[bars.timeframe] >= MINUTES["1d"]:
        days: Array = (bars.opens + DAY // 2) // DAY
        return days
    return session_days(bars.opens, kind)


def weekday(days: Any) -> Any:
    """0 is Monday; day 0 of 1970 was a Thursday."""
    return (days + 3) % 7


def periods_per_year(timeframe: str, kind: SymbolClass) -> int:
    """How many of the periods that figures are made of (sessions, or weeks) a year has."""
    return 52 if timeframe == "1w" else kind.periods_per_year


def session_end(timeframe: str, source_timeframe: str, kind: SymbolClass) -> str:
    """When a period that figures are made of ends, in words: of bars of a timeframe that were made of a file's bars."""
    last = "Sunday" if kind.days_a_week == 7 else "Friday"
    if MINUTES[source_timeframe] >= MINUTES["1d"]:  # the file knows why its days end when they do
        return "with each bar of the file" if timeframe == source_timeframe else f"with {last}'s bar of the file"
    place = "New York" if kind.session_zone == "America/New_York" else kind.session_zone
    if kind.regular is not None and MINUTES[timeframe] < MINUTES["1d"]:
        return f"with the last bar of a date of {place}"  # bars outside regular hours are traded as well, where the file has them
    minutes = kind.regular[1] if kind.regular is not None else kind.session_start_hour * 60
    end = f"{minutes // 60}:{minutes % 60:02} {place}" if minutes else f"midnight {place}"
    return f"{last} {end}" if timeframe == "1w" else end


def session_starts(days: Array, kind: SymbolClass) -> Array:
    """When the sessions of these dates begin, in nanoseconds (UTC)."""
    return _at(days, kind, (kind.session_start_hour - 24) * 60 if kind.session_start_hour else 0)


def regular_hours(days: Array, kind: SymbolClass) -> tuple[Array, Array]:
    """When regular trading begins and ends on these dates, in nanoseconds (UTC); the whole session where there are no such hours."""
    if kind.regular is None:
        return session_starts(days, kind), session_starts(days + 1, kind)
    return _at(days, kind, kind.regular[0]), _at(days, kind, kind.regular[1])


def _at(days: Array, kind: SymbolClass, minutes: int) -> Array:
    """So many minutes by the wall clock after midnight of these dates."""
    first = np.diff(days, prepend=days[:1] - 1) != 0  # a date comes many times in a row: each run is looked up once
    local = pd.DatetimeIndex(days[first].astype("datetime64[D]").astype("datetime64[ns]")) + pd.Timedelta(minutes=minutes)
    moments = local.tz_localize(ZoneInfo(kind.session_zone), ambiguous=np.ones(len(local), dtype=bool), nonexistent="shift_forward")
    starts: Array = moments.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    return starts[np.cumsum(first) - 1]


BEFORE, REGULAR, AFTER = 0, 1, 2


def part_of_day(bars: Bars, days: Array, kind: SymbolClass) -> Array:
    """Whether each bar lies before, in or after regular hours; one that reaches into them lies in them."""
    begin, end = regular_hours(days, kind)
    parts: Array = np.where(bars.opens >= end, AFTER, np.where(bars.closes <= begin, BEFORE, REGULAR))
    return parts
