"""How well classes were predicted. Formulas over arrays; the names and rules are those of `ktrdr_zmq.results`."""

from __future__ import annotations

import numpy as np

from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.results import ClassificationMetrics

SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)


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


def baseline(true: Array, train: Array, classes: int) -> ClassificationMetrics:
    """Score the rule that always says the most frequent class of the training part.

    For the log-loss it gives each class its frequency in the training part.

    Parameters
    ----------
    true, train : array of int
        True classes of the part to score, and of the training part.
    classes : int
        Number of classes.
    """
    frequencies = np.bincount(train, minlength=classes) / len(train)
    return classification(true, np.tile(frequencies, (len(true), 1)))
