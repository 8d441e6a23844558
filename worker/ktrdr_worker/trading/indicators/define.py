"""How an indicator is written down: once, as a function of prices with its parameters, from which the catalogue is made.

The docstring's first paragraph is what people read of it; everything else is said in the decorator. Nothing here computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.strategy.indicator import AVERAGES, SOURCES, Indicator, Parameter

Outputs = Array | tuple[Array, ...]
Function = Callable[..., Outputs]


class Prices(NamedTuple):
    """What an indicator sees: contiguous float64 arrays, one value a bar.

    Attributes
    ----------
    open, high, low, close, volume : array of float64, shape (n,)
    source : array of float64, shape (n,)
        The series that ``source`` names.
    sessions : array of int64, shape (n,)
        Number of the session a bar belongs to.
    """

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    source: Array
    sessions: Array


def source_of(prices: Any, source: str) -> Array:
    """The series that ``source`` names (see ``indicator.SOURCES``), of anything that has prices and volume."""
    match source:
        case "open" | "high" | "low" | "close" | "volume":
            return np.asarray(getattr(prices, source))
        case "hl2":
            return (prices.high + prices.low) / 2.0
        case "hlc3":
            return (prices.high + prices.low + prices.close) / 3.0
        case "hlcc4":
            return (prices.high + prices.low + 2.0 * prices.close) / 4.0
        case "ohlc4":
            return (prices.open + prices.high + prices.low + prices.close) / 4.0
    raise ValueError(f"there is no source {source!r}")


FUNCTIONS: Final[dict[str, Function]] = {}
"""By name: from `Prices` and complete parameters to the outputs, in the order of the catalogue."""
DEFINITIONS: Final[dict[str, Indicator]] = {}
"""What the catalogue is made of."""


class Family:
    """Indicators under one heading; an instance is the decorator that defines them.

    Parameters
    ----------
    title : str
    """

    def __init__(self, title: str) -> None:
        self.title = title

    def __call__(
        self,
        warmup: str,
        *,
        outputs: tuple[str, ...] = (),
        bare: bool | None = None,
        sourced: bool = False,
        volume: bool = False,
        unstable: bool = False,
        ordered: tuple[tuple[str, str], ...] = (),
        talib: tuple[str, ...] = (),
        also: tuple[str, ...] = (),
        **parameters: Parameter,
    ) -> Callable[[Function], Function]:
        """Define the function below; see `Indicator`. Without `outputs` it has one, of its own name, which a bare id means."""

        def register(function: Function) -> Function:
            name = function.__name__
            names = outputs or (name,)
            meaning = " ".join((function.__doc__ or "").split("\n\n")[0].split())
            plain = len(names) == 1 if bare is None else bare
            remembers = "average" if "average" in parameters and not unstable else unstable
            DEFINITIONS[name] = Indicator(
                self.title, meaning, parameters, names, plain, sourced, volume, remembers, warmup, ordered, talib, also
            )
            FUNCTIONS[name] = function
            return function

        return register


def bars(default: int, low: int = 2, meaning: str = "Bars to look back over.") -> Parameter:
    """A number of bars."""
    return Parameter(default, meaning, low, 5000, whole=True)


def number(default: float, low: float, high: float, meaning: str) -> Parameter:
    """A number with decimals."""
    return Parameter(float(default), meaning, float(low), float(high))


def average(default: str) -> Parameter:
    """Which moving average."""
    return Parameter(default, "Which moving average.", choices=AVERAGES)


def series(default: str) -> Parameter:
    """A second series, by the names that ``source`` has."""
    return Parameter(default, "The other series, named like a source.", choices=SOURCES)
