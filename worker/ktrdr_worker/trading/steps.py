"""One step of a training: the gradient of a batch, its clipping, and what the optimizer makes of it.

A network of tables is so small that autograd, and the optimizer's bookkeeping of every single tensor, take most of the time. So its
gradient is worked out here, by the operations that autograd would call, and all its parameters lie in one vector.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import torch
from torch import nn
from torch.nn import functional

from ktrdr_worker.trading.losses import Loss
from ktrdr_zmq.strategy.schema import Training

State = dict[int, dict[str, torch.Tensor]]
"""An optimizer's tensors by the number of the parameter, as torch's optimizers give and take them."""

OPTIMIZERS: Final[dict[str, Callable[..., torch.optim.Optimizer]]] = {
    "adam": functools.partial(torch.optim.Adam, fused=True),
    "adamw": functools.partial(torch.optim.AdamW, fused=True),
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9, fused=True),
}

_TINY: Final = 1e-6
"""Added to a norm that is divided by: as `torch.nn.utils.clip_grad_norm_` does."""


class Steps(Protocol):
    """Makes a network a little better with each batch."""

    def rate(self, rate: float) -> None:
        """Set the learning rate."""

    def step(self, rows: torch.Tensor, aims: torch.Tensor) -> None:
        """Learn from one batch: what `network.gather` returned, and what `Loss.aim` made of the targets."""

    def state(self) -> State:
        """The optimizer's, by the number of the network's parameter; empty before the first step."""

    def restore(self, state: State) -> None:
        """Go on from such a state."""


def steps(network: nn.Module, loss: Loss, settings: Training) -> Steps:
    """Make the steps of a network that lies on its device already."""
    return _Dense(network, loss, settings) if isinstance(network, nn.Sequential) else _Autograd(network, loss, settings)


def _optimizer(parameters: Iterator[nn.Parameter] | list[nn.Parameter], settings: Training) -> torch.optim.Optimizer:
    return OPTIMIZERS[settings.optimizer](parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _tensors(optimizer: torch.optim.Optimizer) -> State:
    entries = optimizer.state_dict()["state"].items()
    return {index: {name: value for name, value in entry.items() if isinstance(value, torch.Tensor)} for index, entry in entries}


class _Autograd:
    """Any network, by torch's own means."""

    def __init__(self, network: nn.Module, loss: Loss, settings: Training) -> None:
        self._network, self._loss, self._clip = network, loss, settings.gradient_clip
        self._parameters = list(network.parameters())
        self._optimizer = _optimizer(self._parameters, settings)

    def rate(self, rate: float) -> None:
        _set_rate(self._optimizer, rate)

    def step(self, rows: torch.Tensor, aims: torch.Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._loss.mean(self._network(rows), aims).backward()
        if self._clip > 0:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._optimizer.step()

    def state(self) -> State:
        return _tensors(self._optimizer)

    def restore(self, state: State) -> None:
        if len(state) != len(self._parameters):
            raise KeyError("the optimizer's state")
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})


class _Layer(Protocol):
    """A layer that remembers what it was given last."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """What it makes of that."""

    def backward(self, slope: torch.Tensor) -> torch.Tensor:
        """From the loss's derivative by what the layer made to that by what it was given."""


class _Linear:
    """Writes its parameters' derivatives where it is told to."""

    def __init__(self, module: nn.Linear, slopes: dict[nn.Parameter, torch.Tensor], first: bool) -> None:
        self._weight, self._bias, self._first = module.weight, module.bias, first
        self._weight_slope, self._bias_slope = slopes[module.weight], slopes[module.bias]
        self._given = torch.empty(0)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        self._given = given
        return functional.linear(given, self._weight, self._bias)

    def backward(self, slope: torch.Tensor) -> torch.Tensor:
        torch.mm(slope.t(), self._given, out=self._weight_slope)
        torch.sum(slope, 0, out=self._bias_slope)
        return slope if self._first else slope @ self._weight  # nobody asks for the derivative by the features


