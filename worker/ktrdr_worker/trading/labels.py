"""What a network is to foresee, of the coming bars. The only room that looks ahead, and it says how far."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars
from ktrdr_zmq.strategy.schema import Labels

SELL, HOLD, BUY = 0, 1, 2
UNKNOWN: Final = -1


class Labelled(NamedTuple):
    """Labels of all bars.

    Attributes
    ----------
    targets : array of int64 or float32, shape (n,)
        SELL, HOLD or BUY, or UNKNOWN; or returns as fractions of the price, NaN where unknown.
    ends : array of int64, shape (n,)
        The last bar that each label looks at; n or more where the future is not there.
    known : array of bool, shape (n,)
        False where the future, or the past that a threshold is measured by, is not there.
    """

    targets: Array
    ends: Array
    known: Array


def label(bars: Bars, settings: Labels, *, returns: bool = False) -> Labelled:
    """Label every bar at its close.

    Parameters
    ----------
    bars : Bars
    settings : Labels
    returns : bool
        Give the forward returns themselves, for a regression.
    """
    if returns:
        found = _forward_returns(bars.close, settings.horizon)
        targets: Array = found.astype(np.float32)
        return Labelled(targets, np.arange(len(found)) + settings.horizon, np.isfinite(targets))
    if settings.source == "zigzag":
        classes, ends = zigzag(np.ascontiguousarray(bars.close), settings.reversal)
    elif settings.source == "triple_barrier":
        limits = thresholds(bars.close, settings)
        stop = settings.threshold if settings.stop_threshold is None else settings.stop_threshold
        prices = (np.ascontiguousarray(column) for column in (bars.high, bars.low, bars.close))
        classes, ends = triple_barrier(*prices, limits, limits * (stop / settings.threshold), settings.horizon)
    else:
        classes, ends = _forward_classes(bars.close, settings)
    return Labelled(classes, ends, classes != UNKNOWN)


def _forward_returns(close: Array, horizon: int) -> Array:
    found = np.full(len(close), np.nan)
    if len(close) > horizon:
        found[:-horizon] = close[horizon:] / close[:-horizon] - 1.0
    return found


def _forward_classes(close: Array, settings: Labels) -> tuple[Array, Array]:
    """By the return from a bar's close to the close ``horizon`` bars later: above the threshold BUY, below its negative SELL."""
    returns, limits = _forward_returns(close, settings.horizon), thresholds(close, settings)
    classes = np.where(returns > limits, BUY, np.where(returns < -limits, SELL, HOLD))
    known = np.isfinite(returns) & np.isfinite(limits)
    return np.where(known, classes, UNKNOWN).astype(np.int64), np.arange(len(close)) + settings.horizon


def thresholds(close: Array, settings: Labels) -> Array:
    """The threshold of each bar as a fraction of the price; NaN where it is not known yet.

    In the unit ``volatility`` it is multiplied by the standard deviation (ddof 1) of the last ``volatility_window`` one-bar log returns,
    times the root of the horizon: known at that bar.
    """
    if settings.scale == "fraction":
        return np.full(len(close), settings.threshold)
    window = settings.volatility_window
    limits = np.full(len(close), np.nan)
    if len(close) > window:
        limits[window:] = rolling_deviation(np.diff(np.log(close)), window) * np.sqrt(settings.horizon) * settings.threshold
    return limits


OPEN, WON, LOST = 0, 1, 2


@njit(cache=True, nogil=True)
def triple_barrier(high, low, close, targets, stops, horizon):  # type: ignore[no-untyped-def]
    """Which of two trades, begun at a bar's close, wins: the long one BUY, the short one SELL, neither or both HOLD.

    A trade wins that reaches its target before its stop and within `horizon` bars; a bar that touches both counts as stop. A label looks no
    further than the bar that ends the later of the two. Lopez de Prado, Advances in Financial Machine Learning, 2018, chapter 3, with the
    levels of both sides.
    """
    count = len(close)
    classes: Array = np.full(count, UNKNOWN, dtype=np.int64)
    ends = np.arange(count) + horizon
    for bar in range(count):
        if not np.isfinite(targets[bar]):
            continue
        price = close[bar]
        long_target, long_stop = price * (1.0 + targets[bar]), price * (1.0 - stops[bar])
        short_target, short_stop = price * (1.0 - targets[bar]), price * (1.0 + stops[bar])
        long = short = OPEN
        last = min(bar + horizon, count - 1)
        later = bar
        while later < last and OPEN in (long, short):
            later += 1
            if long == OPEN:
                long = LOST if low[later] <= long_stop else (WON if high[later] >= long_target else OPEN)
            if short == OPEN:
                short = LOST if high[later] >= short_stop else (WON if low[later] <= short_target else OPEN)
        if later == bar + horizon or OPEN not in (long, short):
            classes[bar] = HOLD if (long == WON) == (short == WON) else (BUY if long == WON else SELL)
            ends[bar] = later
    return classes, ends


@njit(cache=True, nogil=True)
def zigzag(close, reversal):  # type: ignore[no-untyped-def]
    """By the return from a bar's close to the turning point that ends its leg: from `reversal` up BUY, from its negative down SELL.

    Closes turn where they have moved by `reversal` against the leg from its furthest close. That is known only at the bar of that move,
    which is where the labels of the whole leg end. The bars before the first turning point belong to the leg that ends there.
    """
    count = len(close)
    classes: Array = np.full(count, UNKNOWN, dtype=np.int64)
    ends: Array = np.full(count, count, dtype=np.int64)
    begin = high = low = direction = 0  # the leg's first bar, its highest and lowest close so far, and where it goes (0: not known yet)
    for bar in range(1, count):
        if close[bar] > close[high]:
            high = bar
        if close[bar] < close[low]:
            low = bar
        turn = -1
        if direction >= 0 and close[bar] <= close[high] * (1.0 - reversal):
            turn, direction = high, -1
        elif direction <= 0 and close[bar] >= close[low] * (1.0 + reversal):
            turn, direction = low, 1
        if turn >= 0:
            for before in range(begin, turn):
                rest = close[turn] / close[before] - 1.0
                classes[before] = BUY if rest >= reversal else (SELL if rest <= -reversal else HOLD)
                ends[before] = bar
            begin, high, low = turn, bar, bar
    return classes, ends


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
