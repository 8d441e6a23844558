"""The gradient that is worked out by hand is autograd's; what lies in one vector steps as many tensors do."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading.losses import Loss
from ktrdr_worker.trading.steps import OPTIMIZERS, _Autograd, _Dense, steps
from ktrdr_zmq.strategy.schema import Architecture, Model, Training

FEATURES = 4
CLASSES_AND_RETURNS = ["cross_entropy", "focal", "mse", "mae", "huber"]


def batch(kind: str, count: int = 23, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Features, aims and targets of some samples."""
    chance = np.random.default_rng(seed)
    rows = torch.from_numpy(chance.normal(size=(count, FEATURES)).astype(np.float32))
    if kind in ("mse", "mae", "huber"):
        targets = chance.normal(size=count).astype(np.float32)
        return rows, torch.from_numpy(targets * 2), targets
    classes = chance.choice(3, count, p=[0.2, 0.5, 0.3])
    return rows, torch.from_numpy(classes), classes


def network(kind: str, seed: int = 3, **architecture: Any) -> nn.Module:
    torch.manual_seed(seed)
    model = Model(architecture=Architecture(**{"hidden_layers": [6, 5], **architecture}))
    return networks.build(FEATURES, model, 1 if kind in ("mse", "mae", "huber") else 3)


@pytest.mark.parametrize("kind", CLASSES_AND_RETURNS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced"])
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), scale=st.sampled_from([0.1, 1.0, 8.0]))
@settings(max_examples=15, deadline=None)
def test_the_slope_of_a_loss_is_its_derivative(kind: str, smoothing: float, weights: str, seed: int, count: int, scale: float) -> None:
    _, aims, targets = batch(kind, count, seed)
    smoothing = smoothing if kind == "cross_entropy" else 0.0
    loss = Loss(Training(loss=kind, label_smoothing=smoothing, class_weights=weights), targets, "cpu")
    outputs = torch.randn(count, 1 if loss.regression else 3, generator=torch.Generator().manual_seed(seed)) * scale
    asked = outputs.clone().requires_grad_()
    loss.mean(asked, aims).backward()
    torch.testing.assert_close(loss.slope(outputs.clone(), aims), asked.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_a_network_that_is_certain_and_wrong_still_has_a_slope(kind: str) -> None:
    """The probability of the true class is 0 in float32, its logarithm is not."""
    outputs = torch.tensor([[0.0, 150.0, 0.0], [150.0, 0.0, -150.0]])
    aims = torch.tensor([0, 2])
    loss = Loss(Training(loss=kind), aims.numpy(), "cpu")
    asked = outputs.clone().requires_grad_()
    loss.mean(asked, aims).backward()
    assert torch.isfinite(asked.grad).all()
    torch.testing.assert_close(loss.slope(outputs, aims), asked.grad)


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
@pytest.mark.parametrize("kind", CLASSES_AND_RETURNS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_backpropagation_is_autograds(activation: str, kind: str, dropout: float) -> None:
    """One step of plain descent shows the gradient itself."""
    rows, aims, targets = batch(kind)
    wanted = Training(loss=kind, optimizer="sgd", learning_rate=1.0, gradient_clip=0.0)
    ends = []
    for make in (_Autograd, _Dense):
        learner = network(kind, activation=activation, dropout=dropout).train()
        torch.manual_seed(11)  # the same values are dropped by both
        make(learner, Loss(wanted, targets, "cpu"), wanted).step(rows, aims)
        ends.append(learner.state_dict())
    start = network(kind, activation=activation, dropout=dropout).state_dict()
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, atol=1e-6, rtol=1e-5)
        assert not torch.equal(start[name], value), "a gradient of nothing would be equal too"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_one_vector_steps_as_many_tensors_do(optimizer: str, clip: float) -> None:
    wanted = Training(optimizer=optimizer, gradient_clip=clip, weight_decay=0.01, learning_rate=0.01)
    ends = []
    for make in (_Autograd, _Dense):
        learner = network("cross_entropy")
        taken = make(learner, Loss(wanted, batch("cross_entropy")[2], "cpu"), wanted)
        for seed in range(12):
            taken.rate(0.01 / (seed + 1))
            taken.step(*batch("cross_entropy", seed=seed)[:2])
        ends.append(learner.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("first", [_Autograd, _Dense])
def test_a_state_is_the_same_whoever_wrote_it(optimizer: str, first: type) -> None:
    """So that a checkpoint of a release that stepped tensor by tensor can be gone on with."""
    wanted = Training(optimizer=optimizer, weight_decay=0.01)
    loss = Loss(wanted, batch("cross_entropy")[2], "cpu")
    begun = network("cross_entropy")
    one = first(begun, loss, wanted)
    assert one.state() == {}
    for seed in range(3):
        one.step(*batch("cross_entropy", seed=seed)[:2])
    gone_on = network("cross_entropy")
    gone_on.load_state_dict(begun.state_dict())
    other = _Dense(gone_on, loss, wanted)
    other.restore(copy.deepcopy(one.state()))
    for learner in (one, other):
        learner.step(*batch("cross_entropy", seed=9)[:2])
    for before, after in zip(begun.parameters(), gone_on.parameters(), strict=True):
        torch.testing.assert_close(before, after, atol=1e-6, rtol=1e-5)
    assert {index: {name: value.shape for name, value in entry.items()} for index, entry in one.state().items()} == {
        index: {name: value.shape for name, value in entry.items()} for index, entry in other.state().items()
    }


@pytest.mark.parametrize("make", [_Autograd, _Dense])
def test_a_state_of_another_network_is_refused(make: type) -> None:
    wanted = Training()
    loss = Loss(wanted, batch("cross_entropy")[2], "cpu")
    one = make(network("cross_entropy"), loss, wanted)
    one.step(*batch("cross_entropy")[:2])
    less = one.state()
    less.pop(max(less))
    with pytest.raises(KeyError):
        one.restore(less)


def test_a_network_of_tables_is_the_one_that_is_worked_out_by_hand() -> None:
    wanted = Training()
    loss = Loss(wanted, batch("cross_entropy")[2], "cpu")
    assert isinstance(steps(network("cross_entropy"), loss, wanted), _Dense)
    recurrent = networks.build(FEATURES, Model(type="gru", architecture=Architecture(sequence_length=3)), 3)
    assert isinstance(steps(recurrent, loss, wanted), _Autograd)


def test_a_gradient_is_clipped_to_its_length() -> None:
    wanted = Training(optimizer="sgd", learning_rate=1.0, gradient_clip=0.01)
    learner = network("mse")
    start = torch.cat([value.flatten() for value in learner.state_dict().values()])
    rows, aims, targets = batch("mse")
    steps(learner, Loss(wanted, targets, "cpu"), wanted).step(rows, aims)
    moved = torch.cat([value.flatten() for value in learner.state_dict().values()]) - start
    assert float(torch.linalg.vector_norm(moved)) == pytest.approx(0.01, rel=1e-3)
