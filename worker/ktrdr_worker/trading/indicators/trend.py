"""Trend: whether there is one, where it goes, and how strong it is."""

from __future__ import annotations

import numpy as np
import talib

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.indicators.common import highest, lowest, nothing, steps, true_range, where_not
from ktrdr_worker.trading.indicators.define import Family, Prices, bars

family = Family("Trend")


def _directional(x: Prices, period: int) -> tuple[Array, Array, Array]:
    """Both directional indicators, and where DX would divide by 0."""
    plus = talib.PLUS_DI(x.high, x.low, x.close, timeperiod=period)
    minus = talib.MINUS_DI(x.high, x.low, x.close, timeperiod=period)
    return plus, minus, plus + minus == 0.0


@family(
    "2 * period - 1",
    outputs=("adx", "plus_di", "minus_di"),
    bare=True,
    unstable=True,
    talib=("ADX", "PLUS_DI", "MINUS_DI"),
    period=bars(14),
)
def adx(x: Prices, period: int) -> tuple[Array, ...]:
    """Average directional movement index (Wilder) and its two directional indicators, 0 to 100."""
    plus, minus, undefined = _directional(x, period)
    return where_not(undefined, talib.ADX(x.high, x.low, x.close, timeperiod=period)), plus, minus


@family("3 * period - 2", unstable=True, talib=("ADXR",), period=bars(14))
def adxr(x: Prices, period: int) -> Array:
    """Average directional movement rating (Wilder): the mean of ADX now and ADX period - 1 bars before."""
    undefined = _directional(x, period)[2]
    return where_not(undefined, talib.ADXR(x.high, x.low, x.close, timeperiod=period))


@family("period", unstable=True, talib=("DX",), period=bars(14))
def dx(x: Prices, period: int) -> Array:
    """Directional movement index (Wilder), which ADX averages, 0 to 100."""
    undefined = _directional(x, period)[2]
    return where_not(undefined, talib.DX(x.high, x.low, x.close, timeperiod=period))


@family("period - 1", outputs=("plus", "minus"), unstable=True, talib=("PLUS_DM", "MINUS_DM"), period=bars(14))
def directional_movement(x: Prices, period: int) -> tuple[Array, ...]:
    """Smoothed directional movement up and down (Wilder), in the unit of the price."""
    return talib.PLUS_DM(x.high, x.low, timeperiod=period), talib.MINUS_DM(x.high, x.low, timeperiod=period)


@family("period", outputs=("up", "down", "oscillator"), talib=("AROON", "AROONOSC"), period=bars(14))
def aroon(x: Prices, period: int) -> tuple[Array, ...]:
    """Aroon: how recently the highest high and the lowest low were, 100 (now) to 0, and up less down."""
    down, up = talib.AROON(x.high, x.low, timeperiod=period)
    return up, down, up - down


@family("period", outputs=("plus", "minus"), talib=("VORTEX",), period=bars(14))
def vortex(x: Prices, period: int) -> tuple[Array, ...]:
    """Vortex indicator: movement up and down over the true range."""
    plus, minus = talib.VORTEX(x.high, x.low, x.close, timeperiod=period)
    empty = nothing(true_range(x), period)
    return where_not(empty, plus), where_not(empty, minus)


@family("period", sourced=True, talib=("VHF",), also=("vertical_horizontal_filter",), period=bars(28))
def vhf(x: Prices, period: int) -> Array:
    """Vertical horizontal filter: the range over the length of the way, high in a trend."""
    return where_not(nothing(steps(x.source), period), talib.VHF(x.source, timeperiod=period))


@family("period", sourced=True, talib=("ER",), also=("kaufman_efficiency_ratio",), period=bars(10))
def efficiency_ratio(x: Prices, period: int) -> Array:
    """Efficiency ratio (Kaufman): the change over the length of the way, 0 to 1."""
    return where_not(nothing(steps(x.source), period), talib.ER(x.source, timeperiod=period))


@family("period", also=("choppiness_index", "chop"), period=bars(14))
def choppiness(x: Prices, period: int) -> Array:
    """Choppiness index (Dreiss): 100 where the true ranges cover the same ground again and again, low in a trend."""
    way = talib.SUM(true_range(x), timeperiod=period)
    ground = highest(x.high, period) - lowest(x.low, period)
    return 100.0 * np.log10(way / ground) / np.log10(period)


@family("left + right", outputs=("swing_high", "swing_low"), talib=("FRACTAL",), also=("williams_fractal", "swing"),
    left=bars(2, 1, "Bars before the extreme that it must exceed."), right=bars(2, 1, "Bars after it, which must have passed."),
)  # fmt: skip
def fractal(x: Prices, left: int, right: int) -> tuple[Array, ...]:
    """Williams' fractals: 1 on the bar that confirms a swing, `right` bars after its extreme, and 0 elsewhere."""
    swing_high, swing_low = talib.FRACTAL(x.high, x.low, leftbars=left, rightbars=right)
    return (swing_high != 0) * 1.0, (swing_low != 0) * 1.0


@family("0", outputs=("open", "high", "low", "close"), unstable=True, talib=("HA",))
def heikin_ashi(x: Prices) -> tuple[Array, ...]:
    """Heikin-Ashi bars: smoothed prices of a candle."""
    opens, high, low, close = talib.HA(x.open, x.high, x.low, x.close)
    return opens, high, low, close
