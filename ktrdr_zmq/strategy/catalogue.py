"""The indicators: names, parameters with defaults and ranges, outputs, and how many bars pass before there is a value. Data only.

Clients check strategies with it; ``ktrdr_worker.trading.indicators`` computes what it lists, and a test there compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

SOURCES: Final = ("open", "high", "low", "close", "hl2", "hlc3", "ohlc4", "volume")
"""What ``source`` may name; hl2, hlc3 and ohlc4 are means of those prices."""

Numbers = Mapping[str, float]


class Parameter(NamedTuple):
    """A parameter of an indicator: `low` and `high` are allowed."""

    default: float
    low: float
    high: float
    whole: bool
    meaning: str


class Indicator(NamedTuple):
    """An indicator.

    Attributes
    ----------
    meaning : str
        One line for people.
    parameters : mapping of str to Parameter
    outputs : tuple of str
        The first is what the bare id means, if ``bare`` is true.
    bare : bool
        Whether an id without ``.output`` may be used.
    sourced : bool
        Whether it has the key ``source``; otherwise it is computed from high, low and close.
    warmup : callable
        Bars before the first value, by parameters.
    ordered : tuple of (str, str)
        Pairs of parameters of which the first must be the smaller one.
    """

    meaning: str
    parameters: Mapping[str, Parameter]
    outputs: tuple[str, ...]
    bare: bool
    sourced: bool
    warmup: Callable[[Numbers], int]
    ordered: tuple[tuple[str, str], ...] = ()


def _bars(default: int, low: int = 2, meaning: str = "Bars to look back over.") -> Parameter:
    return Parameter(default, low, 5000, True, meaning)


def _period(less: int, factor: int = 1) -> Callable[[Numbers], int]:
    return lambda p: factor * int(p["period"]) - less


CATALOGUE: Final[Mapping[str, Indicator]] = {
    "sma": Indicator("Simple moving average.", {"period": _bars(20)}, ("sma",), True, True, _period(1)),
    "ema": Indicator("Exponential moving average, begun with a simple one.", {"period": _bars(20)}, ("ema",), True, True, _period(1)),
    "rsi": Indicator("Relative strength index (Wilder), 0 to 100.", {"period": _bars(14)}, ("rsi",), True, True, _period(0)),
    "macd": Indicator(
        "Moving average convergence/divergence: fast less slow EMA, its EMA, and their difference.",
        {"fast": _bars(12), "slow": _bars(26), "signal": _bars(9, 1)},
        ("macd", "signal", "histogram"),
        True,
        True,
        lambda p: int(p["slow"] + p["signal"]) - 2,
        (("fast", "slow"),),
    ),
    "bbands": Indicator(
        "Bollinger bands; percent_b is the place between lower (0) and upper (1), width their distance over the middle.",
        {"period": _bars(20), "deviations": Parameter(2.0, 0.1, 10.0, False, "Standard deviations (ddof 0) from the middle.")},
        ("upper", "middle", "lower", "percent_b", "width"),
        False,
        True,
        _period(1),
    ),
    "atr": Indicator(
        "Average true range (Wilder), in the unit of the price; relative is over the close.",
        {"period": _bars(14)},
        ("atr", "relative"),
        True,
        False,
        _period(0),
    ),
    "adx": Indicator(
        "Average directional movement index (Wilder) and its two directional indicators, 0 to 100.",
        {"period": _bars(14)},
        ("adx", "plus_di", "minus_di"),
        True,
        False,
        _period(1, 2),
    ),
    "stochastic": Indicator(
        "Stochastic oscillator, 0 to 100: k smoothed by a simple average, d the simple average of k.",
        {
            "period": _bars(14, 1),
            "k_smooth": _bars(3, 1, "Bars that k is averaged over."),
            "d_smooth": _bars(3, 1, "Bars that d is averaged over."),
        },
        ("k", "d"),
        False,
        False,
        lambda p: int(p["period"] + p["k_smooth"] + p["d_smooth"]) - 3,
    ),
}


def warmup(kind: str, parameters: Numbers) -> int:
    """Bars before the first value of any output."""
    return CATALOGUE[kind].warmup(parameters)
