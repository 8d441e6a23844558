"""From bars to the matrix that a network reads: indicators, degrees of membership, raw values with their scaling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars, DataError
from ktrdr_worker.trading.fuzzy import membership
from ktrdr_worker.trading.indicators import compute
from ktrdr_zmq.strategy.schema import FuzzySet, Strategy


class Features(NamedTuple):
    """Features before scaling.

    Attributes
    ----------
    ids : list of str
        ``{timeframe}_{fuzzy_set}_{label}`` and ``{timeframe}_{indicator}``, in the order of the columns.
    values : array of float64, shape (bars, features)
        NaN in the rows before `warmup`, and only there.
    warmup : int
        The first row with values: as many bars only fed the indicators, or were asked for as history.
    """

    ids: list[str]
    values: Array
    warmup: int


class Scaling(NamedTuple):
    """How one column is scaled: ``(value - offset) / divisor``. Degrees of membership have 0 and 1."""

    offset: float
    divisor: float


def build(strategy: Strategy, bars: Bars) -> Features:
    """Compute all features. Row t depends on bars up to t and on nothing after it.

    Raises
    ------
    DataError
        When there are too few bars, or an indicator has no value somewhere.
    """
    warmup = max(strategy.warmup, strategy.data.history_required)
    if len(bars.opens) <= warmup:
        raise DataError(
            f"The strategy {strategy.name} needs more than {warmup} bars of {bars.timeframe} before the first one it can use; "
            f"there are {len(bars.opens)}."
        )
    outputs: dict[tuple[str, str], Array] = {}
    for name in dict.fromkeys(item.indicator.indicator for item in strategy.inputs):
        for output, values in compute(strategy.indicators[name], bars).items():
            outputs[name, output] = values
    columns: list[Array] = []
    for item in strategy.inputs:
        values = outputs[item.indicator.indicator, item.indicator.output]
        if isinstance(item, FuzzySet):
            columns += [membership(values, label.shape, label.parameters) for label in item.labels.values()]
        else:
            columns.append(values)
    matrix = np.column_stack(columns).astype(np.float64)
    matrix[:warmup] = np.nan
    return Features(strategy.feature_ids(bars.timeframe), matrix, warmup)


def fit_scaling(strategy: Strategy, rows: Array) -> list[Scaling]:
    """Fit the scaling of each column to the training part.

    Parameters
    ----------
    strategy : Strategy
    rows : array of float64, shape (samples, features)
        The training part's rows, unscaled.

    Raises
    ------
    DataError
        When a raw input does not vary in the training part.
    """
    scalings: list[Scaling] = []
    for item in strategy.inputs:
        if isinstance(item, FuzzySet):
            scalings += [Scaling(0.0, 1.0)] * len(item.labels)
            continue
        values = rows[:, len(scalings)]
        low, high = float(values.min()), float(values.max())
        scaling = Scaling(low, high - low) if item.normalization == "minmax" else Scaling(float(values.mean()), float(values.std()))
        if not high > low or not scaling.divisor > 0:
            raise DataError(f"The input {item.indicator.text} has the same value in the whole training part, so that it cannot be scaled.")
        scalings.append(scaling)
    return scalings


def scale(values: Array, scalings: list[Scaling]) -> Array:
    """Apply a scaling; returns float32, which is what networks compute with."""
    offsets = np.array([scaling.offset for scaling in scalings])
    divisors = np.array([scaling.divisor for scaling in scalings])
    return ((values - offsets) / divisors).astype(np.float32)
