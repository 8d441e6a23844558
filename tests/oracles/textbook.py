"""A second implementation of indicators, written from their definitions with pandas and plain loops; slow, and shares no code with ours.

Each takes bars as `Table`, and the parameters; it gives its outputs by name. Where a value is not known yet, it is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

Series = pd.Series
Outputs = dict[str, Any]


class Table(NamedTuple):
    """Bars as pandas has them; `s` is the source, `day` the session."""

    o: Series
    h: Series
    l: Series  # noqa: E741
    c: Series
    v: Series
    s: Series
    day: Series


TEXTBOOK: dict[str, Callable[..., Outputs]] = {}


def of(name: str) -> Callable[[Callable[..., Outputs]], Callable[..., Outputs]]:
    def put(function: Callable[..., Outputs]) -> Callable[..., Outputs]:
        TEXTBOOK[name] = function
        return function

    return put


# ---------------------------------------------------------------- averages


def sma(x: Series, n: int) -> Series:
    return x.rolling(n).mean()


def smooth(x: Series, n: int, weight: float) -> Series:
    """Begun with the simple average of the first n values."""
    values, out = x.to_numpy(float), np.full(len(x), np.nan)
    first = int(np.flatnonzero(~np.isnan(values))[0])
    if first + n <= len(values):
        out[first + n - 1] = now = values[first : first + n].mean()
        for t in range(first + n, len(values)):
            out[t] = now = now + weight * (values[t] - now)
    return Series(out)


def ema(x: Series, n: int) -> Series:
    return smooth(x, n, 2 / (n + 1))


def rma(x: Series, n: int) -> Series:
    return smooth(x, n, 1 / n)


def wma(x: Series, n: int) -> Series:
    weights = np.arange(1, n + 1) / (n * (n + 1) / 2)
    return x.rolling(n).apply(lambda w: w @ weights, raw=True)


def tr(t: Table) -> Series:
    before = t.c.shift()
    return pd.concat([t.h - t.l, (t.h - before).abs(), (t.l - before).abs()], axis=1).max(axis=1).where(before.notna())


def hl2(t: Table) -> Series:
    return (t.h + t.l) / 2


def typical(t: Table) -> Series:
    return (t.h + t.l + t.c) / 3


def percent(now: Series, before: Series) -> Series:
    return 100 * (now - before) / before


def wilder_rsi(x: Series, n: int) -> Series:
    change = x.diff()
    up, down = rma(change.clip(lower=0), n), rma((-change).clip(lower=0), n)
    return 100 * up / (up + down)


@of("price")
def _(t: Table) -> Outputs:
    return {"price": t.s}


@of("rma")
def _(t: Table, period: int) -> Outputs:
    return {"rma": rma(t.s, period)}


@of("hma")
def _(t: Table, period: int) -> Outputs:
    return {"hma": wma(2 * wma(t.s, period // 2) - wma(t.s, period), math.isqrt(period))}


@of("zlema")
def _(t: Table, period: int) -> Outputs:
    return {"zlema": ema(2 * t.s - t.s.shift((period - 1) // 2), period)}


@of("alma")
def _(t: Table, period: int, offset: float, sigma: float) -> Outputs:
    weights = [math.exp(-((i - offset * (period - 1)) ** 2) / (2 * (period / sigma) ** 2)) for i in range(period)]
    return {"alma": sum(w * t.s.shift(period - 1 - i) for i, w in enumerate(weights)) / sum(weights)}


@of("vwma")
def _(t: Table, period: int) -> Outputs:
    return {"vwma": (t.s * t.v).rolling(period).sum() / t.v.rolling(period).sum()}


@of("vwap")
def _(t: Table, period: int) -> Outputs:
    money = typical(t) * t.v
    if period:
        return {"vwap": money.rolling(period).sum() / t.v.rolling(period).sum()}
    return {"vwap": money.groupby(t.day).cumsum() / t.v.groupby(t.day).cumsum()}


# ---------------------------------------------------------------- bands


def band(price: Series, upper: Series, middle: Series, lower: Series) -> Outputs:
    return {
        "upper": upper,
        "middle": middle,
        "lower": lower,
        "percent_b": (price - lower) / (upper - lower),
        "width": (upper - lower) / middle,
    }


@of("bbands")
def _(t: Table, period: int, deviations: float, average: str) -> Outputs:
    if average != "sma":
        return {}
    middle, deviation = sma(t.s, period), t.s.rolling(period).std(ddof=0)
    return band(t.s, middle + deviations * deviation, middle, middle - deviations * deviation)


@of("keltner")
def _(t: Table, period: int, atr_period: int, multiplier: float) -> Outputs:
    middle, reach = ema(t.s, period), multiplier * rma(tr(t), atr_period)
    return band(t.s, middle + reach, middle, middle - reach)


@of("donchian")
def _(t: Table, period: int) -> Outputs:
    upper, lower = t.h.rolling(period).max(), t.l.rolling(period).min()
    return band(t.c, upper, (upper + lower) / 2, lower)


@of("acceleration_bands")
def _(t: Table, period: int) -> Outputs:
    factor = 4 * (t.h - t.l) / (t.h + t.l)
    return {"upper": sma(t.h * (1 + factor), period), "middle": sma(t.c, period), "lower": sma(t.l * (1 - factor), period)}


@of("ichimoku")
def _(t: Table, tenkan: int, kijun: int, senkou: int, displacement: int) -> Outputs:
    def middle(n: int) -> Series:
        return (t.h.rolling(n).max() + t.l.rolling(n).min()) / 2

    ahead = (middle(tenkan) + middle(kijun)) / 2
    return {
        "tenkan": middle(tenkan),
        "kijun": middle(kijun),
        "senkou_a": ahead.shift(displacement),
        "senkou_b": middle(senkou).shift(displacement),
    }


@of("supertrend")
def _(t: Table, period: int, multiplier: float) -> Outputs:
    reach = multiplier * rma(tr(t), period)
    above, below, close = (hl2(t) + reach).to_numpy(), (hl2(t) - reach).to_numpy(), t.c.to_numpy()
    value, direction = np.full(len(close), np.nan), np.full(len(close), np.nan)
    top, bottom, way = above[period], below[period], 1
    value[period], direction[period] = bottom, 1
    for i in range(period + 1, len(close)):
        top = above[i] if above[i] < top or close[i - 1] > top else top
        bottom = below[i] if below[i] > bottom or close[i - 1] < bottom else bottom
        if way == 1 and close[i] < bottom:
            way = -1
        elif way == -1 and close[i] > top:
            way = 1
        value[i], direction[i] = bottom if way == 1 else top, way
    return {"value": value, "direction": direction}


@of("chandelier_exit")
def _(t: Table, period: int, multiplier: float) -> Outputs:
    reach = multiplier * rma(tr(t), period)
    return {"long": t.h.rolling(period).max() - reach, "short": t.l.rolling(period).min() + reach}


# ---------------------------------------------------------------- momentum


@of("rsi")
def _(t: Table, period: int) -> Outputs:
    return {"rsi": wilder_rsi(t.s, period)}


@of("cmo_unsmoothed")
def _(t: Table, period: int) -> Outputs:
    change = t.s.diff()
    return {"cmo_unsmoothed": 100 * change.rolling(period).sum() / change.abs().rolling(period).sum()}


@of("momentum")
def _(t: Table, period: int) -> Outputs:
    return {"momentum": t.s.diff(period)}


@of("roc")
def _(t: Table, period: int) -> Outputs:
    return {"roc": percent(t.s, t.s.shift(period))}


@of("returns")
def _(t: Table, period: int) -> Outputs:
    return {"returns": t.s.pct_change(period)}


@of("log_return")
def _(t: Table, period: int) -> Outputs:
    return {"log_return": np.log(t.s) - np.log(t.s.shift(period))}


@of("trix")
def _(t: Table, period: int) -> Outputs:
    triple = ema(ema(ema(t.s, period), period), period)
    return {"trix": percent(triple, triple.shift())}


@of("tsi")
def _(t: Table, first: int, second: int) -> Outputs:
    change = t.s.diff()
    return {"tsi": 100 * ema(ema(change, first), second) / ema(ema(change.abs(), first), second)}


@of("coppock")
def _(t: Table, period: int, short_roc: int, long_roc: int) -> Outputs:
    return {"coppock": wma(percent(t.s, t.s.shift(short_roc)) + percent(t.s, t.s.shift(long_roc)), period)}


@of("kst")
def _(t: Table, signal: int, **p: int) -> Outputs:
    line = sum(n * sma(percent(t.s, t.s.shift(p[f"roc_{n}"])), p[f"sma_{n}"]) for n in range(1, 5))
    return {"kst": line, "signal": sma(line, signal)}


def place(x: Series, low: Series, high: Series) -> Series:
    return 100 * (x - low) / (high - low)


@of("stochastic")
def _(t: Table, period: int, k_smooth: int, d_smooth: int, average: str) -> Outputs:
    if average != "sma":
        return {}
    k = sma(place(t.c, t.l.rolling(period).min(), t.h.rolling(period).max()), k_smooth)
    return {"k": k, "d": sma(k, d_smooth)}


@of("stochastic_rsi")
def _(t: Table, period: int, range: int, d_smooth: int, average: str) -> Outputs:  # noqa: A002
    if average != "sma":
        return {}
    strength = wilder_rsi(t.s, period)
    k = place(strength, strength.rolling(range).min(), strength.rolling(range).max())
    return {"k": k, "d": sma(k, d_smooth)}


@of("kdj")
def _(t: Table, period: int, k_smooth: int, d_smooth: int) -> Outputs:
    k = rma(place(t.c, t.l.rolling(period).min(), t.h.rolling(period).max()), k_smooth)
    d = rma(k, d_smooth)
    return {"k": k, "d": d, "j": 3 * k - 2 * d}


@of("smi")
def _(t: Table, period: int, first: int, second: int, signal: int) -> Outputs:
    high, low = t.h.rolling(period).max(), t.l.rolling(period).min()
    line = 100 * ema(ema(t.c - (high + low) / 2, first), second) / (ema(ema(high - low, first), second) / 2)
    return {"smi": line, "signal": ema(line, signal)}


@of("williams_r")
def _(t: Table, period: int) -> Outputs:
    high, low = t.h.rolling(period).max(), t.l.rolling(period).min()
    return {"williams_r": -100 * (high - t.c) / (high - low)}


@of("cci")
def _(t: Table, period: int) -> Outputs:
    windows = typical(t).rolling(period)
    return {"cci": (typical(t) - windows.mean()) / (0.015 * windows.apply(lambda w: np.abs(w - w.mean()).mean(), raw=True))}


@of("ultimate_oscillator")
def _(t: Table, short: int, middle: int, long: int) -> Outputs:
    pressure = t.c - pd.concat([t.l, t.c.shift()], axis=1).min(axis=1).where(t.c.shift().notna())
    a, b, c = (pressure.rolling(n).sum() / tr(t).rolling(n).sum() for n in (short, middle, long))
    return {"ultimate_oscillator": 100 * (4 * a + 2 * b + c) / 7}


@of("ao")
def _(t: Table, fast: int, slow: int) -> Outputs:
    return {"ao": sma(hl2(t), fast) - sma(hl2(t), slow)}


@of("ac")
def _(t: Table, fast: int, slow: int, signal: int) -> Outputs:
    ao = sma(hl2(t), fast) - sma(hl2(t), slow)
    return {"ac": ao - sma(ao, signal)}


@of("bop")
def _(t: Table) -> Outputs:
    return {"bop": ((t.c - t.o) / (t.h - t.l)).fillna(0.0)}


@of("qstick")
def _(t: Table, period: int) -> Outputs:
    return {"qstick": sma(t.c - t.o, period)}


@of("imi")
def _(t: Table, period: int) -> Outputs:
    body = t.c - t.o
    return {"imi": 100 * body.clip(lower=0).rolling(period).sum() / body.abs().rolling(period).sum()}


@of("elder_ray")
def _(t: Table, period: int) -> Outputs:
    return {"bull": t.h - ema(t.c, period), "bear": t.l - ema(t.c, period)}


@of("forecast_oscillator")
def _(t: Table, period: int) -> Outputs:
    return {"forecast_oscillator": percent(t.s, t.s) + 100 * (t.s - line(t.s, period, period).shift()) / t.s}


@of("dpo")
def _(t: Table, period: int) -> Outputs:
    return {"dpo": t.s.shift(period // 2 + 1) - sma(t.s, period)}


@of("fisher")
def _(t: Table, period: int) -> Outputs:
    middle = hl2(t)
    places = ((middle - middle.rolling(period).min()) / (middle.rolling(period).max() - middle.rolling(period).min())).to_list()
    out, value, now = [math.nan] * (period - 1), 0.0, 0.0
    for x in places[period - 1 :]:
        value = max(-0.999, min(0.999, 0.33 * 2 * (x - 0.5) + 0.67 * value))
        now = math.atanh(value) + 0.5 * now
        out.append(now)
    return {"fisher": Series(out), "signal": Series(out).shift()}


@of("stc")
def _(t: Table, fast: int, slow: int, cycle: int) -> Outputs:
    def stage(x: Series, before_any: Series | None) -> Series:
        low, high = x.rolling(cycle).min(), x.rolling(cycle).max()
        places = (100 * (x - low) / (high - low)).where(high > low)
        places = places.ffill() if before_any is None else places.ffill().fillna(before_any).where(low.notna())
        out, now = [], math.nan
        for p in places:
            now = p if math.isnan(now) else (now + p) / 2
            out.append(now)
        return Series(out)

    once = stage(ema(t.s, fast) - ema(t.s, slow), None)
    return {"stc": stage(once, once)}


@of("connors_rsi")
def _(t: Table, period: int, streak_period: int, rank_period: int) -> Outputs:
    streaks, change = [0.0], t.s.diff()
    for step in change[1:]:
        streaks.append(0.0 if step == 0 else math.copysign(abs(streaks[-1]) + 1 if streaks[-1] * step > 0 else 1, step))
    rank = t.s.pct_change().rolling(rank_period + 1).apply(lambda w: 100 * (w[:-1] < w[-1]).mean(), raw=True)
    return {"connors_rsi": (wilder_rsi(t.s, period) + wilder_rsi(Series(streaks), streak_period) + rank) / 3}


# ---------------------------------------------------------------- trend


@of("vortex")
def _(t: Table, period: int) -> Outputs:
    way = tr(t).rolling(period).sum()
    return {
        "plus": (t.h - t.l.shift()).abs().rolling(period).sum() / way,
        "minus": (t.l - t.h.shift()).abs().rolling(period).sum() / way,
    }


@of("vhf")
def _(t: Table, period: int) -> Outputs:
    return {"vhf": (t.s.rolling(period).max() - t.s.rolling(period).min()) / t.s.diff().abs().rolling(period).sum()}


@of("efficiency_ratio")
def _(t: Table, period: int) -> Outputs:
    return {"efficiency_ratio": t.s.diff(period).abs() / t.s.diff().abs().rolling(period).sum()}


@of("choppiness")
def _(t: Table, period: int) -> Outputs:
    ground = t.h.rolling(period).max() - t.l.rolling(period).min()
    return {"choppiness": 100 * np.log(tr(t).rolling(period).sum() / ground) / math.log(period)}


@of("aroon")
def _(t: Table, period: int) -> Outputs:
    def age(x: Series, extreme: Callable[[Any], Any]) -> Series:
        return x.rolling(period + 1).apply(lambda w: period - extreme(w[::-1]), raw=True)  # the latest of equals

    up, down = 100 * age(t.h, np.argmax) / period, 100 * age(t.l, np.argmin) / period
    return {"up": up, "down": down, "oscillator": up - down}


@of("fractal")
def _(t: Table, left: int, right: int) -> Outputs:
    def confirmed(x: Series) -> Series:
        return x.rolling(left + right + 1).apply(lambda w: float(all(w[left] > v for i, v in enumerate(w) if i != left)), raw=True)

    return {"swing_high": confirmed(t.h), "swing_low": confirmed(-t.l)}


@of("heikin_ashi")
def _(t: Table) -> Outputs:
    close = (t.o + t.h + t.l + t.c) / 4
    opens = [(t.o[0] + t.c[0]) / 2]
    for before in close[:-1]:
        opens.append((opens[-1] + before) / 2)
    first = Series(opens)
    high, low = (getattr(pd.concat([edge, first, close], axis=1), pick)(axis=1) for edge, pick in ((t.h, "max"), (t.l, "min")))
    return {"open": first, "high": high, "low": low, "close": close}


# ---------------------------------------------------------------- volatility


@of("atr")
def _(t: Table, period: int) -> Outputs:
    return {"atr": rma(tr(t), period), "relative": rma(tr(t), period) / t.c}


@of("true_range")
def _(t: Table) -> Outputs:
    return {"true_range": tr(t)}


@of("average_range")
def _(t: Table, period: int) -> Outputs:
    return {"average_range": sma(t.h - t.l, period)}


@of("chaikin_volatility")
def _(t: Table, period: int, change: int) -> Outputs:
    width = ema(t.h - t.l, period)
    return {"chaikin_volatility": percent(width, width.shift(change))}


@of("mass_index")
def _(t: Table, smooth: int, period: int) -> Outputs:
    once = ema(t.h - t.l, smooth)
    return {"mass_index": (once / ema(once, smooth)).rolling(period).sum()}


@of("relative_volatility")
def _(t: Table, period: int, deviation_period: int) -> Outputs:
    deviation, change = t.s.rolling(deviation_period).std(ddof=0), t.s.diff()
    up = rma(deviation.where(change > 0, 0.0).where(deviation.notna()), period)
    down = rma(deviation.where(change < 0, 0.0).where(deviation.notna()), period)
    return {"relative_volatility": 100 * up / (up + down)}


@of("realized_volatility")
def _(t: Table, period: int) -> Outputs:
    def mean(x: Series) -> Series:
        return x.rolling(period).mean()

    night, day, span = np.log(t.o / t.c.shift()), np.log(t.c / t.o), np.log(t.h / t.l)
    satchell = mean(np.log(t.h / t.c) * np.log(t.h / t.o) + np.log(t.l / t.c) * np.log(t.l / t.o))
    k = 0.34 / (1.34 + (period + 1) / (period - 1))
    return {
        "close": np.log(t.c / t.c.shift()).rolling(period).std(),
        "parkinson": mean(span**2 / (4 * math.log(2))) ** 0.5,
        "garman_klass": mean(span**2 / 2 - (2 * math.log(2) - 1) * day**2) ** 0.5,
        "rogers_satchell": satchell**0.5,
        "yang_zhang": (night.rolling(period).var() + k * day.rolling(period).var() + (1 - k) * satchell) ** 0.5,
    }


@of("ulcer_index")
def _(t: Table, period: int) -> Outputs:
    top = t.s.rolling(period).max()
    return {"ulcer_index": sma((100 * (t.s - top) / top) ** 2, period) ** 0.5}


@of("drawdown")
def _(t: Table, period: int) -> Outputs:
    top = t.s.rolling(period).max()
    return {"drawdown": (t.s - top) / top}


# ---------------------------------------------------------------- volume


@of("cmf")
def _(t: Table, period: int) -> Outputs:
    flow = (t.v * (2 * t.c - t.h - t.l) / (t.h - t.l)).fillna(0.0)
    return {"cmf": flow.rolling(period).sum() / t.v.rolling(period).sum()}


@of("force_index")
def _(t: Table, period: int) -> Outputs:
    return {"force_index": ema(t.c.diff() * t.v, period)}


@of("market_facilitation")
def _(t: Table) -> Outputs:
    return {"market_facilitation": (t.h - t.l) / t.v}


@of("ease_of_movement")
def _(t: Table, period: int) -> Outputs:
    return {"ease_of_movement": sma(hl2(t).diff() / (t.v / (t.h - t.l)), period)}


def chained(t: Table, counts: Series) -> Series:
    return 1000 * (1 + t.c.pct_change().where(counts, 0.0)).cumprod()


@of("nvi")
def _(t: Table) -> Outputs:
    return {"nvi": chained(t, t.v.diff() < 0)}


@of("pvi")
def _(t: Table) -> Outputs:
    return {"pvi": chained(t, t.v.diff() > 0)}


@of("pvt")
def _(t: Table) -> Outputs:
    return {"pvt": (t.c.pct_change() * t.v).fillna(0.0).cumsum()}


@of("williams_ad")
def _(t: Table) -> Outputs:
    before = t.c.shift()
    low, high = pd.concat([t.l, before], axis=1).min(axis=1), pd.concat([t.h, before], axis=1).max(axis=1)
    step = (t.c - low).where(t.c > before, (t.c - high).where(t.c < before, 0.0))
    return {"williams_ad": step.cumsum()}


@of("pvo")
def _(t: Table, fast: int, slow: int, average: str) -> Outputs:
    return {"pvo": percent(ema(t.v, fast), ema(t.v, slow))} if average == "ema" else {}


@of("relative_volume")
def _(t: Table, period: int) -> Outputs:
    return {"relative_volume": t.v / sma(t.v, period).shift()}


@of("amihud")
def _(t: Table, period: int) -> Outputs:
    return {"amihud": sma(t.c.pct_change().abs() / (t.c * t.v), period)}


# ---------------------------------------------------------------- statistics


def line(x: Series, n: int, at: int) -> Series:
    """The regression line of the last n values at this place; the last bar is n - 1."""
    places = np.arange(n)

    def fitted(w: np.ndarray) -> float:
        slope, start = np.polyfit(places, w, 1)
        return float(start + slope * at)

    return x.rolling(n).apply(fitted, raw=True)


@of("linear_regression")
def _(t: Table, period: int) -> Outputs:
    start, end = line(t.s, period, 0), line(t.s, period, period - 1)
    slope = line(t.s, period, 1) - start
    return {"value": end, "intercept": start, "forecast": line(t.s, period, period), "angle": np.degrees(np.arctan(slope)), "slope": slope}


@of("zscore")
def _(t: Table, period: int) -> Outputs:
    return {"zscore": (t.s - sma(t.s, period)) / t.s.rolling(period).std()}


@of("skewness")
def _(t: Table, period: int) -> Outputs:
    return {"skewness": t.s.rolling(period).apply(lambda w: Series(w).skew(), raw=True)}


@of("kurtosis")
def _(t: Table, period: int) -> Outputs:
    return {"kurtosis": t.s.rolling(period).apply(lambda w: Series(w).kurt(), raw=True)}


@of("autocorrelation")
def _(t: Table, period: int, distance: int) -> Outputs:
    change = t.s.pct_change()
    return {"autocorrelation": change.rolling(period).corr(change.shift(distance))}


@of("mean_deviation")
def _(t: Table, period: int) -> Outputs:
    return {"mean_deviation": t.s.rolling(period).apply(lambda w: np.abs(w - w.mean()).mean(), raw=True)}


@of("percentile")
def _(t: Table, period: int, percent: float) -> Outputs:
    place = max(1, math.ceil(period * percent / 100)) - 1
    return {"percentile": t.s.rolling(period).apply(lambda w: np.sort(w)[place], raw=True)}


@of("percent_rank")
def _(t: Table, period: int) -> Outputs:
    return {"percent_rank": t.s.rolling(period + 1).apply(lambda w: 100 * (w[:-1] < w[-1]).mean(), raw=True)}
