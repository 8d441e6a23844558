"""What a training makes small, of classes or of returns: a mean over samples, each with its weight."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch.nn import functional

from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.strategy.schema import CLASSES, Training

FOCUS: Final = 2.0
"""The focal loss's gamma: Lin et al., Focal Loss for Dense Object Detection, 2017."""


class Loss:
    """A loss of settings.

    Parameters
    ----------
    settings : Training
    targets : array, shape (n,)
        Of the training part: int64 for classes, float32 for returns.
    device : str

    Attributes
    ----------
    regression : bool
        Whether targets are returns. Losses are then in units of their mean and standard deviation in the training part: the network's
        own output is ``(return - offset) / divisor``.
    offset, divisor : float
    """

    def __init__(self, settings: Training, targets: Array, device: str) -> None:
        self.regression = targets.dtype.kind == "f"
        self.offset, self.divisor = (float(targets.mean()), float(targets.std())) if self.regression else (0.0, 1.0)
        self._kind = settings.loss if settings.loss != "auto" else ("mse" if self.regression else "cross_entropy")
        self._smoothing = settings.label_smoothing
        balanced = settings.class_weights == "balanced" and not self.regression
        self._weight = torch.tensor(balance(targets), dtype=torch.float32, device=device) if balanced else None
        self._shares = torch.eye(len(CLASSES), device=device) * (1.0 - self._smoothing) + self._smoothing / len(CLASSES)
        if self._weight is not None:
            self._shares = self._shares * self._weight
        self._total = self._shares.sum(dim=1, keepdim=True)

    def aim(self, targets: torch.Tensor) -> torch.Tensor:
        """Targets in the unit of the network's output."""
        return (targets - self.offset) / self.divisor if self.regression else targets

    def weight(self, aims: torch.Tensor) -> torch.Tensor | int:
        """The sum of the samples' weights."""
        return len(aims) if self._weight is None else self._weight[aims].sum()

    def mean(self, outputs: torch.Tensor, aims: torch.Tensor) -> torch.Tensor:
        """The loss of some samples."""
        if self._kind == "focal":
            return self._focal(outputs, aims) / self.weight(aims)
        return self._plain(outputs, aims, "mean")

    def sum(self, outputs: torch.Tensor, aims: torch.Tensor) -> torch.Tensor:
        """The loss of some samples times their `weight`."""
        return self._focal(outputs, aims) if self._kind == "focal" else self._plain(outputs, aims, "sum")

    def slope(self, outputs: torch.Tensor, aims: torch.Tensor) -> torch.Tensor:
        """The derivative of `mean` by each output, in closed form: autograd takes ten times as long for a batch as small as ours.

        Returns
        -------
        Tensor of float32, shape (n, outputs)
        """
        if self.regression:
            distance = outputs - aims[:, None]
            match self._kind:
                case "mse":
                    distance = distance.mul_(2.0)
                case "mae":
                    distance = distance.sign_()
                case "huber":
                    distance = distance.clamp_(-1.0, 1.0)
            return distance.div_(len(aims))
        probabilities = torch.softmax(outputs, dim=1)
        if self._kind == "focal":
            given = torch.log_softmax(outputs, dim=1).gather(1, aims[:, None])  # finite where the probability itself is rounded to 0
            own = given.exp()
            factor = (1.0 - own) ** FOCUS - FOCUS * own * (1.0 - own) ** (FOCUS - 1.0) * given
            share = torch.eye(len(CLASSES), device=outputs.device)[aims]
            slope = (probabilities - share) * (factor if self._weight is None else factor * self._weight[aims, None])
        else:
            slope = probabilities.mul_(self._total.index_select(0, aims)).sub_(self._shares.index_select(0, aims))
        return slope.div_(self.weight(aims))

    def right(self, outputs: torch.Tensor, aims: torch.Tensor) -> torch.Tensor:
        """How many samples are right: in their class, or in whether the return is above 0."""
        if not self.regression:
            return (outputs.argmax(dim=1) == aims).sum()
        zero = -self.offset / self.divisor
        return ((outputs.squeeze(1) > zero) == (aims > zero)).sum()

    def _plain(self, outputs: torch.Tensor, aims: torch.Tensor, reduction: str) -> torch.Tensor:
        match self._kind:
            case "mse":
                return functional.mse_loss(outputs.squeeze(1), aims, reduction=reduction)
            case "mae":
                return functional.l1_loss(outputs.squeeze(1), aims, reduction=reduction)
            case "huber":
                return functional.huber_loss(outputs.squeeze(1), aims, reduction=reduction)
        return functional.cross_entropy(outputs, aims, self._weight, reduction=reduction, label_smoothing=self._smoothing)

    def _focal(self, outputs: torch.Tensor, aims: torch.Tensor) -> torch.Tensor:
        given = torch.log_softmax(outputs, dim=1).gather(1, aims[:, None]).squeeze(1)
        losses = -((1.0 - given.exp()) ** FOCUS) * given
        return losses.sum() if self._weight is None else (losses * self._weight[aims]).sum()


def balance(classes: Array) -> Array:
    """Weights that let every class count the same; one that does not occur has weight 1."""
    counts = np.bincount(classes, minlength=len(CLASSES)).astype(np.float64)
    occurring = counts > 0
    weights = np.ones(len(CLASSES))
    weights[occurring] = counts.sum() / (occurring.sum() * counts[occurring])
    return weights
