"""The network, and the windows of bars that it reads. Everything is gathered where the matrix lies; nothing is done bar by bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

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


CHUNK: Final = 1 << 22
"""Values that are gathered at a time, so that a long history needs no more memory than a short one."""


def gather(matrix: torch.Tensor, positions: torch.Tensor, window: int) -> torch.Tensor:
    """What the network reads for each sample.

    Parameters
    ----------
    matrix : Tensor of float32, shape (rows, features)
        Features of bars one after the other.
    positions : Tensor of int64, shape (n,)
        The last row of each sample's window; none is below ``window - 1``.
    window : int
        Rows that a sample reads.

    Returns
    -------
    Tensor of float32
        Shape (n, features) where the window is one row, else (n, window, features).
    """
    if window == 1:
        return matrix.index_select(0, positions)
    rows = positions[:, None] + torch.arange(1 - window, 1, device=positions.device)
    return matrix.index_select(0, rows.flatten()).view(len(positions), window, matrix.shape[1])


def blocks(matrix: torch.Tensor, count: int, window: int, whole: int = 1) -> Iterator[slice]:
    """Cut `count` samples into slices of no more than CHUNK values each, their lengths multiples of `whole`."""
    size = max(CHUNK // (window * matrix.shape[1]) // whole, 1) * whole
    return (slice(start, start + size) for start in range(0, count, size))


@torch.inference_mode()
def probabilities(
    network: nn.Module, matrix: torch.Tensor, positions: torch.Tensor, window: int, tick: Callable[[float], None] = lambda _share: None
) -> torch.Tensor:
    """The probability of each class for each sample, on the CPU as float64; parameters as for `gather`.

    ``tick`` gets the share that is done, 0 to 1, before each block of samples, and may raise to stop.
    """
    network.eval()
    parts = []
    for part in blocks(matrix, len(positions), window):
        tick(part.start / len(positions))
        parts.append(torch.softmax(network(gather(matrix, positions[part], window)).cpu().double(), dim=1))
    return torch.cat(parts) if parts else torch.empty((0, len(CLASSES)), dtype=torch.float64)
