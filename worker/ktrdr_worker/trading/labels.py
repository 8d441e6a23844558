"""What a network is to foresee: the return of the coming bars, as a class. The only room that looks ahead, and it says how far."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit

from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.strategy.schema import Labels

UNKNOWN: Final = -1
SELL, HOLD, BUY = 0, 1, 2


class Labelled(NamedTuple):
    """Labels of all bars.

    Attributes
    ----------
    classes : array of int64, shape (n,)
        SELL, HOLD or BUY; UNKNOWN where the future, or the past that the threshold is measured by, is not there.
    ends : array of int64, shape (n,)
        The last bar that each label looks at.
    """

    classes: Array
    ends: Array


def label(close: Array, settings: Labels) -> Labelled:
    """Label every bar by the return from its close to the close ``horizon`` bars later.

    Above the threshold is BUY, below its negative SELL. In the unit ``volatility`` the threshold of a bar is multiplied by the standard
    deviation (ddof 1) of the last ``volatility_window`` one-bar log returns, times the root of the horizon: known at that bar.

    Parameters
    ----------
    close : array of float64, shape (n,)
    settings : Labels
    """
    count, horizon = len(close), settings.horizon
    ends: Array = np.arange(count, dtype=np.int64) + horizon
    classes: Array = np.full(count, UNKNOWN, dtype=np.int64)
    if count > horizon:
        returns = close[horizon:] / close[:-horizon] - 1.0
        limits = thresholds(close, settings)[:-horizon]
        known = np.where(returns > limits, BUY, np.where(returns < -limits, SELL, HOLD))
        classes[:-horizon] = np.where(np.isfinite(limits), known, UNKNOWN)
    return Labelled(classes, ends)


def thresholds(close: Array, settings: Labels) -> Array:
    """The threshold of each bar as a fraction of the price; NaN where it is not known yet."""
    if settings.scale == "fraction":
        return np.full(len(close), settings.threshold)
    window = settings.volatility_window
    limits = np.full(len(close), np.nan)
    if len(close) > window:
        limits[window:] = rolling_deviation(np.diff(np.log(close)), window) * np.sqrt(settings.horizon) * settings.threshold
    return limits


@njit(cache=True, nogil=True)
def rolling_deviation(values, window):  # type: ignore[no-untyped-def]
    """Standard deviation (ddof 1) of each `window` values in a row; one value fewer than `window` is missing at the front."""
    count = len(values) - window + 1
    result = np.empty(count)
    for start in range(count):
        mean = 0.0
        for index in range(start, start + window):
            mean += values[index]
        mean /= window
        square = 0.0
        for index in range(start, start + window):
            square += (values[index] - mean) ** 2
        result[start] = np.sqrt(square / (window - 1))
    return result
