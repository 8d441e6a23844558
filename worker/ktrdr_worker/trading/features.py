"""From bars to the matrix that a network reads: indicators, degrees of membership, raw values with their scaling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars, DataError
from ktrdr_worker.trading.frames import Frames, known
from ktrdr_worker.trading.fuzzy import membership
from ktrdr_worker.trading.indicators import compute
from ktrdr_zmq.strategy.schema import Strategy


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


def build(strategy: Strategy, frames: Frames, tick: Callable[[float], None] = lambda _share: None) -> Features:
    """Compute all features. Row t depends on bars that are complete at the close of base bar t, and on nothing after it.

    Each is computed on its own timeframe's bars, and holds from the close of one of them to that of the next. ``tick`` gets the share that
    is done, 0 to 1, after each, and may raise to stop.

    Raises
    ------
    DataError
        When there are too few bars, or an indicator has no value somewhere.
    """
    matrix = np.empty((len(frames.bars.opens), len(strategy.features)))
    made = 0
    warmup = strategy.data.history_required
    for timeframe in dict.fromkeys(feature.timeframe for feature in strategy.features):
        rows, needed = known(frames, timeframe), strategy.warmup(timeframe)
        bars = frames.by_timeframe[timeframe]
        if len(bars.opens) <= needed:
            raise DataError(
                f"The strategy {strategy.name} needs more than {needed} bars of {timeframe} before the first one it can use; "
                f"{bars.symbol} has {len(bars.opens)}."
            )
        warmup = max(warmup, int(np.searchsorted(rows, needed)))
        for column, values in _columns(strategy, timeframe, bars):
            matrix[:, column] = values[rows]
            made += 1
            tick(made / len(strategy.features))
    if len(frames.bars.opens) <= warmup:
        raise DataError(
            f"The strategy {strategy.name} needs more than {warmup} bars of {frames.base} before the first one it can use; "
            f"{frames.bars.symbol} has {len(frames.bars.opens)}."
        )
    matrix[:warmup] = np.nan
    return Features(strategy.feature_ids, matrix, warmup)


def _columns(strategy: Strategy, timeframe: str, bars: Bars) -> Iterator[tuple[int, Array]]:
    """The features of a timeframe with their columns, one value for each of its bars."""
    outputs: dict[str, dict[str, Array]] = {}
    for column, feature in enumerate(strategy.features):
        if feature.timeframe != timeframe:
            continue
        name, output, _ = feature.indicator
        if name not in outputs:
            outputs[name] = compute(strategy.indicators[name], bars)
        values = outputs[name][output]
        yield column, values if feature.membership is None else membership(values, *feature.membership)


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
    for column, feature in enumerate(strategy.features):
        if feature.normalization is None:
            scalings.append(Scaling(0.0, 1.0))
            continue
        values = rows[:, column]
        low, high = float(values.min()), float(values.max())
        scaling = Scaling(low, high - low) if feature.normalization == "minmax" else Scaling(float(values.mean()), float(values.std()))
        if not high > low or not scaling.divisor > 0:
            raise DataError(f"The input {feature.id} has the same value in the whole training part, so that it cannot be scaled.")
        scalings.append(scaling)
    return scalings


def scale(values: Array, scalings: list[Scaling]) -> Array:
    """Apply a scaling; returns float32, which is what networks compute with."""
    offsets = np.array([scaling.offset for scaling in scalings])
    divisors = np.array([scaling.divisor for scaling in scalings])
    return ((values - offsets) / divisors).astype(np.float32)
