"""The training loop: deterministic, on whatever device it is given, with the best epoch's weights at the end.

The whole table lies on the device; there is no data loader. Everything random follows from the seed. After each epoch the loop can be
written down, and gone on with elsewhere: a training that was interrupted ends with the same weights as one that was not.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import torch
from torch import nn

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading import tensors
from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.losses import Loss
from ktrdr_worker.trading.schedule import learning_rate
from ktrdr_worker.trading.steps import State, steps
from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.results import EpochHistory
from ktrdr_zmq.strategy.schema import CLASSES, Model, Training

SCHEMA = 1


class Part(NamedTuple):
    """Samples of one part. The parts of a training may share one matrix; it is brought to the device once.

    Attributes
    ----------
    matrix : array of float32, shape (rows, features)
        Scaled features of bars one after the other.
    positions : array of int64, shape (n,)
        Sample i reads ``matrix[positions[i] - window + 1 : positions[i] + 1]``, where the window is that of the model.
    targets : array of int64 or float32, shape (n,)
        Classes, or the returns of a regression.
    """

    matrix: Array
    positions: Array
    targets: Array


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
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which CUDA's matrix products are not, and torch refuses them
    torch.set_num_threads(max(threads, 1))
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


class Progress(msgspec.Struct, kw_only=True):
    """How far a training is, apart from its tensors: what a checkpoint says in words.

    ``job`` names what is trained (data, strategy, window): a checkpoint of anything else is not taken up. ``made_by`` names every kind of
    machine and release that had a part in it.
    """

    job: str
    history: EpochHistory
    made_by: list[str] = []
    best_epoch: int = 0
    best_loss: float = math.inf
    waited: int = 0


class Learner:
    """A training that can be interrupted after each epoch.

    Parameters
    ----------
    train, validation : Part
        Neither is empty.
    model : Model
        The shape of the network.
    settings : Training
    device : str
        ``cpu``, ``cuda:0`` or ``mps``.
    job : str
        A digest of everything that the outcome depends on.
    """

    def __init__(self, train: Part, validation: Part, model: Model, settings: Training, device: str, job: str = "") -> None:
        torch.manual_seed(settings.seed)
        self._order = torch.Generator().manual_seed(settings.seed)
        self._settings = settings
        self._device = device
        self._window = model.window
        self._loss = Loss(settings, train.targets, device)
        outputs = 1 if self._loss.regression else len(CLASSES)
        self._network = networks.build(train.matrix.shape[1], model, outputs).to(device)
        self._train, self._validation = (part._replace(aims=self._loss.aim(part.aims)) for part in _on(device, train, validation))
        self._steps = steps(self._network, self._loss, settings)
        self._best = copy.deepcopy(self._network.state_dict())
        history = EpochHistory(epoch=[], train_loss=[], validation_loss=[], train_accuracy=[], validation_accuracy=[], learning_rate=[])
        self.progress = Progress(job=job, history=history)

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return len(self.progress.history.epoch)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do."""
        stopping = self._settings.early_stopping
        return self.epoch >= self._settings.epochs or (stopping is not None and self.progress.waited >= stopping.patience)

    def step(self) -> tuple[float, float]:
        """Do one epoch; returns training and validation loss.

        Raises
        ------
        Diverged
            When a loss is no number any more.
        """
        epoch = self.epoch + 1
        rate = learning_rate(self._settings, self.progress.history.validation_loss)
        self._steps.rate(rate)
        order = torch.randperm(len(self._train.aims), generator=self._order).to(self._device)
        self._pass(order)
        losses = [_score(self._network, part, self._window, self._loss) for part in (self._train, self._validation)]
        _record(self.progress.history, epoch, losses, rate)
        self._judge(epoch, losses[1][0])
        return losses[0][0], losses[1][0]

    def _pass(self, order: torch.Tensor) -> None:
        """One epoch: every sample once, in the given order. A block of many batches is gathered at a time."""
        size, learn = self._settings.batch_size, self._steps.step
        self._network.train()
        for block in networks.blocks(self._train.matrix, len(order), self._window, size):
            chosen = order[block]
            inputs = networks.gather(self._train.matrix, self._train.positions[chosen], self._window)
            for rows, aims in zip(inputs.split(size), self._train.aims[chosen].split(size), strict=True):
                learn(rows, aims)

    def _judge(self, epoch: int, loss: float) -> None:
        """Keep the weights if they are the best so far."""
        stopping, progress = self._settings.early_stopping, self.progress
        if loss < progress.best_loss - (stopping.min_delta if stopping else 0.0):
            progress.best_loss, progress.best_epoch, progress.waited = loss, epoch, 0
            self._best = copy.deepcopy(self._network.state_dict())
        else:
            progress.waited += 1

    def learned(self) -> Learned:
        """What it came to."""
        self._network.load_state_dict(self._best)
        if self._loss.regression:
            networks.rescale(self._network, self._loss.offset, self._loss.divisor)
        return Learned(self._network.cpu().eval(), self.progress.history, self.progress.best_epoch, self.epoch < self._settings.epochs)

    # ------------------------------------------------------------ checkpoints

    def dump(self) -> bytes:
        """The whole state: weights, optimizer, random generators, the best so far."""
        state = {f"now.{name}": tensor for name, tensor in self._network.state_dict().items()}
        state |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for index, entries in self._steps.state().items():
            state |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
        state["random.order"], state["random.torch"] = self._order.get_state(), torch.get_rng_state()
        if self._device.startswith("cuda"):
            state["random.cuda"] = torch.cuda.get_rng_state()
        return tensors.dump(state, {"schema": SCHEMA, "kind": "checkpoint", **msgspec.to_builtins(self.progress)})

    def restore(self, octets: bytes) -> bool:
        """Go on from a checkpoint; False, and nothing is changed, if it is of another job.

        Raises
        ------
        NewerSchema
            When a newer release wrote it.
        UsageError
            When it is damaged.
        """
        plain, state = tensors.load(octets, "checkpoint", SCHEMA)
        try:
            progress = msgspec.convert(plain, Progress)
            if progress.job != self.progress.job:
                return False
            self._take(state)
        except (KeyError, RuntimeError, ValueError, msgspec.ValidationError) as error:
            raise tensors.FileError(f"The checkpoint is not complete: {str(error).partition(chr(10))[0]}") from None
        progress.made_by = list(dict.fromkeys([*progress.made_by, *self.progress.made_by]))
        self.progress = progress
        return True

    def _take(self, state: dict[str, torch.Tensor]) -> None:
        """Put tensors where they were."""
        self._network.load_state_dict(_part(state, "now."))
        self._best = {name: state[f"best.{name}"].to(self._device) for name in self._network.state_dict()}
        self._steps.restore(_optimizer_state(state))
        self._order.set_state(state["random.order"])
        torch.set_rng_state(state["random.torch"])
        if self._device.startswith("cuda"):
            torch.cuda.set_rng_state(state["random.cuda"])


