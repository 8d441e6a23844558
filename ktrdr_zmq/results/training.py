"""What a training returns: the split, the course of the epochs, the scores, and the circumstances."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

from ktrdr_zmq.results.document import DataUsed, Document
from ktrdr_zmq.results.metrics import Score


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the chronological split.

    ``first`` and ``last`` are the opens of the first and last bar whose label was used, ``label_end`` that of the last bar any of
    those labels looks at. ``purged`` bars at the end of the part were left out, because their labels reach into the next part or
    its embargo; ``skipped`` ones at its beginning, because what the network reads for them would begin before the part.
    ``class_counts`` is in the order of ``classes``, and empty in a regression; ``by_symbol`` counts the samples of each symbol.
    """

    samples: int
    purged: int
    skipped: int
    first: str
    last: str
    label_end: str
    class_counts: list[int]
    by_symbol: dict[str, int]


class EpochHistory(msgspec.Struct, frozen=True, kw_only=True):
    """One value an epoch, as columns; ``epoch`` starts at 1. Losses are those of ``training.loss``.

    Accuracies are fractions: of samples in their class, or, in a regression, on the right side of 0.
    """

    epoch: list[int]
    train_loss: list[float]
    validation_loss: list[float]
    train_accuracy: list[float]
    validation_accuracy: list[float]
    learning_rate: list[float]


class TrainingResult(Document, frozen=True, kw_only=True):
    """What a training returns. The model itself is the artifact ``model`` with the digest ``model_digest``.

    ``timeframe`` is the one of ``timeframes`` that is decided on; ``data`` is in the order of ``symbols``.
    ``output_format`` is ``classification`` or ``regression``, and every score is of that kind. ``baseline`` scores, on the test part, the
    rule "always the most frequent class of the training part" (its log-loss uses the class frequencies of the training part), or "always
    the mean return of the training part"; ``majority_class`` is empty then. ``gap`` is balanced accuracy, or r2, on validation less that
    on test.
    ``conventions`` states in words and numbers how the figures came about. ``fingerprint`` names the software and processor: only
    where it and ``threads`` are equal are two runs of a job claimed to agree bit for bit, and to have the same ``digest`` (see
    ``outcome_digest``).
    """

    KIND: ClassVar[str] = "training"

    strategy_name: str
    symbols: list[str]
    timeframe: str
    timeframes: list[str]
    overrides: dict[str, Any]
    data: list[DataUsed]
    output_format: Literal["classification", "regression"]
    model_type: str
    sequence_length: int
    classes: list[str]
    feature_ids: list[str]
    train_part: Part
    validation_part: Part
    test_part: Part
    epochs_run: int
    best_epoch: int
    stopped_early: bool
    history: EpochHistory
    train: Score
    validation: Score
    test: Score
    baseline: Score
    majority_class: str
    gap: float | None
    parameters: int
    seed: int
    device: str
    threads: int
    duration_s: float
    model_digest: str
    config_digest: str
    fingerprint: dict[str, str]
    conventions: dict[str, Any]
    warnings: list[str]
    digest: str


def differing_circumstances(one: TrainingResult, other: TrainingResult) -> list[str]:
    """What of software, processor, device and threads differs between two trainings; only where nothing does is equality claimed."""
    names = sorted({*one.fingerprint, *other.fingerprint})
    found = [name for name in names if one.fingerprint.get(name) != other.fingerprint.get(name)]
    return found + (["threads"] if one.threads != other.threads else [])
