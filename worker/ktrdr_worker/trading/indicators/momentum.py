"""Momentum: how fast and how far the price has gone."""

from __future__ import annotations

import math

import numpy as np
import talib
from numba import njit

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.indicators.common import (
    MA_TYPES,
    ema,
    highest,
    lowest,
    moving_average,
    nothing,
    shifted,
    spread,
    steps,
    still,
    still_so_far,
    where_not,
)  # fmt: skip
from ktrdr_worker.trading.indicators.define import Family, Prices, average, bars
from ktrdr_zmq.strategy.indicator import lag

family = Family("Momentum")


@family("period", sourced=True, unstable=True, talib=("RSI",), period=bars(14))
def rsi(x: Prices, period: int) -> Array:
    """Relative strength index (Wilder), 0 to 100."""
    return where_not(still_so_far(x.source), talib.RSI(x.source, timeperiod=period))


@family("period", sourced=True, unstable=True, talib=("CMO",), period=bars(14))
def cmo(x: Prices, period: int) -> Array:
    """Chande momentum oscillator with Wilder's smoothing, -100 to 100; `cmo_unsmoothed` is Chande's own."""
    return where_not(still_so_far(x.source), talib.CMO(x.source, timeperiod=period))


@family("period", sourced=True, talib=("CMOU",), period=bars(14))
def cmo_unsmoothed(x: Prices, period: int) -> Array:
    """Chande momentum oscillator: rises less falls over both, as plain sums, -100 to 100."""
    return where_not(nothing(steps(x.source), period), talib.CMOU(x.source, timeperiod=period))


@family(
    "lag(average, slow) + lag(average, signal)", outputs=("macd", "signal", "histogram"), bare=True, sourced=True,
    talib=("MACD", "MACDEXT"), ordered=(("fast", "slow"),),
    fast=bars(12), slow=bars(26), signal=bars(9, 1), average=average("ema"),
)  # fmt: skip
def macd(x: Prices, fast: int, slow: int, signal: int, average: str) -> tuple[Array, ...]:
    """Moving average convergence/divergence: fast less slow average, the average of that, and their difference."""
    kind = MA_TYPES[average]
    line, following, histogram = talib.MACDEXT(
        x.source, fastperiod=fast, fastmatype=kind, slowperiod=slow, slowmatype=kind, signalperiod=signal, signalmatype=kind
    )
    return line, following, histogram


@family(
    "lag(average, slow)", sourced=True, talib=("APO",), ordered=(("fast", "slow"),), fast=bars(12), slow=bars(26), average=average("ema")
)
def apo(x: Prices, fast: int, slow: int, average: str) -> Array:
    """Absolute price oscillator: a fast average less a slow one."""
    return moving_average(x.source, average, fast) - moving_average(x.source, average, slow)


@family(
    "lag(average, slow)", sourced=True, talib=("PPO",), ordered=(("fast", "slow"),), fast=bars(12), slow=bars(26), average=average("ema")
)
def ppo(x: Prices, fast: int, slow: int, average: str) -> Array:
    """Percentage price oscillator: a fast average over a slow one, less one, in percent."""
    return 100.0 * (moving_average(x.source, average, fast) / moving_average(x.source, average, slow) - 1.0)


@family("period", sourced=True, talib=("MOM",), period=bars(10, 1))
def momentum(x: Prices, period: int) -> Array:
    """The change over some bars, in the unit of the source."""
    return x.source - shifted(x.source, period)


@family("period", sourced=True, talib=("ROC",), also=("rate_of_change",), period=bars(10, 1))
def roc(x: Prices, period: int) -> Array:
    """Rate of change over some bars, in percent."""
    return 100.0 * (x.source / shifted(x.source, period) - 1.0)


@family("period", sourced=True, talib=("ROCP",), also=("return", "simple_return", "pct_change"), period=bars(1, 1))
def returns(x: Prices, period: int) -> Array:
    """The simple return over some bars, as a fraction."""
    return x.source / shifted(x.source, period) - 1.0


@family("period", sourced=True, also=("log_returns",), period=bars(1, 1))
def log_return(x: Prices, period: int) -> Array:
    """The logarithmic return over some bars."""
    return np.log(x.source / shifted(x.source, period))


@family("3 * (period - 1) + 1", sourced=True, unstable=True, talib=("TRIX",), period=bars(15))
def trix(x: Prices, period: int) -> Array:
    """The one-bar rate of change of a triple exponential average, in percent."""
    smooth = ema(ema(ema(x.source, period), period), period)
    return 100.0 * (smooth / shifted(smooth, 1) - 1.0)


