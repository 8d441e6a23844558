"""What is said of an indicator, as types: the catalogue is made of these, and so are the definitions on the worker. Data only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from types import CodeType
from typing import Any, Final, NamedTuple

Value = float | str
Values = Mapping[str, Value]

SOURCES: Final = ("open", "high", "low", "close", "hl2", "hlc3", "hlcc4", "ohlc4", "volume")
"""What ``source`` may name; hl2, hlc3, hlcc4 (the close counts twice) and ohlc4 are means of those prices."""

AVERAGES: Final = ("sma", "ema", "wma", "dema", "tema", "trima", "kama", "t3", "hma", "zlema", "rma")
"""What ``average`` may name."""

SMOOTHED: Final = frozenset({"ema", "dema", "tema", "kama", "t3", "zlema", "rma"})
"""Averages that remember all bars before, however faintly."""


class Parameter(NamedTuple):
    """A parameter of an indicator: a number from `low` to `high`, both allowed, or one of the words in `choices`."""

    default: Value
    meaning: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    choices: tuple[str, ...] = ()


class Indicator(NamedTuple):
    """An indicator.

    Attributes
    ----------
    family : str
        The heading it stands under.
    meaning : str
        One line for people.
    parameters : mapping of str to Parameter
    outputs : tuple of str
        The first is what the bare id means, if ``bare`` is true.
    bare : bool
        Whether an id without ``.output`` may be used.
    sourced : bool
        Whether it has the key ``source``; otherwise it is computed from whole bars.
    volume : bool
        Whether it needs bars with volume, whatever its parameters are.
    unstable : bool or str
        Whether its values depend on all bars before and not only on the last ones, so that more history changes them; ``average``: if its
        average does. See `is_unstable`.
    formula : str
        Of `warmup`, over the parameters.
    ordered : tuple of (str, str)
        Pairs of parameters of which the first must be the smaller one.
    talib : tuple of str
        The functions of TA-Lib that are behind it or say the same.
    also : tuple of str
        Other names that people look for.
    """

    family: str
    meaning: str
    parameters: Mapping[str, Parameter]
    outputs: tuple[str, ...]
    bare: bool
    sourced: bool
    volume: bool
    unstable: bool | str
    formula: str
    ordered: tuple[tuple[str, str], ...]
    talib: tuple[str, ...]
    also: tuple[str, ...]

    def warmup(self, parameters: Values) -> int:
        """Bars before the first value of any output."""
        scope: dict[str, Any] = {"__builtins__": {}, "max": max, "isqrt": math.isqrt, "lag": lag, **parameters}
        return int(eval(_compiled(self.formula), scope))  # noqa: S307  # of our own data, never of a strategy's text

    def is_unstable(self, parameters: Values) -> bool:
        """Whether more history changes its values, with these parameters."""
        return parameters["average"] in SMOOTHED if self.unstable == "average" else bool(self.unstable)


@cache
def _compiled(formula: str) -> CodeType:
    return compile(formula, "indicators.json", "eval")


def lag(average: str, period: int) -> int:
    """Bars before the first value of a moving average."""
    if period == 1:
        return 0
    match average:
        case "dema":
            return 2 * (period - 1)
        case "tema":
            return 3 * (period - 1)
        case "t3":
            return 6 * (period - 1)
        case "kama":
            return period
        case "hma":
            return period + math.isqrt(period) - 2
        case "zlema":
            return period - 1 + (period - 1) // 2
    return period - 1
