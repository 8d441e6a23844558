"""How well classes, or returns, were predicted. Formulas over arrays; the names and rules are those of `ktrdr_zmq.results`."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.results import ClassificationMetrics, RegressionMetrics
from ktrdr_zmq.strategy.schema import CLASSES

SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)


Score: TypeAlias = ClassificationMetrics | RegressionMetrics


def score(true: Array, said: Array, train: Array) -> Score:
    """Score what a network says.

    Parameters
    ----------
    true : array of int or float, shape (n,)
        Classes or returns.
    said : array of float
        Probabilities of shape (n, k), or returns of shape (n,).
    train : array
        What was true in the training part.
    """
    return regression(true, said, float(train.mean(dtype=np.float64))) if true.dtype.kind == "f" else classification(true, said)


def baseline(true: Array, train: Array) -> Score:
    """Score the rule that knows nothing: always the most frequent class of the training part, or always its mean return.

    The log-loss is that of giving each class its frequency in the training part.
    """
    if true.dtype.kind == "f":
        mean = float(train.mean(dtype=np.float64))
        return regression(true, np.full(len(true), mean), mean)
    frequencies = np.bincount(train, minlength=len(CLASSES)) / len(train)
    return classification(true, np.tile(frequencies, (len(true), 1)))


def classification(true: Array, probabilities: Array) -> ClassificationMetrics:
    """Score predicted probabilities against true classes.

    Parameters
    ----------
    true : array of int, shape (n,)
        True classes, 0 to k - 1; n is at least 1.
    probabilities : array of float, shape (n, k)
        Rows with the sum 1. The most probable class is the predicted one, the first of equals.
    """
    classes = probabilities.shape[1]
    if len(true) == 0 or len(true) != len(probabilities):
        raise ValueError("as many true classes as rows of probabilities are needed, and at least one")
    predicted = probabilities.argmax(axis=1)
    confusion = np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    given = probabilities[np.arange(len(true)), true].astype(np.float64)
    return ClassificationMetrics(
        samples=len(true),
        accuracy=float(np.trace(confusion) / len(true)),
        balanced_accuracy=balanced_accuracy(confusion),
        macro_f1=macro_f1(confusion),
        mcc=matthews(confusion),
        log_loss=float(-np.log(np.clip(given, SMALLEST_PROBABILITY, 1.0)).mean()),
        confusion=confusion.tolist(),
    )


def balanced_accuracy(confusion: Array) -> float:
    """Mean recall of the classes that occur."""
    occurs = confusion.sum(axis=1) > 0
    return float((np.diag(confusion)[occurs] / confusion.sum(axis=1)[occurs]).mean())


def macro_f1(confusion: Array) -> float:
    """Mean F1 of the classes that occur or were predicted."""
    either = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float((2.0 * np.diag(confusion)[either > 0] / either[either > 0]).mean())


def matthews(confusion: Array) -> float | None:
    """Matthews correlation coefficient for several classes: Gorodkin, Comput. Biol. Chem. 28 (2004) 367."""
    matrix: Array = confusion.astype(np.float64)
    true, predicted, total = matrix.sum(axis=1), matrix.sum(axis=0), matrix.sum()
    spread = (total**2 - true @ true) * (total**2 - predicted @ predicted)
    if spread <= 0:
        return None
    return float((np.trace(matrix) * total - true @ predicted) / np.sqrt(spread))


def regression(true: Array, predicted: Array, mean: float) -> RegressionMetrics:
    """Score predicted returns against true ones.

    Parameters
    ----------
    true, predicted : array of float, shape (n,)
        As fractions; n is at least 1.
    mean : float
        The mean return of the training part: what `r2` is measured against.
    """
    if len(true) == 0 or len(true) != len(predicted):
        raise ValueError("as many true returns as predicted ones are needed, and at least one")
    true, predicted = true.astype(np.float64), predicted.astype(np.float64)
    errors = predicted - true
    spread = float(((true - mean) ** 2).sum())
    moved = true != 0.0
    return RegressionMetrics(
        samples=len(true),
        mse=float((errors**2).mean()),
        mae=float(np.abs(errors).mean()),
        r2=1.0 - float((errors**2).sum()) / spread if spread > 0.0 else None,
        ic=correlation(true, predicted),
        rank_ic=correlation(ranks(true), ranks(predicted)),
        directional_accuracy=float((np.sign(predicted[moved]) == np.sign(true[moved])).mean()) if moved.any() else None,
    )


def correlation(one: Array, other: Array) -> float | None:
    """Pearson's coefficient; None where either does not vary."""
    if one.min() == one.max() or other.min() == other.max():
        return None
    first, second = one - one.mean(), other - other.mean()
    size = np.sqrt((first @ first) * (second @ second))
    return float(np.clip(first @ second / size, -1.0, 1.0)) if size > 0.0 else None


def ranks(values: Array) -> Array:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: Array = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]