@family("first + second - 1", sourced=True, unstable=True, talib=("TSI",), first=bars(25), second=bars(13))
def tsi(x: Prices, first: int, second: int) -> Array:
    """True strength index (Blau): a doubly smoothed change over the doubly smoothed size of changes, -100 to 100."""
    return where_not(still_so_far(x.source), talib.TSI(x.source, firstperiod=first, secondperiod=second))


@family(
    "max(long_roc, short_roc) + period - 1", sourced=True, talib=("COPPOCK",), ordered=(("short_roc", "long_roc"),),
    period=bars(10, meaning="Bars of the weighted average."), short_roc=bars(11, 1), long_roc=bars(14, 1),
)  # fmt: skip
def coppock(x: Prices, period: int, short_roc: int, long_roc: int) -> Array:
    """Coppock curve: the weighted average of the sum of two rates of change, in percent."""
    total = 100.0 * (x.source / shifted(x.source, short_roc) + x.source / shifted(x.source, long_roc) - 2.0)
    return talib.WMA(total, timeperiod=period)


_ROC, _SMA = "Bars of a rate of change.", "Bars that it is averaged over."


@family(
    "max(roc_1 + sma_1, roc_2 + sma_2, roc_3 + sma_3, roc_4 + sma_4) + signal - 2", outputs=("kst", "signal"), bare=True, sourced=True,
    also=("know_sure_thing",),
    roc_1=bars(10, 1, _ROC), roc_2=bars(15, 1, _ROC), roc_3=bars(20, 1, _ROC), roc_4=bars(30, 1, _ROC),
    sma_1=bars(10, 1, _SMA), sma_2=bars(10, 1, _SMA), sma_3=bars(10, 1, _SMA), sma_4=bars(15, 1, _SMA), signal=bars(9, 1),
)  # fmt: skip
def kst(x: Prices, signal: int, **p: int) -> tuple[Array, ...]:
    """Know sure thing (Pring): four averaged rates of change in percent, weighted 1 to 4, and the simple average of their sum."""
    rates = (moving_average(100.0 * (x.source / shifted(x.source, p[f"roc_{n}"]) - 1.0), "sma", p[f"sma_{n}"]) for n in (1, 2, 3, 4))
    line = np.zeros(len(x.source))
    for weight, rate in enumerate(rates, 1):
        line = line + weight * rate
    return line, moving_average(line, "sma", signal)


@family(
    "period + lag(average, k_smooth) + lag(average, d_smooth) - 1", outputs=("k", "d"), talib=("STOCH", "STOCHF"),
    period=bars(14, 1), k_smooth=bars(3, 1, "Bars that k is averaged over."), d_smooth=bars(3, 1, "Bars that d is averaged over."),
    average=average("sma"),
)  # fmt: skip
def stochastic(x: Prices, period: int, k_smooth: int, d_smooth: int, average: str) -> tuple[Array, ...]:
    """Stochastic oscillator, 0 to 100: k is the close's place in the range, averaged, d the average of k."""
    k, d = talib.STOCH(
        x.high, x.low, x.close, fastk_period=period, slowk_period=k_smooth, slowk_matype=MA_TYPES[average],
        slowd_period=d_smooth, slowd_matype=MA_TYPES[average],
    )  # fmt: skip
    flat = spread(still(x.high, x.low, period), lag(average, k_smooth) + lag(average, d_smooth))
    return where_not(flat, k), where_not(flat, d)


@family(
    "period + range + lag(average, d_smooth) - 1", outputs=("k", "d"), sourced=True, unstable=True, talib=("STOCHRSI",),
    also=("stoch_rsi",),
    period=bars(14, meaning="Bars of the RSI."), range=bars(14, 2, "Bars of the range that the RSI is placed in."),
    d_smooth=bars(3, 1, "Bars that d is averaged over."), average=average("sma"),
)  # fmt: skip
def stochastic_rsi(x: Prices, period: int, range: int, d_smooth: int, average: str) -> tuple[Array, ...]:  # noqa: A002  # its name in files
    """The place of the RSI in its own range, 0 to 100, and the average of that."""
    k, d = talib.STOCHRSI(x.source, timeperiod=period, fastk_period=range, fastd_period=d_smooth, fastd_matype=MA_TYPES[average])
    strength = talib.RSI(x.source, timeperiod=period)
    flat = spread(still(strength, strength, range) | still_so_far(x.source), lag(average, d_smooth))
    return where_not(flat, k), where_not(flat, d)


@family(
    "period + k_smooth + d_smooth - 3", outputs=("k", "d", "j"), unstable=True, talib=("KDJ",),
    period=bars(9), k_smooth=bars(3, 1, "Bars of Wilder's average that is k."), d_smooth=bars(3, 1, "Bars of Wilder's average of k."),
)  # fmt: skip
def kdj(x: Prices, period: int, k_smooth: int, d_smooth: int) -> tuple[Array, ...]:
    """Stochastic oscillator with Wilder's smoothing, and j, which is 3 k less 2 d."""
    rma = MA_TYPES["rma"]
    lines = talib.KDJ(
        x.high, x.low, x.close, fastk_period=period, slowk_period=k_smooth, slowk_matype=rma, slowd_period=d_smooth, slowd_matype=rma
    )
    flat = spread(still(x.high, x.low, period), k_smooth + d_smooth - 2)
    return tuple(where_not(flat, line) for line in lines)


