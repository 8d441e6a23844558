"""The training loop: deterministic, on whatever device it is given, with the best epoch's weights at the end.

The whole table lies on the device; there is no data loader. Everything random follows from the seed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.results import EpochHistory
from ktrdr_zmq.strategy.schema import CLASSES, Model, Training


class Part(NamedTuple):
    """Samples: scaled features, float32 of shape (n, features), and classes, int64 of shape (n,)."""

    rows: Array
    classes: Array


class Learned(NamedTuple):
    """What a training came to; the network is on the CPU, with the weights of the best epoch."""

    network: nn.Module
    history: EpochHistory
    best_epoch: int
    stopped_early: bool


OnEpoch = Callable[[int, float, float], None]
"""Told after each epoch: its number, training and validation loss. May raise to stop everything."""


def prepare(threads: int) -> None:
    """Make torch deterministic, with so many threads. Once a process, before anything is computed."""
    torch.set_num_threads(max(threads, 1))
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def learn(train: Part, validation: Part, model: Model, settings: Training, device: str, on_epoch: OnEpoch) -> Learned:
    """Train a network.

    Parameters
    ----------
    train, validation : Part
        Neither is empty.
    model : Model
        The shape of the network.
    settings : Training
    device : str
        ``cpu``, ``cuda:0`` or ``mps``.
    on_epoch : callable
        See `OnEpoch`.
    """
    torch.manual_seed(settings.seed)
    order = torch.Generator().manual_seed(settings.seed)
    network = networks.build(train.rows.shape[1], model.architecture).to(device)
    rows, classes = _on(device, train)
    later_rows, later_classes = _on(device, validation)
    criterion = nn.CrossEntropyLoss(weight=_class_weights(train.classes, settings, device))
    optimizer = _optimizer(network, settings)
    history = EpochHistory(epoch=[], train_loss=[], validation_loss=[], train_accuracy=[], validation_accuracy=[], learning_rate=[])
    best_loss, best_epoch, best_state = math.inf, 0, copy.deepcopy(network.state_dict())
    waited = 0
    for epoch in range(1, settings.epochs + 1):
        rate = _learning_rate(settings, epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        _pass(network, rows, classes, criterion, optimizer, settings, torch.randperm(len(rows), generator=order).to(device))
        losses = [_score(network, *part, criterion) for part in ((rows, classes), (later_rows, later_classes))]
        _record(history, epoch, losses, rate)
        on_epoch(epoch, losses[0][0], losses[1][0])
        stopping = settings.early_stopping
        if losses[1][0] < best_loss - (stopping.min_delta if stopping else 0.0):
            best_loss, best_epoch, waited = losses[1][0], epoch, 0
            best_state = copy.deepcopy(network.state_dict())
        else:
            waited += 1
            if stopping and waited >= stopping.patience:
                break
    network.load_state_dict(best_state)
    return Learned(network.cpu().eval(), history, best_epoch, len(history.epoch) < settings.epochs)


def _on(device: str, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(part.rows).to(device), torch.from_numpy(part.classes).to(device)


def _pass(
    network: nn.Module, rows: torch.Tensor, classes: torch.Tensor, criterion: nn.Module, optimizer: torch.optim.Optimizer,
    settings: Training, order: torch.Tensor,
) -> None:  # fmt: skip
    """One epoch: every sample once, in the given order."""
    network.train()
    for start in range(0, len(order), settings.batch_size):
        batch = order[start : start + settings.batch_size]
        optimizer.zero_grad(set_to_none=True)
        criterion(network(rows[batch]), classes[batch]).backward()
        if settings.gradient_clip > 0:
            nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
        optimizer.step()


@torch.inference_mode()
def _score(network: nn.Module, rows: torch.Tensor, classes: torch.Tensor, criterion: nn.Module) -> tuple[float, float]:
    """Loss and accuracy of a whole part, without dropout."""
    network.eval()
    logits = network(rows)
    accuracy = (logits.argmax(dim=1) == classes).double().mean()
    return float(criterion(logits, classes)), float(accuracy)


def _record(history: EpochHistory, epoch: int, losses: list[tuple[float, float]], rate: float) -> None:
    (train_loss, train_accuracy), (validation_loss, validation_accuracy) = losses
    for loss in (train_loss, validation_loss):
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss was no number any more in epoch {epoch}.",
                hint="Try a smaller training.learning_rate, or training.gradient_clip.",
            )
    history.epoch.append(epoch)
    history.train_loss.append(train_loss)
    history.validation_loss.append(validation_loss)
    history.train_accuracy.append(train_accuracy)
    history.validation_accuracy.append(validation_accuracy)
    history.learning_rate.append(rate)


class Diverged(UsageError):
    """The loss is no number any more."""

    code = "DIVERGED"


def _class_weights(classes: Array, settings: Training, device: str) -> torch.Tensor | None:
    """Weights that let every class count the same; a class that does not occur has weight 0."""
    if settings.class_weights == "none":
        return None
    counts = np.bincount(classes, minlength=len(CLASSES)).astype(np.float64)
    occurring = counts > 0
    weights = np.zeros(len(CLASSES))
    weights[occurring] = counts.sum() / (occurring.sum() * counts[occurring])
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _optimizer(network: nn.Module, settings: Training) -> torch.optim.Optimizer:
    parameters, rate, decay = network.parameters(), settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9)


def _learning_rate(settings: Training, epoch: int) -> float:
    if settings.scheduler == "cosine":
        return settings.learning_rate * (1.0 + math.cos(math.pi * (epoch - 1) / settings.epochs)) / 2.0
    return settings.learning_rate
