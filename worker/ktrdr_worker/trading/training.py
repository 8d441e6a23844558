"""A training from bars to a scored model: what the job ``training`` does, without the job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.features import Scaling, build, fit_scaling, scale
from ktrdr_worker.trading.learning import Learned, Learner, Part
from ktrdr_worker.trading.samples import Span, describe, gather, seen, split
from ktrdr_worker.trading.scores import Score, baseline, score
from ktrdr_zmq import results
from ktrdr_zmq.strategy.schema import CLASSES, Strategy


class Outcome(NamedTuple):
    """A trained network and how well it does; parts in the order train, validation, test, warm-ups in that of the symbols.

    `seen` are the moments from which and before which bars were learned from or looked at by a label, those of the test part apart.
    """

    learned: Learned
    scalings: list[Scaling]
    warmups: list[int]
    seen: tuple[int, int]
    parts: tuple[results.Part, results.Part, results.Part]
    scores: tuple[Score, Score, Score]
    baseline: Score
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
    strategy: Strategy, spans: Sequence[Span], device: str,
    progress: Callable[[float, str, str, dict[str, float]], None], checkpoints: Checkpoints | None = None,
) -> Outcome:  # fmt: skip
    """Train and score a model.

    Parameters
    ----------
    strategy : Strategy
    spans : sequence of Span
        The bars of each symbol; those before a span's first only feed the indicators.
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
    progress(0.02, "features", f"{sum(len(span.frames.bars.opens) for span in spans):,} bars", {})
    features = [build(strategy, span.frames) for span in spans]
    table = gather(strategy, spans, features)
    settings = strategy.training
    cut = split(strategy, table, spans)
    scalings = fit_scaling(strategy, table.values[table.positions[cut.train.rows]])
    matrix = scale(table.values, scalings)
    train_part, validation, test = (Part(matrix, table.positions[part.rows], table.targets[part.rows]) for part in cut)

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
    said = [_said(learned, part, strategy.model.window) for part in (train_part, validation, test)]
    scores = [score(part.targets, what, train_part.targets) for part, what in zip((train_part, validation, test), said, strict=True)]
    majority = "" if strategy.regression else CLASSES[int(np.bincount(train_part.targets, minlength=len(CLASSES)).argmax())]
    parts = [describe(table, indices, [span.frames.bars.symbol for span in spans]) for indices in cut]
    return Outcome(
        learned, scalings, [built.warmup for built in features], seen(table, cut), (parts[0], parts[1], parts[2]),
        (scores[0], scores[1], scores[2]), baseline(test.targets, train_part.targets), majority, learner.progress.made_by,
    )  # fmt: skip


def _said(learned: Learned, part: Part, window: int) -> Array:
    matrix, positions = torch.from_numpy(part.matrix), torch.from_numpy(part.positions)
    found: Array = networks.predict(learned.network, matrix, positions, window).numpy()
    return found
