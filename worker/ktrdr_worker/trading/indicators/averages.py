"""Moving averages, and the price itself."""

from __future__ import annotations

import numpy as np
import talib

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.indicators.common import nothing, rolling, where_not
from ktrdr_worker.trading.indicators.define import Family, Prices, bars, number

family = Family("Moving averages")


@family("0", sourced=True, talib=("AVGPRICE", "MEDPRICE", "TYPPRICE", "WCLPRICE"), also=("close", "volume", "ohlc4", "hlc3", "hl2"))
def price(x: Prices) -> Array:
    """The source itself: a price of the bar, a mean of its prices, or the volume."""
    return x.source


@family("period - 1", sourced=True, talib=("SMA", "MA"), period=bars(20))
def sma(x: Prices, period: int) -> Array:
    """Simple moving average."""
    return talib.SMA(x.source, timeperiod=period)


@family("period - 1", sourced=True, unstable=True, talib=("EMA",), period=bars(20))
def ema(x: Prices, period: int) -> Array:
    """Exponential moving average, begun with a simple one."""
    return talib.EMA(x.source, timeperiod=period)


@family("period - 1", sourced=True, unstable=True, talib=("RMA",), also=("smma", "wilder"), period=bars(14))
def rma(x: Prices, period: int) -> Array:
    """Wilder's moving average: an exponential one with the weight 1 / period."""
    return talib.RMA(x.source, timeperiod=period)


@family("period - 1", sourced=True, talib=("WMA",), period=bars(20))
def wma(x: Prices, period: int) -> Array:
    """Linearly weighted moving average: the last bar counts most."""
    return talib.WMA(x.source, timeperiod=period)


@family("2 * (period - 1)", sourced=True, unstable=True, talib=("DEMA",), period=bars(20))
def dema(x: Prices, period: int) -> Array:
    """Double exponential moving average (Mulloy): 2 EMA less the EMA of the EMA."""
    return talib.DEMA(x.source, timeperiod=period)


@family("3 * (period - 1)", sourced=True, unstable=True, talib=("TEMA",), period=bars(20))
def tema(x: Prices, period: int) -> Array:
    """Triple exponential moving average (Mulloy)."""
    return talib.TEMA(x.source, timeperiod=period)


@family(
    "6 * (period - 1)", sourced=True, unstable=True, talib=("T3",),
    period=bars(5), volume_factor=number(0.7, 0.0, 1.0, "0 is a triple smoothing, 1 a triple DEMA."),
)  # fmt: skip
def t3(x: Prices, period: int, volume_factor: float) -> Array:
    """Tillson's T3: six EMAs in a row, combined."""
    return talib.T3(x.source, timeperiod=period, vfactor=volume_factor)


@family("period - 1", sourced=True, talib=("TRIMA",), period=bars(20))
def trima(x: Prices, period: int) -> Array:
    """Triangular moving average: the bars in the middle count most."""
    return talib.TRIMA(x.source, timeperiod=period)


@family("period", sourced=True, unstable=True, talib=("KAMA",), period=bars(10))
def kama(x: Prices, period: int) -> Array:
    """Kaufman's adaptive moving average: between an EMA of 2 bars where the price trends and one of 30 where it does not."""
    return talib.KAMA(x.source, timeperiod=period)


@family("period + isqrt(period) - 2", sourced=True, talib=("HMA",), also=("hull",), period=bars(20))
def hma(x: Prices, period: int) -> Array:
    """Hull moving average: a WMA over sqrt(period) of twice the WMA of half the period less the WMA of all of it."""
    return talib.HMA(x.source, timeperiod=period)


@family("period - 1 + (period - 1) // 2", sourced=True, unstable=True, talib=("ZLEMA",), period=bars(20))
def zlema(x: Prices, period: int) -> Array:
    """Zero-lag exponential moving average: the EMA of twice the source less the source half a period before."""
    return talib.ZLEMA(x.source, timeperiod=period)


@family(
    "period - 1", sourced=True, period=bars(20),
    offset=number(0.85, 0.0, 1.0, "Where in the window the greatest weight lies: 1 is the last bar."),
    sigma=number(6.0, 0.1, 100.0, "The greater, the narrower the weights lie around that place."),
)  # fmt: skip
def alma(x: Prices, period: int, offset: float, sigma: float) -> Array:
    """Arnaud Legoux moving average: Gaussian weights around a place in the window."""
    places = np.arange(period) - offset * (period - 1)
    weights = np.exp(-0.5 * np.square(places * sigma / period))
    weights /= weights.sum()
    return rolling(x.source, period, lambda windows: (windows * weights).sum(axis=1))


@family("period - 1", sourced=True, volume=True, talib=("VWMA",), period=bars(20))
def vwma(x: Prices, period: int) -> Array:
    """Volume-weighted moving average of any source; `vwap` is that of the typical price."""
    return where_not(nothing(x.volume, period), talib.VWMA(x.source, x.volume, timeperiod=period))


@family(
    "32", outputs=("mama", "fama"), bare=True, sourced=True, unstable=True, talib=("MAMA",), ordered=(("slow_limit", "fast_limit"),),
    fast_limit=number(0.5, 0.01, 0.99, "Greatest weight of the last bar."), slow_limit=number(0.05, 0.01, 0.99, "Smallest weight of it."),
)  # fmt: skip
def mama(x: Prices, fast_limit: float, slow_limit: float) -> tuple[Array, ...]:
    """MESA adaptive moving average (Ehlers), whose weight follows the phase of the cycle, and the one that follows it."""
    fast, following = talib.MAMA(x.source, fastlimit=fast_limit, slowlimit=slow_limit)
    return fast, following


@family("63", sourced=True, unstable=True, talib=("HT_TRENDLINE",), also=("instantaneous_trendline",))
def ht_trendline(x: Prices) -> Array:
    """Instantaneous trend line (Ehlers): an average over the dominant cycle."""
    return talib.HT_TRENDLINE(x.source)


@family("period - 1", sourced=True, talib=("MIDPOINT",), period=bars(14))
def midpoint(x: Prices, period: int) -> Array:
    """The middle between the highest and the lowest value of the source; that of highs and lows is `donchian.middle`."""
    return talib.MIDPOINT(x.source, timeperiod=period)


@family(
    "max(period, 1) - 1", volume=True, unstable=True, talib=("VWAP",),
    period=bars(0, 0, "Bars to look back over; 0: from the beginning of the session."),
)  # fmt: skip
def vwap(x: Prices, period: int) -> Array:
    """Volume-weighted average of the typical price, since the session began or over the last bars."""
    typical = (x.high + x.low + x.close) / 3.0
    if period:
        return where_not(nothing(x.volume, period), talib.VWMA(typical, x.volume, timeperiod=period)) if period > 1 else typical
    result = np.empty(len(typical))
    begins = [0, *(np.flatnonzero(np.diff(x.sessions)) + 1).tolist()]
    for first, last in zip(begins, [*begins[1:], len(typical)], strict=True):
        volume = x.volume[first:last]
        result[first:last] = np.cumsum(typical[first:last] * volume) / np.cumsum(volume)
    return result