def _part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _optimizer_state(state: dict[str, torch.Tensor]) -> State:
    """The optimizer's tensors by parameter, as torch wants them."""
    entries: State = {}
    for name, tensor in _part(state, "optimizer.").items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = tensor
    return entries


def learn(train: Part, validation: Part, model: Model, settings: Training, device: str, on_epoch: OnEpoch) -> Learned:
    """Train a network from beginning to end; parameters as for `Learner`."""
    learner = Learner(train, validation, model, settings, device)
    while not learner.over:
        losses = learner.step()
        on_epoch(learner.epoch, *losses)
    return learner.learned()


class _Samples(NamedTuple):
    """A part, on the device."""

    matrix: torch.Tensor
    positions: torch.Tensor
    aims: torch.Tensor


def _on(device: str, *parts: Part) -> list[_Samples]:
    matrices = {id(part.matrix): torch.from_numpy(part.matrix).to(device) for part in parts}
    return [
        _Samples(matrices[id(part.matrix)], torch.from_numpy(part.positions).to(device), torch.from_numpy(part.targets).to(device))
        for part in parts
    ]


@torch.inference_mode()
def _score(network: nn.Module, part: _Samples, window: int, loss: Loss) -> tuple[float, float]:
    """Loss of a whole part, without dropout, and the share of samples that are right: in class, or in the direction of the return."""
    network.eval()
    total = right = torch.zeros((), dtype=torch.float32, device=part.matrix.device)
    for block in networks.blocks(part.matrix, len(part.aims), window):
        outputs, aims = network(networks.gather(part.matrix, part.positions[block], window)), part.aims[block]
        total = total + loss.sum(outputs, aims)
        right = right + loss.right(outputs, aims)
    return float(total / loss.weight(part.aims)), float(right) / len(part.aims)


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