@family(
    "period + first + second + signal - 4", outputs=("smi", "signal"), bare=True, unstable=True, talib=("SMI",),
    period=bars(13), first=bars(25, meaning="Bars of the first smoothing."), second=bars(2, meaning="Bars of the second smoothing."),
    signal=bars(9),
)  # fmt: skip
def smi(x: Prices, period: int, first: int, second: int, signal: int) -> tuple[Array, ...]:
    """Stochastic momentum index (Blau): the doubly smoothed distance from the middle of the range, -100 to 100, and its EMA."""
    upper, lower = highest(x.high, period), lowest(x.low, period)
    distance = ema(ema(x.close - (upper + lower) / 2.0, first), second)
    line = 100.0 * distance / (0.5 * ema(ema(upper - lower, first), second))
    return line, ema(line, signal)


@family("period - 1", talib=("WILLR",), also=("williams_percent_r",), period=bars(14))
def williams_r(x: Prices, period: int) -> Array:
    """Williams %R: the close's distance from the highest high, -100 to 0."""
    return where_not(still(x.high, x.low, period), talib.WILLR(x.high, x.low, x.close, timeperiod=period))


@family("period - 1", talib=("CCI",), period=bars(20))
def cci(x: Prices, period: int) -> Array:
    """Commodity channel index (Lambert): distance of the typical price from its average, over 0.015 mean deviations."""
    typical = (x.high + x.low + x.close) / 3.0
    return where_not(still(typical, typical, period), talib.CCI(x.high, x.low, x.close, timeperiod=period))


@family(
    "max(short, middle, long)", talib=("ULTOSC",), also=("uo",), ordered=(("short", "middle"), ("middle", "long")),
    short=bars(7, 1), middle=bars(14, 1), long=bars(28, 1),
)  # fmt: skip
def ultimate_oscillator(x: Prices, short: int, middle: int, long: int) -> Array:
    """Ultimate oscillator (Williams): buying pressure over the true range for three spans, 0 to 100."""
    floor = np.fmin(x.low, shifted(x.close, 1))
    empty = nothing(np.fmax(x.high, shifted(x.close, 1)) - floor, short)
    return where_not(empty, talib.ULTOSC(x.high, x.low, x.close, timeperiod1=short, timeperiod2=middle, timeperiod3=long))


@family("slow - 1", talib=("AO",), also=("awesome_oscillator",), ordered=(("fast", "slow"),), fast=bars(5), slow=bars(34))
def ao(x: Prices, fast: int, slow: int) -> Array:
    """Awesome oscillator (Williams): a fast less a slow simple average of the middle of the bars."""
    return talib.AO(x.high, x.low, fastperiod=fast, slowperiod=slow)


@family(
    "slow + signal - 2", talib=("AC",), also=("accelerator_oscillator",), ordered=(("fast", "slow"),),
    fast=bars(5), slow=bars(34), signal=bars(5),
)  # fmt: skip
def ac(x: Prices, fast: int, slow: int, signal: int) -> Array:
    """Accelerator oscillator (Williams): the awesome oscillator less its simple average."""
    return talib.AC(x.high, x.low, fastperiod=fast, slowperiod=slow, signalperiod=signal)


@family("0", talib=("BOP",), also=("balance_of_power",))
def bop(x: Prices) -> Array:
    """Balance of power: close less open, over the range of the bar, -1 to 1; 0 for a bar without range."""
    return talib.BOP(x.open, x.high, x.low, x.close)


@family("period - 1", talib=("QSTICK",), period=bars(10))
def qstick(x: Prices, period: int) -> Array:
    """The simple average of close less open (Chande)."""
    return talib.QSTICK(x.open, x.close, timeperiod=period)


@family("period - 1", talib=("IMI",), also=("intraday_momentum_index",), period=bars(14))
def imi(x: Prices, period: int) -> Array:
    """Intraday momentum index: bodies of rising bars over those of all, 0 to 100."""
    return where_not(nothing(x.close - x.open, period), talib.IMI(x.open, x.close, timeperiod=period))


@family(
    "period - 1",
    outputs=("bull", "bear"),
    unstable=True,
    talib=("ERI",),
    also=("elder_ray_index", "bull_power", "bear_power"),
    period=bars(13),
)
def elder_ray(x: Prices, period: int) -> tuple[Array, ...]:
    """Elder ray: high less the EMA of the close, and low less it."""
    bull, bear = talib.ERI(x.high, x.low, x.close, timeperiod=period)
    return bull, bear