_SLOPES: Final[dict[type[nn.Module], Callable[..., torch.Tensor]]] = {
    nn.ReLU: lambda slope, _given, made: torch.ops.aten.threshold_backward(slope, made, 0),
    nn.Tanh: lambda slope, _given, made: torch.ops.aten.tanh_backward(slope, made),
    nn.GELU: lambda slope, given, _made: torch.ops.aten.gelu_backward(slope, given),
    nn.SiLU: lambda slope, given, _made: torch.ops.aten.silu_backward(slope, given),
}


class _Activation:
    def __init__(self, module: nn.Module) -> None:
        self._apply, self._slope = module.forward, _SLOPES[type(module)]
        self._given = self._made = torch.empty(0)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        self._given, self._made = given, self._apply(given)
        return self._made

    def backward(self, slope: torch.Tensor) -> torch.Tensor:
        return self._slope(slope, self._given, self._made)


class _Dropout:
    def __init__(self, module: nn.Dropout) -> None:
        self._share = 1.0 - module.p
        self._kept = torch.empty(0)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        self._kept = torch.empty_like(given).bernoulli_(self._share).div_(self._share)
        return given * self._kept

    def backward(self, slope: torch.Tensor) -> torch.Tensor:
        return slope * self._kept


class _Dense:
    """A chain of linear layers, activations and dropout: backpropagation by its formulas, all parameters in one vector.

    The network's own parameters become views of that vector, and are read as before.
    """

    def __init__(self, network: nn.Sequential, loss: Loss, settings: Training) -> None:
        self._loss, self._clip = loss, settings.gradient_clip
        own = list(network.parameters())
        self._shapes = [parameter.shape for parameter in own]
        self._all = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in own]))
        self._slope = self._all.grad = torch.zeros_like(self._all)
        slopes = dict(zip(own, self._split(self._slope), strict=True))
        for parameter, part in zip(own, self._split(self._all.detach()), strict=True):
            parameter.data = part
        self._layers = [self._layer(module, slopes, first=not index) for index, module in enumerate(network)]
        self._optimizer = _optimizer([self._all], settings)

    @staticmethod
    def _layer(module: nn.Module, slopes: dict[nn.Parameter, torch.Tensor], *, first: bool) -> _Layer:
        if isinstance(module, nn.Linear):
            return _Linear(module, slopes, first)
        return _Dropout(module) if isinstance(module, nn.Dropout) else _Activation(module)

    def rate(self, rate: float) -> None:
        _set_rate(self._optimizer, rate)

    @torch.no_grad()
    def step(self, rows: torch.Tensor, aims: torch.Tensor) -> None:
        outputs = rows
        for layer in self._layers:
            outputs = layer.forward(outputs)
        slope = self._loss.slope(outputs, aims)
        for layer in reversed(self._layers):
            slope = layer.backward(slope)
        if self._clip > 0:
            self._slope.mul_((self._clip / (torch.linalg.vector_norm(self._slope) + _TINY)).clamp_(max=1.0))
        self._optimizer.step()

    def _split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        parts = vector.split([shape.numel() for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def state(self) -> State:
        entry = _tensors(self._optimizer).get(0)
        if entry is None:
            return {}
        parts = {name: self._split(value) if value.shape == self._all.shape else None for name, value in entry.items()}
        return {index: {name: part[index] if part else entry[name] for name, part in parts.items()} for index in range(len(self._shapes))}

    def restore(self, state: State) -> None:
        if [state[index].keys() for index in range(len(state))] != [state[0].keys()] * len(self._shapes):
            raise KeyError("the optimizer's state")
        entry: dict[str, Any] = {}
        for name, value in state[0].items():
            whole = value.shape == self._shapes[0]
            entry[name] = torch.cat([state[index][name].flatten() for index in range(len(self._shapes))]) if whole else value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": {0: entry}})
