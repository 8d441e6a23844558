"""Indicators with parameters, for tests: chosen, or drawn at random; and what TA-Lib says when it is called directly."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import talib
from talib import abstract

from ktrdr_worker.trading.indicators import source_of
from ktrdr_worker.trading.indicators.common import MA_TYPES
from ktrdr_zmq.strategy.catalogue import CATALOGUE
from ktrdr_zmq.strategy.indicator import Parameter, Value
from ktrdr_zmq.strategy.schema import IndicatorUse


def use(kind: str, source: str = "close", **parameters: Value) -> IndicatorUse:
    """An indicator with its defaults but for these parameters."""
    known = CATALOGUE[kind]
    assert parameters.keys() <= known.parameters.keys()
    values = {name: parameters.get(name, parameter.default) for name, parameter in known.parameters.items()}
    return IndicatorUse(f"my_{kind}", kind, source if known.sourced else "", values)


def drawn(kind: str, seed: int, longest: int = 12) -> IndicatorUse:
    """An indicator with random parameters, all legal, bars of at most about `longest`."""
    chance = np.random.default_rng([seed, *kind.encode()])
    known = CATALOGUE[kind]
    while True:
        values = {name: _value(parameter, chance, longest) for name, parameter in known.parameters.items()}
        if all(values[smaller] < values[larger] for smaller, larger in known.ordered):  # type: ignore[operator]
            return use(kind, str(chance.choice(["open", "high", "close", "hl2", "hlcc4", "ohlc4"])), **values)


def _value(parameter: Parameter, chance: np.random.Generator, longest: int) -> Value:
    if parameter.choices:
        return str(chance.choice(parameter.choices))
    if parameter.whole:
        return int(chance.integers(parameter.low, parameter.low + longest))
    return float(chance.uniform(parameter.low, min(parameter.high, 5 * float(parameter.default) or parameter.high)))


class Direct(NamedTuple):
    """One function of TA-Lib: its parameters from ours, its outputs as ours, and what they are multiplied with."""

    function: str
    parameters: dict[str, str]
    outputs: tuple[str, ...]
    factor: float = 1.0


_FAST_SLOW = {"fastperiod": "fast", "slowperiod": "slow"}
_PERIOD = {"timeperiod": "period"}
SPECIAL: dict[str, list[Direct]] = {
    "price": [], "vwap": [], "keltner": [],
    "t3": [Direct("T3", {**_PERIOD, "vfactor": "volume_factor"}, ("t3",))],
    "mama": [Direct("MAMA", {"fastlimit": "fast_limit", "slowlimit": "slow_limit"}, ("mama", "fama"))],
    "bbands": [
        Direct("BBANDS", {**_PERIOD, "nbdevup": "deviations", "nbdevdn": "deviations", "matype": "average"}, ("upper", "middle", "lower"))
    ],
    "donchian": [Direct("DONCHIAN", _PERIOD, ("upper", "middle", "lower")), Direct("MIDPRICE", _PERIOD, ("middle",))],
    "supertrend": [Direct("SUPERTREND", {**_PERIOD, "multiplier": "multiplier"}, ("value", "direction"))],
    "sar": [Direct("SAR", {"acceleration": "acceleration", "maximum": "maximum"}, ("sar",))],
    "sar_extended": [
        Direct(
            "SAREXT",
            {
                "startvalue": "start", "offsetonreverse": "offset_on_reverse",
                "accelerationinitlong": "initial_long", "accelerationlong": "acceleration_long", "accelerationmaxlong": "maximum_long",
                "accelerationinitshort": "initial_short", "accelerationshort": "acceleration_short",
                "accelerationmaxshort": "maximum_short",
            },
            ("signed",),
        )
    ],
    "macd": [
        Direct(
            "MACDEXT",
            {
                **_FAST_SLOW, "signalperiod": "signal", "fastmatype": "average", "slowmatype": "average", "signalmatype": "average",
            },
            ("macd", "signal", "histogram"),
        )
    ],
    "apo": [Direct("APO", {**_FAST_SLOW, "matype": "average"}, ("apo",))],
    "ppo": [Direct("PPO", {**_FAST_SLOW, "matype": "average"}, ("ppo",))],
    "pvo": [Direct("PVO", {**_FAST_SLOW, "matype": "average"}, ("pvo",))],
    "tsi": [Direct("TSI", {"firstperiod": "first", "secondperiod": "second"}, ("tsi",))],
    "coppock": [Direct("COPPOCK", {"wmaperiod": "period", "roc1period": "short_roc", "roc2period": "long_roc"}, ("coppock",))],
    "stochastic": [
        Direct(
            "STOCH",
            {
                "fastk_period": "period", "slowk_period": "k_smooth", "slowk_matype": "average", "slowd_period": "d_smooth",
                "slowd_matype": "average",
            },
            ("k", "d"),
        )
    ],
    "stochastic_rsi": [
        Direct("STOCHRSI", {**_PERIOD, "fastk_period": "range", "fastd_period": "d_smooth", "fastd_matype": "average"}, ("k", "d"))
    ],
    "kdj": [Direct("KDJ", {"fastk_period": "period", "slowk_period": "k_smooth", "slowd_period": "d_smooth"}, ("k", "d", "j"))],
    "smi": [
        Direct("SMI", {**_PERIOD, "slowperiod": "first", "fastperiod": "second", "signalperiod": "signal"}, ("smi", "signal"))
    ],
    "ultimate_oscillator": [
        Direct("ULTOSC", {"timeperiod1": "short", "timeperiod2": "middle", "timeperiod3": "long"}, ("ultimate_oscillator",))
    ],
    "ao": [Direct("AO", _FAST_SLOW, ("ao",))],
    "ac": [Direct("AC", {**_FAST_SLOW, "signalperiod": "signal"}, ("ac",))],
    "adx": [Direct("ADX", _PERIOD, ("adx",)), Direct("PLUS_DI", _PERIOD, ("plus_di",)), Direct("MINUS_DI", _PERIOD, ("minus_di",))],
    "directional_movement": [Direct("PLUS_DM", _PERIOD, ("plus",)), Direct("MINUS_DM", _PERIOD, ("minus",))],
    "aroon": [Direct("AROON", _PERIOD, ("down", "up")), Direct("AROONOSC", _PERIOD, ("oscillator",))],
    "fractal": [Direct("FRACTAL", {"leftbars": "left", "rightbars": "right"}, ("swing_high", "swing_low"), 0.01)],
    "atr": [Direct("ATR", _PERIOD, ("atr",)), Direct("NATR", _PERIOD, ("relative",), 0.01)],
    "chaikin_volatility": [Direct("CVI", {**_PERIOD, "rocperiod": "change"}, ("chaikin_volatility",))],
    "mass_index": [Direct("MASSI", {"fastperiod": "smooth", "slowperiod": "period"}, ("mass_index",))],
    "relative_volatility": [Direct("RVI", {**_PERIOD, "stddevperiod": "deviation_period"}, ("relative_volatility",))],
    "chaikin_oscillator": [Direct("ADOSC", _FAST_SLOW, ("chaikin_oscillator",))],
    "linear_regression": [
        Direct("LINEARREG", _PERIOD, ("value",)), Direct("LINEARREG_SLOPE", _PERIOD, ("slope",)),
        Direct("LINEARREG_ANGLE", _PERIOD, ("angle",)), Direct("LINEARREG_INTERCEPT", _PERIOD, ("intercept",)),
        Direct("TSF", _PERIOD, ("forecast",)),
    ],
    "percentile": [Direct("PERCENTILE", {**_PERIOD, "percentile": "percent"}, ("percentile",))],
}  # fmt: skip
"""Where it is more than one function with ``timeperiod`` for ``period``; nothing: TA-Lib's has another definition."""


