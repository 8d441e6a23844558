"""The learning rate of each epoch. A function of the settings and of the losses so far, so that a checkpoint needs no state of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ktrdr_zmq.strategy.schema import Training


def learning_rate(settings: Training, losses: Sequence[float]) -> float:
    """The rate of the next epoch.

    Parameters
    ----------
    settings : Training
    losses : sequence of float
        Validation losses of the epochs that are done.
    """
    epoch = len(losses)
    warmup = min((epoch + 1) / (settings.warmup_epochs + 1), 1.0)
    return settings.learning_rate * warmup * _share(settings, epoch, losses)


def _share(settings: Training, epoch: int, losses: Sequence[float]) -> float:
    factor = settings.scheduler_factor
    match settings.scheduler:
        case "cosine":
            return (1.0 + math.cos(math.pi * epoch / settings.epochs)) / 2.0
        case "step":
            return float(factor ** (epoch // settings.scheduler_every))
        case "exponential":
            return float(factor**epoch)
        case "plateau":
            return float(factor ** _plateaus(losses, settings.scheduler_patience))
    return 1.0


def _plateaus(losses: Sequence[float], patience: int) -> int:
    """How often `patience` epochs in a row brought no loss below the lowest before them."""
    lowest, waited, found = math.inf, 0, 0
    for loss in losses:
        waited += 1
        if loss < lowest:
            lowest, waited = loss, 0
        if waited == patience:
            found, waited = found + 1, 0
    return found
