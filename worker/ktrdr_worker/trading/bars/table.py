"""What bars are: the table itself, moments as numbers and as text. Reads no files."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.strategy.timeframes import MINUTES

MINUTE: Final = 60_000_000_000
DAY: Final = 1440 * MINUTE
PRICES: Final = ("open", "high", "low", "close")
NO_TIME: Final = -(1 << 63)
"""Stands for a time that could not be read."""


class DataError(UsageError):
    """The bars cannot be used."""

    code = "DATA"


class Bars(NamedTuple):
    """Bars of one symbol and timeframe.

    Attributes
    ----------
    symbol, timeframe : str
    opens : array of int64, shape (n,)
        Nanoseconds since 1970 (UTC) at which each bar opens, strictly rising.
    closes : array of int64, shape (n,)
        When each bar is complete: nothing of it is known before.
    open, high, low, close, volume : array of float64, shape (n,)
        Prices are above 0; volume is 0 where the file has none.
    sessions : array of int64, shape (n,)
        Number of the session a bar belongs to, never falling.
    """

    symbol: str
    timeframe: str
    opens: Array
    closes: Array
    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    sessions: Array


def cut(bars: Bars, first: int, last: int) -> Bars:
    """The bars from index `first` up to, and without, `last`."""
    columns: tuple[Any, ...] = tuple(bars)
    return Bars(bars.symbol, bars.timeframe, *(column[first:last] for column in columns[2:]))


def moment(text: str) -> int:
    """A moment of ISO 8601 in nanoseconds since 1970, UTC where it has no offset.

    Raises
    ------
    DataError
        When it is none, or outside the years 1900 to 2199.
    """
    try:
        found = dt.datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise DataError(f"{text!r:.40} is no moment; write it as 2017-06-30T13:00:00Z.") from None
    if not 1900 <= found.year < 2200:
        raise DataError(f"{text!r:.40} lies outside the years 1900 to 2199.")
    found = found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found
    return (found - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1) * 1000


def stamp(nanoseconds: Any) -> str:
    """A moment in ISO 8601, UTC."""
    return dt.datetime.fromtimestamp(int(nanoseconds) // 1_000_000_000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def index_of(bars: Bars, nanoseconds: int | None, default: int) -> int:
    """The index of the first bar at or after a moment: that opens then or later, or of a day or more, whose date is that or later."""
    if nanoseconds is None:
        return default
    shift = DAY // 2 if MINUTES[bars.timeframe] >= MINUTES["1d"] else 0
    return int(np.searchsorted(bars.opens + shift, nanoseconds))
