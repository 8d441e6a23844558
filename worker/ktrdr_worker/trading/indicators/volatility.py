"""Volatility: how wide the bars are and how far the price strays."""

from __future__ import annotations

import numpy as np
import talib

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.indicators.common import (
    ema,
    highest,
    nothing_so_far,
    rolling_mean,
    rolling_variance,
    shifted,
    still_so_far,
    where_not,
)  # fmt: skip
from ktrdr_worker.trading.indicators.define import Family, Prices, bars

family = Family("Volatility")


@family("period", outputs=("atr", "relative"), bare=True, unstable=True, talib=("ATR", "NATR"), period=bars(14))
def atr(x: Prices, period: int) -> tuple[Array, ...]:
    """Average true range (Wilder), in the unit of the price; relative is over the close."""
    mean = talib.ATR(x.high, x.low, x.close, timeperiod=period)
    return mean, mean / x.close


@family("1", talib=("TRANGE",))
def true_range(x: Prices) -> Array:
    """The range of the bar with the close before it."""
    return talib.TRANGE(x.high, x.low, x.close)


@family("period - 1", talib=("ADR",), period=bars(14))
def average_range(x: Prices, period: int) -> Array:
    """The simple average of high less low."""
    return talib.ADR(x.high, x.low, timeperiod=period)


@family("period + change - 1", unstable=True, talib=("CVI",), period=bars(10, meaning="Bars of the EMA."), change=bars(10, 1))
def chaikin_volatility(x: Prices, period: int, change: int) -> Array:
    """Chaikin volatility: the rate of change of an EMA of high less low, in percent."""
    smooth = ema(x.high - x.low, period)
    return 100.0 * (smooth / shifted(smooth, change) - 1.0)


@family("2 * (smooth - 1) + period - 1", unstable=True, talib=("MASSI",), smooth=bars(9, meaning="Bars of the EMA."), period=bars(25))
def mass_index(x: Prices, smooth: int, period: int) -> Array:
    """Mass index (Dorsey): the sum of the ratio of an EMA of the range to its EMA."""
    return where_not(nothing_so_far(x.high - x.low), talib.MASSI(x.high, x.low, fastperiod=smooth, slowperiod=period))


@family(
    "period + deviation_period - 2", sourced=True, unstable=True, talib=("RVI",),
    period=bars(14, meaning="Bars of Wilder's average."), deviation_period=bars(10, meaning="Bars of the standard deviation."),
)  # fmt: skip
def relative_volatility(x: Prices, period: int, deviation_period: int) -> Array:
    """Relative volatility index (Dorsey): an RSI of the standard deviation on rising and falling bars, 0 to 100."""
    return where_not(still_so_far(x.source), talib.RVI(x.source, timeperiod=period, stddevperiod=deviation_period))


@family(
    "period", outputs=("close", "parkinson", "garman_klass", "rogers_satchell", "yang_zhang"),
    also=("realised_volatility", "historical_volatility", "parkinson", "garman_klass", "rogers_satchell", "yang_zhang"), period=bars(20),
)  # fmt: skip
def realized_volatility(x: Prices, period: int) -> tuple[Array, ...]:
    """Volatility of one bar, not annualised: deviation (ddof 1) of log returns of the close, and the estimators from whole bars.

    Parkinson (1980), Garman and Klass (1980), Rogers and Satchell (1991), Yang and Zhang (2000, with their k).
    """
    high, low, close = np.log(x.high / x.open), np.log(x.low / x.open), np.log(x.close / x.open)
    gap = np.log(x.open / shifted(x.close, 1))
    satchell = rolling_mean(high * (high - close) + low * (low - close), period)
    klass = 0.5 * np.square(high - low) - (2.0 * np.log(2.0) - 1.0) * np.square(close)
    weight = 0.34 / (1.34 + (period + 1.0) / (period - 1.0))
    both = rolling_variance(gap, period) + weight * rolling_variance(close, period) + (1.0 - weight) * satchell
    variances = (
        rolling_variance(gap + close, period),
        rolling_mean(np.square(high - low), period) / (4.0 * np.log(2.0)),
        rolling_mean(klass, period),
        satchell,
        both,
    )
    return tuple(np.sqrt(np.maximum(variance, 0.0)) for variance in variances)


@family("2 * (period - 1)", sourced=True, also=("ulcer",), period=bars(14))
def ulcer_index(x: Prices, period: int) -> Array:
    """Ulcer index (Martin): root mean square of the fall from the highest value, in percent."""
    fall = 100.0 * (x.source / highest(x.source, period) - 1.0)
    return np.sqrt(rolling_mean(np.square(fall), period))


@family("period - 1", sourced=True, period=bars(100))
def drawdown(x: Prices, period: int) -> Array:
    """The fall from the highest value, as a fraction: 0 at a new high, -0.1 a tenth below."""
    return x.source / highest(x.source, period) - 1.0
