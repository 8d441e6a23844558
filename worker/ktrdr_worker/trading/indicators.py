"""Indicators, computed by TA-Lib behind a strict adapter.

TA-Lib by itself ignores parameters it does not know, swaps a fast period that is the slower one, and lets one NaN poison everything after
it. Here names, ranges and warm-up are those of `ktrdr_zmq.strategy.catalogue`, and whatever does not fit is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import talib

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars, DataError
from ktrdr_zmq.strategy.catalogue import CATALOGUE
from ktrdr_zmq.strategy.schema import IndicatorUse

Parameters = Mapping[str, float]


def source_of(bars: Bars, source: str) -> Array:
    """The series that ``source`` names; see ``catalogue.SOURCES``."""
    match source:
        case "open" | "high" | "low" | "close" | "volume":
            return np.asarray(getattr(bars, source))
        case "hl2":
            return (bars.high + bars.low) / 2.0
        case "hlc3":
            return (bars.high + bars.low + bars.close) / 3.0
        case "ohlc4":
            return (bars.open + bars.high + bars.low + bars.close) / 4.0
    raise ValueError(f"there is no source {source!r}")


def compute(use: IndicatorUse, bars: Bars) -> dict[str, Array]:
    """All outputs of an indicator.

    Parameters
    ----------
    use : IndicatorUse
    bars : Bars

    Returns
    -------
    dict of str to array of float64, one a bar
        By output; NaN before the warm-up is over, and only there.

    Raises
    ------
    DataError
        When there are no more bars than the warm-up takes, or an output has no value later on (a band without width, say).
    """
    known = CATALOGUE[use.type]
    count, warmup = len(bars.opens), use.warmup
    if count <= warmup:
        raise DataError(f"The indicator {use.id} needs more than {warmup} bars of {bars.timeframe}; there are {count}.")
    series = np.ascontiguousarray(source_of(bars, use.source) if known.sourced else bars.close, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        outputs = dict(zip(known.outputs, FUNCTIONS[use.type](bars, series, use.parameters), strict=True))
    for name, values in outputs.items():
        values[:warmup] = np.nan
        missing = np.flatnonzero(~np.isfinite(values[warmup:]))
        if len(missing):
            raise DataError(
                f"The indicator {use.id}.{name} has no value at bar {int(missing[0]) + warmup} of {bars.symbol} {bars.timeframe}: "
                "the prices before it do not move."
            )
    return outputs


def _sma(_: Bars, series: Array, p: Parameters) -> tuple[Array, ...]:
    return (talib.SMA(series, timeperiod=int(p["period"])),)


def _ema(_: Bars, series: Array, p: Parameters) -> tuple[Array, ...]:
    return (talib.EMA(series, timeperiod=int(p["period"])),)


def _rsi(_: Bars, series: Array, p: Parameters) -> tuple[Array, ...]:
    flat = np.maximum.accumulate(series) == np.minimum.accumulate(series)  # neither rises nor falls: TA-Lib would say 0
    return (np.where(flat, np.nan, talib.RSI(series, timeperiod=int(p["period"]))),)


def _macd(_: Bars, series: Array, p: Parameters) -> tuple[Array, ...]:
    macd, signal, histogram = talib.MACD(series, fastperiod=int(p["fast"]), slowperiod=int(p["slow"]), signalperiod=int(p["signal"]))
    return macd, signal, histogram


def _bbands(_: Bars, series: Array, p: Parameters) -> tuple[Array, ...]:
    deviations = float(p["deviations"])
    upper, middle, lower = talib.BBANDS(
        series, timeperiod=int(p["period"]), nbdevup=deviations, nbdevdn=deviations, matype=talib.MA_Type.SMA
    )
    return upper, middle, lower, (series - lower) / (upper - lower), (upper - lower) / middle


def _atr(bars: Bars, _: Array, p: Parameters) -> tuple[Array, ...]:
    atr = talib.ATR(bars.high, bars.low, bars.close, timeperiod=int(p["period"]))
    return atr, atr / bars.close


def _adx(bars: Bars, _: Array, p: Parameters) -> tuple[Array, ...]:
    prices, period = (bars.high, bars.low, bars.close), int(p["period"])
    return (
        talib.ADX(*prices, timeperiod=period),
        talib.PLUS_DI(*prices, timeperiod=period),
        talib.MINUS_DI(*prices, timeperiod=period),
    )


def _stochastic(bars: Bars, _: Array, p: Parameters) -> tuple[Array, ...]:
    k, d = talib.STOCH(
        bars.high, bars.low, bars.close,
        fastk_period=int(p["period"]), slowk_period=int(p["k_smooth"]), slowk_matype=talib.MA_Type.SMA,
        slowd_period=int(p["d_smooth"]), slowd_matype=talib.MA_Type.SMA,
    )  # fmt: skip
    period = int(p["period"])
    flat = talib.MAX(bars.high, period) == talib.MIN(bars.low, period) if period > 1 else bars.high == bars.low  # TA-Lib would say 0
    return np.where(flat, np.nan, k), np.where(flat, np.nan, d)


FUNCTIONS: Final[Mapping[str, Callable[[Bars, Array, Parameters], tuple[Array, ...]]]] = {
    "sma": _sma,
    "ema": _ema,
    "rsi": _rsi,
    "macd": _macd,
    "bbands": _bbands,
    "atr": _atr,
    "adx": _adx,
    "stochastic": _stochastic,
}
"""Functions of the prices, a source series and complete parameters; outputs in the order of the catalogue."""
