"""Parts that several indicators are made of. A place where a value is undefined is NaN, which `compute` reports.

TA-Lib says 0 where it would have to divide by 0; `still`, `nothing` and their like find those places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import talib

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.indicators.define import Prices
from ktrdr_zmq.strategy.indicator import AVERAGES

MA_TYPES: Final = {name: getattr(talib.MA_Type, name.upper()) for name in AVERAGES}
CHUNK: Final = 1 << 22
"""Values that are held at once while windows are gone through."""


def moving_average(values: Array, kind: str, period: int) -> Array:
    """The moving average of this kind; leading NaN are passed over."""
    result: Array = talib.MA(values, timeperiod=period, matype=MA_TYPES[kind])
    return result


def ema(values: Array, period: int) -> Array:
    """The exponential moving average, begun with a simple one; leading NaN are passed over."""
    result: Array = talib.EMA(values, timeperiod=period) if period > 1 else values.copy()
    return result


def shifted(values: Array, count: int) -> Array:
    """The value `count` bars before; NaN where there is none."""
    result = np.full(len(values), np.nan)
    result[count:] = values[: len(values) - count]
    return result


def steps(values: Array) -> Array:
    """The change from the bar before; NaN at the first."""
    return values - shifted(values, 1)


def highest(values: Array, period: int) -> Array:
    """The maximum of the last `period` values."""
    result: Array = talib.MAX(values, timeperiod=period) if period > 1 else values
    return result


def lowest(values: Array, period: int) -> Array:
    """The minimum of the last `period` values."""
    result: Array = talib.MIN(values, timeperiod=period) if period > 1 else values
    return result


def true_range(x: Prices) -> Array:
    """The range of each bar with the close before it; NaN at the first."""
    before = shifted(x.close, 1)
    return np.maximum(x.high, before) - np.minimum(x.low, before)


# ---------------------------------------------------------------- where nothing is defined


def where_not(undefined: Array, values: Array) -> Array:
    """The values, but NaN where they are undefined."""
    return np.where(undefined, np.nan, values)


def still(high: Array, low: Array, period: int) -> Array:
    """Bars up to which nothing has moved for `period` bars."""
    return highest(high, period) == lowest(low, period)


def still_so_far(values: Array) -> Array:
    """Bars up to which a series has never moved."""
    return np.maximum.accumulate(values) == np.minimum.accumulate(values)


def nothing(values: Array, period: int) -> Array:
    """Bars up to which a series has been 0 for `period` bars; it may begin with NaN."""
    return highest(np.abs(values), period) == 0.0


def nothing_so_far(values: Array) -> Array:
    """Bars up to which a series has never been anything but 0; it may begin with NaN."""
    return np.fmax.accumulate(np.abs(values)) == 0.0


def spread(places: Array, count: int) -> Array:
    """Those places and the `count` bars after each: what an average over them has touched."""
    return highest(places.astype(np.float64), count + 1) == 1.0 if count else places


# ---------------------------------------------------------------- windows


def _windows(values: Array, period: int) -> Iterator[tuple[int, Array]]:
    """Windows of `period` values, one a row, some rows at a time, each with the index of its first row's last value."""
    views = np.lib.stride_tricks.sliding_window_view(values, period)
    rows = max(1, CHUNK // period)
    for first in range(0, len(views), rows):
        yield first + period - 1, views[first : first + rows]


def rolling(values: Array, period: int, figure: Callable[[Array], Array]) -> Array:
    """A figure of the last `period` values at each bar; NaN before, and where a window holds a NaN.

    Parameters
    ----------
    values : array of float64, shape (n,)
    period : int
    figure : callable
        From windows, shape (m, period), to an array of shape (m,).
    """
    result = np.full(len(values), np.nan)
    if len(values) >= period:
        for first, windows in _windows(values, period):
            result[first : first + len(windows)] = figure(windows)
    return result


def rolling_mean(values: Array, period: int) -> Array:
    """The mean of the last `period` values."""
    return rolling(values, period, lambda windows: windows.mean(axis=1))


def rolling_variance(values: Array, period: int, ddof: int = 1) -> Array:
    """The variance of the last `period` values."""
    return rolling(values, period, lambda windows: windows.var(axis=1, ddof=ddof))