def direct(kind: str) -> list[Direct]:
    """The functions of TA-Lib that say the same as this indicator."""
    known = CATALOGUE[kind]
    if kind in SPECIAL:
        return SPECIAL[kind]
    return [Direct(name, _PERIOD if "period" in known.parameters else {}, known.outputs) for name in known.talib[:1]]


def parameters_of(one: Direct, values: dict[str, Value]) -> dict[str, Any]:
    """TA-Lib's parameters, made of ours."""
    return {theirs: MA_TYPES.get(values[ours], values[ours]) for theirs, ours in one.parameters.items()}  # type: ignore[call-overload]


def lookback(one: Direct, values: dict[str, Value]) -> int:
    """Bars before TA-Lib's first value."""
    function = abstract.Function(one.function)
    function.parameters = parameters_of(one, values)
    return int(function.lookback)


def ask_talib(one: Direct, item: IndicatorUse, bars: Any) -> dict[str, np.ndarray]:
    """Outputs of TA-Lib called directly, by our names."""
    arrays: list[np.ndarray] = []
    series = source_of(bars, item.source or "close")
    for place, wanted in abstract.Function(one.function).input_names.items():
        if place == "price":
            arrays.append(series)
        elif place == "prices":
            arrays += [getattr(bars, name) for name in wanted]
        else:  # two series
            arrays.append(
                series if (place == "price0") == (item.type == "correlation") else source_of(bars, str(item.parameters["against"]))
            )
    given = getattr(talib, one.function)(*arrays, **parameters_of(one, item.parameters))
    found = given if isinstance(given, tuple | list) else (given,)
    return {name: np.asarray(values, dtype=np.float64) * one.factor for name, values in zip(one.outputs, found, strict=True)}