@family("period", sourced=True, talib=("FOSC",), period=bars(5))
def forecast_oscillator(x: Prices, period: int) -> Array:
    """Distance from what the regression line of the bars before foresaw for this one, in percent."""
    return 100.0 * (1.0 - shifted(talib.TSF(x.source, timeperiod=period), 1) / x.source)


@family("max(period - 1, period // 2 + 1)", sourced=True, talib=("DPO",), period=bars(20))
def dpo(x: Prices, period: int) -> Array:
    """Detrended price oscillator: the source half a period and one bar ago less the simple average now; nothing is centred."""
    return shifted(x.source, period // 2 + 1) - talib.SMA(x.source, timeperiod=period)


@njit(cache=True, nogil=True)
def _fisher(place: Array) -> Array:
    """Smooth a place in a range (0 to 1; NaN at first) and take Fisher's transform of it, smoothed again."""
    result = np.full(len(place), np.nan)
    value, transformed = 0.0, 0.0
    for t in range(len(place)):
        if not np.isnan(place[t]):
            value = min(max(0.66 * (float(place[t]) - 0.5) + 0.67 * value, -0.999), 0.999)
            transformed = 0.5 * math.log((1.0 + value) / (1.0 - value)) + 0.5 * transformed
            result[t] = transformed
    return result


@family("period", outputs=("fisher", "signal"), bare=True, unstable=True, also=("fisher_transform",), period=bars(10))
def fisher(x: Prices, period: int) -> tuple[Array, ...]:
    """Fisher transform (Ehlers) of the place of the bar's middle in its range, and the same one bar before."""
    middle = (x.high + x.low) / 2.0
    lower, upper = lowest(middle, period), highest(middle, period)
    place = (middle - lower) / (upper - lower)
    line = where_not(upper == lower, _fisher(place))
    return line, shifted(line, 1)


@njit(cache=True, nogil=True)
def _placed(values: Array, period: int, factor: float, first: Array) -> Array:
    """The place (0 to 100) in the range of `period` values, smoothed exponentially; it stays where there is no range.

    Before there was any range it is `first`.
    """
    result = np.full(len(values), np.nan)
    place = smooth = np.nan
    for t in range(period - 1, len(values)):
        window = values[t - period + 1 : t + 1]
        if np.isnan(window[0]):
            continue
        low, high = window.min(), window.max()
        if high > low:
            place = 100.0 * (values[t] - low) / (high - low)
        elif np.isnan(place):
            place = float(first[t])
        smooth = place if np.isnan(smooth) else smooth + factor * (place - smooth)
        result[t] = smooth
    return result


@family(
    "slow + 2 * cycle - 3", sourced=True, unstable=True, also=("schaff_trend_cycle",), ordered=(("fast", "slow"),),
    fast=bars(23), slow=bars(50), cycle=bars(10, meaning="Bars of the ranges."),
)  # fmt: skip
def stc(x: Prices, fast: int, slow: int, cycle: int) -> Array:
    """Schaff trend cycle: the place of the MACD in its range, smoothed by half, and the place of that in its own, 0 to 100."""
    line = ema(x.source, fast) - ema(x.source, slow)
    once = _placed(line, cycle, 0.5, np.full(len(line), np.nan))
    return _placed(once, cycle, 0.5, once)


@njit(cache=True, nogil=True)
def _streaks(values: Array) -> Array:
    """How many bars in a row a series has risen (above 0) or fallen (below 0)."""
    result = np.zeros(len(values))
    for t in range(1, len(values)):
        if values[t] > values[t - 1]:
            result[t] = result[t - 1] + 1.0 if result[t - 1] > 0.0 else 1.0
        elif values[t] < values[t - 1]:
            result[t] = result[t - 1] - 1.0 if result[t - 1] < 0.0 else -1.0
    return result


@family(
    "max(period, streak_period, rank_period + 1)", sourced=True, unstable=True, also=("crsi",),
    period=bars(3), streak_period=bars(2, meaning="Bars of the RSI of streaks."),
    rank_period=bars(100, meaning="Bars that the last return is ranked among."),
)  # fmt: skip
def connors_rsi(x: Prices, period: int, streak_period: int, rank_period: int) -> Array:
    """Connors RSI: the mean of an RSI, the RSI of the length of streaks, and the percentile rank of the last return."""
    rank = talib.PERCENTRANK(x.source / shifted(x.source, 1), timeperiod=rank_period)
    streaks = talib.RSI(_streaks(x.source), timeperiod=streak_period)
    return where_not(still_so_far(x.source), (talib.RSI(x.source, timeperiod=period) + streaks + rank) / 3.0)
