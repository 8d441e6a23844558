"""The network: a multi-layer perceptron on the features of one bar."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

from ktrdr_zmq.strategy.schema import CLASSES, Architecture

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


def build(features: int, architecture: Architecture) -> nn.Sequential:
    """Make a network with random weights, from torch's global generator.

    Parameters
    ----------
    features : int
        Columns of its input.
    architecture : Architecture

    Returns
    -------
    nn.Sequential
        Maps float32 of shape (rows, features) to one logit a class.
    """
    layers: list[nn.Module] = []
    width = features
    for neurons in architecture.hidden_layers:
        layers += [nn.Linear(width, neurons), ACTIVATIONS[architecture.activation]()]
        if architecture.dropout > 0:
            layers.append(nn.Dropout(architecture.dropout))
        width = neurons
    layers.append(nn.Linear(width, len(CLASSES)))
    return nn.Sequential(*layers)


@torch.inference_mode()
def probabilities(network: nn.Module, rows: Any, chunk: int = 1 << 17) -> torch.Tensor:
    """The probability of each class for each row, on the CPU as float64; many rows at a time, never one."""
    network.eval()
    parts = [torch.softmax(network(rows[start : start + chunk]).cpu().double(), dim=1) for start in range(0, len(rows), chunk)]
    return torch.cat(parts) if parts else torch.empty((0, len(CLASSES)), dtype=torch.float64)
