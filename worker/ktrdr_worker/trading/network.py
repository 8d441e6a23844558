"""The network, and the windows of bars that it reads. Everything is gathered where the matrix lies; nothing is done bar by bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import nn

from ktrdr_zmq.strategy.schema import Architecture, Model

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


RECURRENT: Final[dict[str, type[nn.Module]]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """Layers that carry a state from bar to bar; what the last one says at the last bar goes to the outputs.

    Each layer is a module of its own, because dropout inside torch's stacked ones draws from a state that no checkpoint can hold.
    """

    def __init__(self, kind: str, features: int, architecture: Architecture, outputs: int) -> None:
        super().__init__()
        size = architecture.hidden_size
        self.layers = nn.ModuleList(
            RECURRENT[kind](size if layer else features, size, batch_first=True) for layer in range(architecture.num_layers)
        )
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = nn.Linear(size, outputs)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Shape (n, window, features) to (n, outputs)."""
        for layer in self.layers:
            windows = self.dropout(layer(windows)[0])
        return self.head(windows[:, -1])


def build(features: int, model: Model, outputs: int) -> nn.Module:
    """Make a network with random weights, from torch's global generator.

    Parameters
    ----------
    features : int
        Columns of its input.
    model : Model
    outputs : int
        One for each class; 1 for a return.

    Returns
    -------
    nn.Module
        Maps what `gather` returns to float32 of shape (n, outputs): logits, or the return.
    """
    architecture = model.architecture
    if model.type != "mlp":
        return Recurrent(model.type, features, architecture, outputs)
    layers: list[nn.Module] = []
    width = features
    for neurons in architecture.hidden_layers:
        layers += [nn.Linear(width, neurons), ACTIVATIONS[architecture.activation]()]
        if architecture.dropout > 0:
            layers.append(nn.Dropout(architecture.dropout))
        width = neurons
    layers.append(nn.Linear(width, outputs))
    return nn.Sequential(*layers)


def rescale(network: nn.Module, offset: float, divisor: float) -> None:
    """Let a network with one output say ``offset + divisor * output`` instead, by its last layer."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(divisor)
        last.bias.mul_(divisor).add_(offset)


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
def predict(
    network: nn.Module, matrix: torch.Tensor, positions: torch.Tensor, window: int, tick: Callable[[float], None] = lambda _share: None
) -> torch.Tensor:
    """What the network says of each sample, on the CPU as float64; parameters as for `gather`, and there is at least one sample.

    ``tick`` gets the share that is done, 0 to 1, before each block of samples, and may raise to stop.

    Returns
    -------
    Tensor of float64
        Probabilities of shape (n, classes), or returns of shape (n,) from a network with one output.
    """
    network.eval()
    said = []
    for part in blocks(matrix, len(positions), window):
        tick(part.start / len(positions))
        said.append(network(gather(matrix, positions[part], window)).cpu().double())
    outputs = torch.cat(said)
    return outputs.squeeze(1) if outputs.shape[1] == 1 else torch.softmax(outputs, dim=1)
