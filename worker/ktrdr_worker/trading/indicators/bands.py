"""Bands, channels and stops: levels around the price."""

from __future__ import annotations

import numpy as np
import talib

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.indicators.common import MA_TYPES, ema, highest, lowest, shifted, still, where_not
from ktrdr_worker.trading.indicators.define import Family, Prices, average, bars, number

family = Family("Bands, channels and stops")
BAND = ("upper", "middle", "lower", "percent_b", "width")


def _band(price: Array, upper: Array, middle: Array, lower: Array) -> tuple[Array, ...]:
    """The levels, the place of the price between lower (0) and upper (1), and their distance over the middle."""
    return upper, middle, lower, (price - lower) / (upper - lower), (upper - lower) / middle


@family(
    "max(lag(average, period), period - 1)", outputs=BAND, sourced=True, talib=("BBANDS",), also=("bollinger",),
    period=bars(20), deviations=number(2.0, 0.1, 10.0, "Standard deviations (ddof 0) from the middle."), average=average("sma"),
)  # fmt: skip
def bbands(x: Prices, period: int, deviations: float, average: str) -> tuple[Array, ...]:
    """Bollinger bands; percent_b is the place between lower (0) and upper (1), width their distance over the middle."""
    upper, middle, lower = talib.BBANDS(x.source, timeperiod=period, nbdevup=deviations, nbdevdn=deviations, matype=MA_TYPES[average])
    flat = still(x.source, x.source, period)
    *levels, place, width = _band(x.source, upper, middle, lower)
    return *levels, where_not(flat, place), width


@family(
    "max(period - 1, atr_period)", outputs=BAND, sourced=True, unstable=True, talib=("KC",),
    period=bars(20, meaning="Bars of the EMA in the middle."), atr_period=bars(10, meaning="Bars of the average true range."),
    multiplier=number(2.0, 0.1, 20.0, "Average true ranges from the middle."),
)  # fmt: skip
def keltner(x: Prices, period: int, atr_period: int, multiplier: float) -> tuple[Array, ...]:
    """Keltner channel: average true ranges around an EMA; percent_b and width as of bbands."""
    middle = ema(x.source, period)
    reach = multiplier * talib.ATR(x.high, x.low, x.close, timeperiod=atr_period)
    return _band(x.source, middle + reach, middle, middle - reach)


@family("period - 1", outputs=BAND, talib=("DONCHIAN", "MIDPRICE"), period=bars(20))
def donchian(x: Prices, period: int) -> tuple[Array, ...]:
    """Donchian channel: highest high and lowest low, this bar included; percent_b (of the close) and width as of bbands."""
    upper, lower = highest(x.high, period), lowest(x.low, period)
    return _band(x.close, upper, (upper + lower) / 2.0, lower)


@family("period - 1", outputs=("upper", "middle", "lower"), talib=("ACCBANDS",), period=bars(20))
def acceleration_bands(x: Prices, period: int) -> tuple[Array, ...]:
    """Acceleration bands (Headley), which widen with the range of the bars."""
    upper, middle, lower = talib.ACCBANDS(x.high, x.low, x.close, timeperiod=period)
    return upper, middle, lower


@family(
    "max(tenkan, kijun, senkou) - 1 + displacement", outputs=("tenkan", "kijun", "senkou_a", "senkou_b"),
    tenkan=bars(9, meaning="Bars of the conversion line."), kijun=bars(26, meaning="Bars of the base line."),
    senkou=bars(52, meaning="Bars of leading span B."), displacement=bars(26, 1, "Bars that the leading spans are drawn ahead."),
)  # fmt: skip
def ichimoku(x: Prices, tenkan: int, kijun: int, senkou: int, displacement: int) -> tuple[Array, ...]:
    """Ichimoku: conversion and base line, and the two leading spans as they stand at the bar, computed `displacement` bars before."""

    def middle(period: int) -> Array:
        return (highest(x.high, period) + lowest(x.low, period)) / 2.0

    fast, slow = middle(tenkan), middle(kijun)
    return fast, slow, shifted((fast + slow) / 2.0, displacement), shifted(middle(senkou), displacement)


@family(
    "period", outputs=("value", "direction"), unstable=True, talib=("SUPERTREND",),
    period=bars(10), multiplier=number(3.0, 0.1, 20.0, "Average true ranges from the middle of a bar."),
)  # fmt: skip
def supertrend(x: Prices, period: int, multiplier: float) -> tuple[Array, ...]:
    """Supertrend: a stop of average true ranges that follows the trend; direction is 1 above it and -1 below."""
    value, direction = talib.SUPERTREND(x.high, x.low, x.close, timeperiod=period, multiplier=multiplier)
    return value, direction


_STEP = number(0.02, 0.001, 1.0, "Acceleration added at each new extreme.")


@family(
    "1", unstable=True, talib=("SAR",), also=("parabolic", "psar"), ordered=(("acceleration", "maximum"),),
    acceleration=_STEP, maximum=number(0.2, 0.001, 1.0, "Greatest acceleration."),
)  # fmt: skip
def sar(x: Prices, acceleration: float, maximum: float) -> Array:
    """Parabolic stop and reverse (Wilder)."""
    return talib.SAR(x.high, x.low, acceleration=acceleration, maximum=maximum)


@family(
    "1", outputs=("value", "direction"), unstable=True, talib=("SAREXT",),
    ordered=(
        ("initial_long", "maximum_long"), ("acceleration_long", "maximum_long"),
        ("initial_short", "maximum_short"), ("acceleration_short", "maximum_short"),
    ),
    start=number(0.0, -1e9, 1e9, "The first stop: above 0 for long, below 0 for short; 0: found from the first two bars."),
    offset_on_reverse=number(0.0, 0.0, 1.0, "Share of the price by which a new stop lies farther away."),
    initial_long=number(0.02, 0.001, 1.0, "First acceleration of a long position."), acceleration_long=_STEP,
    maximum_long=number(0.2, 0.001, 1.0, "Greatest acceleration of a long position."),
    initial_short=number(0.02, 0.001, 1.0, "First acceleration of a short position."), acceleration_short=_STEP,
    maximum_short=number(0.2, 0.001, 1.0, "Greatest acceleration of a short position."),
)  # fmt: skip
def sar_extended(x: Prices, **p: float) -> tuple[Array, ...]:
    """Parabolic stop and reverse with own accelerations for long and short; direction is 1 while long and -1 while short."""
    signed = talib.SAREXT(
        x.high, x.low, startvalue=p["start"], offsetonreverse=p["offset_on_reverse"],
        accelerationinitlong=p["initial_long"], accelerationlong=p["acceleration_long"], accelerationmaxlong=p["maximum_long"],
        accelerationinitshort=p["initial_short"], accelerationshort=p["acceleration_short"], accelerationmaxshort=p["maximum_short"],
    )  # fmt: skip
    return np.abs(signed), np.sign(signed)


@family(
    "period", outputs=("long", "short"), unstable=True, also=("chandelier",),
    period=bars(22), multiplier=number(3.0, 0.1, 20.0, "Average true ranges from the extreme."),
)  # fmt: skip
def chandelier_exit(x: Prices, period: int, multiplier: float) -> tuple[Array, ...]:
    """Chandelier exit (Le Beau): stops at average true ranges below the highest high and above the lowest low."""
    reach = multiplier * talib.ATR(x.high, x.low, x.close, timeperiod=period)
    return highest(x.high, period) - reach, lowest(x.low, period) + reach
