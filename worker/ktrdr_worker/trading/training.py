"""A training from bars to a scored model: what the job ``training`` does, without the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import Bars, DataError, stamp
from ktrdr_worker.trading.features import Features, Scaling, build, fit_scaling, scale
from ktrdr_worker.trading.labels import UNKNOWN, Labelled, label
from ktrdr_worker.trading.learning import Learned, Learner, Part
from ktrdr_worker.trading.scores import baseline, classification
from ktrdr_worker.trading.splits import PartIndices, Split, chronological
from ktrdr_zmq import results
from ktrdr_zmq.results import ClassificationMetrics
from ktrdr_zmq.strategy.schema import CLASSES, Strategy

FEWEST = 10
"""Samples that each part must have."""


class Table(NamedTuple):
    """Samples of a window of bars, each read where its bar is.

    Attributes
    ----------
    values : array of float64, shape (rows, features)
        Unscaled features of the bars from index `base` on, all that a sample may read.
    bars, ends : array of int64, shape (n,)
        The bar of each sample, and the last one that its label looks at.
    classes : array of int64, shape (n,)
    """

    values: Array
    base: int
    bars: Array
    classes: Array
    ends: Array


class Outcome(NamedTuple):
    """A trained network and how well it does; parts in the order train, validation, test."""

    learned: Learned
    scalings: list[Scaling]
    features: Features
    parts: tuple[results.Part, results.Part, results.Part]
    scores: tuple[ClassificationMetrics, ClassificationMetrics, ClassificationMetrics]
    baseline: ClassificationMetrics
    majority: str
    made_by: list[str]


class Checkpoints(Protocol):
    """Where a training that is interrupted goes on from."""

    job: str
    """A digest of everything that the outcome depends on: a checkpoint of anything else is not taken up."""
    made_by: str
    """Software and machine, where equality bit for bit depends on them."""

    def load(self) -> bytes | None:
        """The newest checkpoint of an earlier attempt."""

    def offer(self, dump: Callable[[], bytes]) -> None:
        """An epoch is done, and can be written down."""


def train(
    strategy: Strategy, bars: Bars, first: int, last: int, device: str,
    progress: Callable[[float, str, str, dict[str, float]], None], checkpoints: Checkpoints | None = None,
) -> Outcome:  # fmt: skip
    """Train and score a model.

    Parameters
    ----------
    strategy : Strategy
    bars : Bars
        All bars that there are; those before `first` only feed the indicators.
    first, last : int
        Samples are taken from `first` up to, and without, `last`; no label looks at `last` or beyond.
    device : str
        ``cpu``, ``cuda:0`` or ``mps``.
    progress : callable
        Told share, stage, text and figures; may raise to stop everything.
    checkpoints : Checkpoints, optional
        Asked once at the beginning, and offered the state after each epoch.

    Raises
    ------
    DataError
        When the bars are too few, or all the same.
    """
    progress(0.02, "features", f"{len(bars.opens):,} bars", {})
    features = build(strategy, bars)
    table = _samples(strategy, bars, features, first, last)
    settings = strategy.training
    shares = settings.data_split
    fractions = (shares.train, shares.validation, shares.test)
    split = chronological(table.bars, table.ends, fractions, shares.embargo, strategy.model.window)
    _check(split, table, bars)
    positions: Array = table.bars - table.base
    scalings = fit_scaling(strategy, table.values[positions[split.train.rows]])
    matrix = scale(table.values, scalings)
    train_part, validation, test = (
        Part(matrix, positions[part.rows], table.classes[part.rows]) for part in (split.train, split.validation, split.test)
    )

    learner = Learner(train_part, validation, strategy.model, settings, device, checkpoints.job if checkpoints else "")
    learner.progress.made_by = [checkpoints.made_by] if checkpoints else []
    saved = checkpoints.load() if checkpoints else None
    if saved is not None:
        learner.restore(saved)
    while not learner.over:
        loss, validation_loss = learner.step()
        if checkpoints is not None:
            checkpoints.offer(learner.dump)
        figures = {"epoch": float(learner.epoch), "train_loss": loss, "validation_loss": validation_loss}
        progress(0.05 + 0.9 * learner.epoch / settings.epochs, "training", f"epoch {learner.epoch} of {settings.epochs}", figures)
    learned = learner.learned()
    progress(0.97, "scoring", "", {})
    scores = [classification(part.targets, _probabilities(learned, part, strategy.model.window)) for part in (train_part, validation, test)]
    majority = int(np.bincount(train_part.targets, minlength=len(CLASSES)).argmax())
    parts = [_part(bars, table, indices) for indices in (split.train, split.validation, split.test)]
    return Outcome(
        learned, scalings, features, (parts[0], parts[1], parts[2]), (scores[0], scores[1], scores[2]),
        baseline(test.targets, train_part.targets, len(CLASSES)), CLASSES[majority], learner.progress.made_by,
    )  # fmt: skip


def _probabilities(learned: Learned, part: Part, window: int) -> Array:
    matrix, positions = torch.from_numpy(part.matrix), torch.from_numpy(part.positions)
    found: Array = networks.probabilities(learned.network, matrix, positions, window).numpy()
    return found


def _samples(strategy: Strategy, bars: Bars, features: Features, first: int, last: int) -> Table:
    """Bars of the window with features and a label. No sample reads a row before the window, or before the indicators have values."""
    labelled: Labelled = label(bars.close, strategy.training.labels)
    bar = np.arange(len(bars.opens))
    base = max(first, features.warmup)
    usable = (bar >= base) & (labelled.ends < last) & (labelled.classes != UNKNOWN)
    chosen = np.flatnonzero(usable)
    return Table(features.values[base:last], base, chosen, labelled.classes[chosen], labelled.ends[chosen])


def _check(split: Split, table: Table, bars: Bars) -> None:
    for name, part in zip(("training", "validation", "test"), split, strict=True):
        if len(part.rows) < FEWEST:
            raise DataError(
                f"Too few bars: {len(table.bars)} of {bars.timeframe} have features and a label, which leaves {len(part.rows)} for the "
                f"{name} part ({part.purged} purged, {part.skipped} without a whole window); each part needs {FEWEST}."
            )
    if len(np.unique(table.classes[split.train.rows])) < 2:
        raise DataError(
            "All labels of the training part are the same: there is nothing to learn. Change training.labels.threshold or horizon."
        )


def _part(bars: Bars, table: Table, part: PartIndices) -> results.Part:
    chosen = table.bars[part.rows]
    return results.Part(
        samples=len(part.rows), purged=part.purged, skipped=part.skipped,
        first=stamp(bars.opens[chosen[0]]), last=stamp(bars.opens[chosen[-1]]),
        label_end=stamp(bars.opens[table.ends[part.rows].max()]),
        class_counts=np.bincount(table.classes[part.rows], minlength=len(CLASSES)).tolist(),
    )  # fmt: skip
