"""Indicators: functions of bars, most of them computed by TA-Lib behind a strict adapter, the others written here.

TA-Lib by itself ignores parameters it does not know, swaps a fast period that is the slower one, answers 0 where it would have to divide by
0, and lets one NaN poison everything after it. Here names, ranges and warm-up are those of the catalogue (`define`), and whatever
does not fit is an error. A value at a bar depends on that bar and on those before it, never on a later one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars, DataError
from ktrdr_worker.trading.indicators import (  # noqa: F401  # to import a family is to define its indicators
    averages,
    bands,
    cycles,
    momentum,
    statistics,
    trend,
    volatility,
    volume,
)  # fmt: skip
from ktrdr_worker.trading.indicators.define import DEFINITIONS, FUNCTIONS, Prices, source_of

if TYPE_CHECKING:
    from ktrdr_zmq.strategy.schema import IndicatorUse

__all__ = ["DEFINITIONS", "FUNCTIONS", "Prices", "compute", "prices_of", "source_of"]


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
        When there are no more bars than the warm-up takes, no volume where it is needed, a NaN among the bars, or an output has no value
        later on (a band without width, say).
    """
    known = DEFINITIONS[use.type]
    count, warmup = len(bars.opens), known.warmup(use.parameters)
    if count <= warmup:
        raise DataError(f"The indicator {use.id} needs more than {warmup} bars of {bars.timeframe}; there are {count}.")
    if (known.volume or use.source == "volume" or "volume" in use.parameters.values()) and not bars.volume.any():
        raise DataError(f"The indicator {use.id} needs volume, and {bars.symbol} {bars.timeframe} has none: that of every bar is 0.")
    prices = prices_of(bars, use.source or "close")
    with np.errstate(divide="ignore", invalid="ignore"):
        given = FUNCTIONS[use.type](prices, **use.parameters)
    outputs = {}
    for name, values in zip(known.outputs, given if isinstance(given, tuple) else (given,), strict=True):
        outputs[name] = np.array(values, dtype=np.float64)
        outputs[name][:warmup] = np.nan
        missing = np.flatnonzero(~np.isfinite(outputs[name][warmup:]))
        if len(missing):
            what = "prices or volumes" if known.volume or "volume" in (use.source, *use.parameters.values()) else "prices"
            raise DataError(
                f"The indicator {use.id}.{name} has no value at bar {int(missing[0]) + warmup} of {bars.symbol} {bars.timeframe}: "
                f"the {what} before it do not move."
            )
    return outputs


def prices_of(bars: Bars, source: str) -> Prices:
    """The bars as indicators see them.

    Raises
    ------
    DataError
        When there is a NaN or an infinite number among them.
    """
    columns = {name: np.ascontiguousarray(getattr(bars, name), dtype=np.float64) for name in ("open", "high", "low", "close", "volume")}
    for name, values in columns.items():
        if not np.isfinite(values).all():
            index = int(np.flatnonzero(~np.isfinite(values))[0])
            raise DataError(f"The {name} of bar {index} of {bars.symbol} {bars.timeframe} is {values[index]}, which is no number to use.")
    prices = Prices(**columns, source=columns["close"], sessions=bars.sessions)
    return prices._replace(source=np.ascontiguousarray(source_of(prices, source), dtype=np.float64))
