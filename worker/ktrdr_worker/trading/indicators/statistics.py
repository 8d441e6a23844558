"""Statistics of the last bars."""

from __future__ import annotations

from typing import Final

import numpy as np
import talib

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.indicators.common import rolling, rolling_mean, rolling_variance, shifted, still, where_not
from ktrdr_worker.trading.indicators.define import Family, Prices, bars, number, series, source_of

family = Family("Statistics")


@family("period - 1", sourced=True, talib=("STDDEV",), also=("standard_deviation",), period=bars(20))
def stddev(x: Prices, period: int) -> Array:
    """Standard deviation (ddof 0)."""
    return talib.STDDEV(x.source, timeperiod=period)


@family("period - 1", sourced=True, talib=("VAR",), period=bars(20))
def variance(x: Prices, period: int) -> Array:
    """Variance (ddof 0)."""
    return talib.VAR(x.source, timeperiod=period)


@family("period - 1", sourced=True, talib=("AVGDEV",), also=("mad",), period=bars(14))
def mean_deviation(x: Prices, period: int) -> Array:
    """Mean distance from the mean."""
    return talib.AVGDEV(x.source, timeperiod=period)


@family("period - 1", sourced=True, also=("z_score",), period=bars(20))
def zscore(x: Prices, period: int) -> Array:
    """Distance from the mean of the last bars, this one included, in standard deviations (ddof 1)."""
    values = (x.source - rolling_mean(x.source, period)) / np.sqrt(rolling_variance(x.source, period))
    return where_not(still(x.source, x.source, period), values)


def _moment(values: Array, period: int, order: int) -> Array:
    """The third or fourth central moment over that power of the deviation (ddof 0), undefined where nothing moves."""

    def figure(windows: Array) -> Array:
        distances = windows - windows.mean(axis=1, keepdims=True)
        squares = distances * distances
        powers = squares * (distances if order == 3 else squares)  # numpy's ** is twenty times slower
        return powers.mean(axis=1) / squares.mean(axis=1) ** (order / 2.0)

    return where_not(still(values, values, period), rolling(values, period, figure))


@family("period - 1", sourced=True, also=("skew",), period=bars(50, 3))
def skewness(x: Prices, period: int) -> Array:
    """Skewness, adjusted for the sample's size."""
    return _moment(x.source, period, 3) * np.sqrt(period * (period - 1.0)) / (period - 2.0)


@family("period - 1", sourced=True, period=bars(50, 4))
def kurtosis(x: Prices, period: int) -> Array:
    """Excess kurtosis, adjusted for the sample's size: 0 for a normal distribution."""
    n = float(period)
    return (n - 1.0) / ((n - 2.0) * (n - 3.0)) * ((n + 1.0) * _moment(x.source, period, 4) - 3.0 * (n - 1.0))


@family(
    "period + distance", sourced=True, period=bars(50, 3), distance=bars(1, 1, "Bars between the returns that are compared."),
)  # fmt: skip
def autocorrelation(x: Prices, period: int, distance: int) -> Array:
    """Correlation of the one-bar returns with those some bars before, -1 to 1."""
    now = x.source / shifted(x.source, 1) - 1.0
    return _correlation(now, shifted(now, distance), period)


def _correlation(one: Array, other: Array, period: int) -> Array:
    """The correlation of two series over the last bars, undefined where one does not move."""
    means = rolling_mean(one, period), rolling_mean(other, period)
    both = np.full(len(one), np.nan)
    for shift in range(period):
        part = (shifted(one, shift) - means[0]) * (shifted(other, shift) - means[1])
        both = part if shift == 0 else both + part
    flat = still(one, one, period) | still(other, other, period)
    return where_not(flat, both / period / np.sqrt(rolling_variance(one, period, 0) * rolling_variance(other, period, 0)))


@family("period - 1", sourced=True, talib=("CORREL",), also=("pearson",), period=bars(30), against=series("volume"))
def correlation(x: Prices, period: int, against: str) -> Array:
    """Correlation of the source with another series of the same bars, -1 to 1."""
    other = np.ascontiguousarray(source_of(x, against))
    flat = still(x.source, x.source, period) | still(other, other, period)
    return where_not(flat, talib.CORREL(x.source, other, timeperiod=period))


@family("period", sourced=True, talib=("BETA",), period=bars(30), against=series("open"))
def beta(x: Prices, period: int, against: str) -> Array:
    """How much the returns of the source move with one of another series of the same bars: the slope of the regression on these."""
    other = np.ascontiguousarray(source_of(x, against))
    moves = other / shifted(other, 1) - 1.0
    return where_not(still(moves, moves, period), talib.BETA(other, x.source, timeperiod=period))


@family(
    "period - 1", outputs=("value", "slope", "angle", "intercept", "forecast"), sourced=True,
    talib=("LINEARREG", "LINEARREG_SLOPE", "LINEARREG_ANGLE", "LINEARREG_INTERCEPT", "TSF"), also=("linreg", "regression"), period=bars(14),
)  # fmt: skip
def linear_regression(x: Prices, period: int) -> tuple[Array, ...]:
    """The regression line of the last bars: its end, slope a bar, angle in degrees, beginning, and where it goes at the next bar."""
    functions = (talib.LINEARREG, talib.LINEARREG_SLOPE, talib.LINEARREG_ANGLE, talib.LINEARREG_INTERCEPT, talib.TSF)
    return tuple(function(x.source, timeperiod=period) for function in functions)


@family("period - 1", sourced=True, talib=("PERCENTILE",), also=("quantile", "median"), period=bars(30),
    percent=number(50.0, 0.0, 100.0, "Which percentile; 50 is the median."),
)  # fmt: skip
def percentile(x: Prices, period: int, percent: float) -> Array:
    """A percentile of the last values, by the nearest rank: always one of them."""
    return talib.PERCENTILE(x.source, timeperiod=period, percentile=percent)


@family("period", sourced=True, talib=("PERCENTRANK",), also=("percentile_rank",), period=bars(100))
def percent_rank(x: Prices, period: int) -> Array:
    """The share of the bars before whose value lies below this one, 0 to 100."""
    return talib.PERCENTRANK(x.source, timeperiod=period)


LEFT_OUT: Final = {
    "MACDFIX": "is macd with 12 and 26 bars, but for its weights: 0.15 and 0.075 where an EMA of so many bars has 2/13 and 2/27",
    "MAVP": "takes its period from a second series, which a strategy has not",
    "ROCR": "is roc / 100 + 1",
    "ROCR100": "is roc + 100",
}
"""TA-Lib's functions of these families that are no indicators of their own."""
