"""Networks, losses, rates and the loop: each against a second way to say it, and each interrupted and gone on with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading.learning import Learned, Learner, Part, learn
from ktrdr_worker.trading.losses import Loss, balance
from ktrdr_worker.trading.schedule import learning_rate
from ktrdr_zmq.strategy.schema import Architecture, Model, Training

FEATURES, WINDOW = 4, 6

MODELS = {
    "mlp": Model(architecture=Architecture(hidden_layers=[5], dropout=0.2)),
    "lstm": Model(type="lstm", architecture=Architecture(hidden_size=5, num_layers=2, sequence_length=WINDOW, dropout=0.2)),
    "gru": Model(type="gru", architecture=Architecture(hidden_size=5, sequence_length=WINDOW, dropout=0.2)),
}


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


def samples(count: int = 90, seed: int = 1, *, returns: bool = False) -> Part:
    """Samples whose windows lie whole in the matrix, and which leave out a bar now and then."""
    chance = np.random.default_rng(seed + 100)
    positions = np.flatnonzero(chance.random(count) < 0.9)
    positions = positions[positions >= WINDOW]
    matrix = rows(count, seed)
    targets = matrix[positions, 0] * 0.01 + chance.normal(size=len(positions)) * 0.005
    classes = np.where(targets > 0.003, 2, np.where(targets < -0.006, 0, 1)).astype(np.int64)
    return Part(matrix, positions, targets.astype(np.float32) if returns else classes)


def state(network: nn.Module) -> list[float]:
    return [float(value) for tensor in network.state_dict().values() for value in tensor.flatten()]


# ---------------------------------------------------------------- windows and networks


def test_a_sample_reads_the_rows_up_to_its_own() -> None:
    matrix = torch.arange(20.0).view(10, 2)
    positions = torch.tensor([3, 9])
    assert networks.gather(matrix, positions, 1).tolist() == matrix[[3, 9]].tolist()
    assert networks.gather(matrix, positions, 3).tolist() == [matrix[1:4].tolist(), matrix[7:10].tolist()]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("outputs", [1, 3])
def test_what_a_network_says_does_not_depend_on_how_many_are_asked(kind: str, outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    model = MODELS[kind]
    network = networks.build(FEATURES, model, outputs)
    matrix, positions = torch.from_numpy(rows(60, 2)), torch.arange(WINDOW, 60)
    whole = networks.predict(network, matrix, positions, model.window)
    assert whole.shape == ((54,) if outputs == 1 else (54, 3))
    monkeypatch.setattr(networks, "CHUNK", 100)
    shares: list[float] = []
    torch.testing.assert_close(networks.predict(network, matrix, positions, model.window, shares.append), whole)
    assert len(shares) > 1
    assert shares == sorted(shares)
    if outputs == 3:
        torch.testing.assert_close(whole.sum(dim=1), torch.ones(54, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_recurrent_network_reads_its_window_and_nothing_else(kind: str) -> None:
    torch.manual_seed(1)
    network = networks.build(FEATURES, MODELS[kind], 3)
    matrix = torch.from_numpy(rows(40, 2))
    said = networks.predict(network, matrix, torch.tensor([20]), WINDOW)
    for row, matters in ((20 - WINDOW, False), (20 - WINDOW + 1, True), (20, True), (21, False)):
        other = matrix.clone()
        other[row] += 1.0
        assert torch.equal(networks.predict(network, other, torch.tensor([20]), WINDOW), said) != matters, row


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def test_recurrent_layers_by_their_formulas() -> None:
    """Hochreiter and Schmidhuber's gates as torch orders them (input, forget, cell, output), and Cho's (reset, update, new)."""
    window = rows(WINDOW, 3)
    for kind in ("lstm", "gru"):
        torch.manual_seed(2)
        network = networks.build(FEATURES, Model(type=kind, architecture=Architecture(hidden_size=5, sequence_length=WINDOW)), 3)  # type: ignore[arg-type]
        w = {name: value.numpy().astype(float) for name, value in network.state_dict().items()}
        hidden = cell = np.zeros(5)
        for row in window:
            seen = w["layers.0.weight_ih_l0"] @ row + w["layers.0.bias_ih_l0"]
            kept = w["layers.0.weight_hh_l0"] @ hidden + w["layers.0.bias_hh_l0"]
            if kind == "lstm":
                i, f, g, o = np.split(seen + kept, 4)
                cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                hidden = sigmoid(o) * np.tanh(cell)
            else:
                (r, z, n), (hr, hz, hn) = np.split(seen, 3), np.split(kept, 3)
                update = sigmoid(z + hz)
                hidden = (1 - update) * np.tanh(n + sigmoid(r + hr) * hn) + update * hidden
        expected = w["head.weight"] @ hidden + w["head.bias"]
        with torch.inference_mode():
            found = network.eval()(torch.from_numpy(window)[None])[0].numpy()
        assert found == pytest.approx(expected, abs=1e-5)


# ---------------------------------------------------------------- learning rates


def rates(losses: list[float], **settings: Any) -> list[float]:
    asked = Training(learning_rate=0.1, **settings)
    return [learning_rate(asked, losses[:epoch]) for epoch in range(len(losses))]


def by_torch(make: Any, losses: list[float]) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = make(optimizer)
    found = []
    for loss in losses:
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(*([loss] if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))
    return found


def test_rates_are_those_of_torchs_schedulers() -> None:
    kinds = torch.optim.lr_scheduler
    losses = [abs(x) for x in np.random.default_rng(5).normal(size=40)]
    assert rates(losses, scheduler="none") == [0.1] * 40
    cases = [
        (rates(losses, scheduler="cosine", epochs=40), lambda o: kinds.CosineAnnealingLR(o, 40)),
        (rates(losses, scheduler="step", scheduler_every=7, scheduler_factor=0.3), lambda o: kinds.StepLR(o, 7, 0.3)),
        (rates(losses, scheduler="exponential", scheduler_factor=0.9), lambda o: kinds.ExponentialLR(o, 0.9)),
        (
            rates(losses, scheduler="plateau", scheduler_factor=0.5, scheduler_patience=3),
            lambda o: kinds.ReduceLROnPlateau(o, factor=0.5, patience=2, threshold=0.0, eps=0.0),
        ),
    ]
    for found, make in cases:
        assert found == pytest.approx(by_torch(make, losses))
        assert len(set(found)) > 3


def test_a_warm_up_rises_evenly_to_what_the_rate_would_be() -> None:
    assert rates([1.0] * 6, warmup_epochs=3) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    plain = rates([1.0] * 6, scheduler="cosine", epochs=6)
    assert rates([1.0] * 6, scheduler="cosine", epochs=6, warmup_epochs=1) == pytest.approx([plain[0] / 2, *plain[1:]])


# ---------------------------------------------------------------- losses


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("kind,smoothing", [("cross_entropy", 0.0), ("cross_entropy", 0.2), ("focal", 0.0)])
def test_losses_of_classes_by_their_formulas(kind: str, smoothing: float, weights: str) -> None:
    chance = np.random.default_rng(1)
    classes = chance.choice(3, 50, p=[0.2, 0.5, 0.3])
    outputs = chance.normal(size=(50, 3)).astype(np.float32)
    loss = Loss(Training(loss=kind, label_smoothing=smoothing, class_weights=weights), classes, "cpu")  # type: ignore[arg-type]
    importance = balance(classes) if weights == "balanced" else np.ones(3)
    given = np.log(softmax(outputs.astype(float)))
    true = np.eye(3)[classes] * (1 - smoothing) + smoothing / 3
    focus = (1 - np.exp(given[np.arange(50), classes])) ** 2 if kind == "focal" else np.ones(50)
    each = -(true * given * importance).sum(axis=1) * focus
    expected = each.sum() / importance[classes].sum()
    aims = torch.from_numpy(classes)
    found = torch.from_numpy(outputs)
    assert float(loss.mean(found, loss.aim(aims))) == pytest.approx(expected, rel=1e-5)
    assert float(loss.sum(found, aims) / loss.weight(aims)) == pytest.approx(expected, rel=1e-5)
    assert int(loss.right(found, aims)) == int((outputs.argmax(axis=1) == classes).sum())


@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
def test_losses_of_returns_are_in_deviations_of_the_training_part(kind: str) -> None:
    chance = np.random.default_rng(1)
    returns = (chance.normal(size=50) * 0.01 + 0.002).astype(np.float32)
    outputs = chance.normal(size=(50, 1)).astype(np.float32) * 2
    loss = Loss(Training(loss=kind), returns, "cpu")  # type: ignore[arg-type]
    errors = np.abs(outputs[:, 0] - (returns - returns.mean()) / returns.std())
    each = {"mse": errors**2, "mae": errors, "huber": np.where(errors < 1, errors**2 / 2, errors - 0.5)}[kind]
    aims = loss.aim(torch.from_numpy(returns))
    assert float(loss.mean(torch.from_numpy(outputs), aims)) == pytest.approx(each.mean(), rel=1e-4)
    assert float(loss.sum(torch.from_numpy(outputs), aims)) == pytest.approx(each.sum(), rel=1e-4)
    said = outputs[:, 0] * returns.std() + returns.mean()
    assert int(loss.right(torch.from_numpy(outputs), aims)) == int(((said > 0) == (returns > 0)).sum())


@pytest.mark.parametrize("kind", MODELS)
def test_a_regression_ends_with_a_network_that_says_returns(kind: str) -> None:
    part, model = samples(400, returns=True), MODELS[kind]
    found = learn(part, samples(200, 2, returns=True), model, Training(epochs=25, learning_rate=0.02), "cpu", lambda *_: None)
    said = networks.predict(found.network, torch.from_numpy(part.matrix), torch.from_numpy(part.positions), model.window).numpy()
    assert np.corrcoef(said, part.targets)[0, 1] > 0.6
    assert ((said - part.targets) ** 2).mean() == pytest.approx(
        part.targets.var() * found.history.train_loss[found.best_epoch - 1], rel=1e-3
    )
    assert max(found.history.validation_accuracy) > 0.7


# ---------------------------------------------------------------- interrupted and gone on with

EVERY = [
    *((kind, optimizer, "none", "auto") for kind in MODELS for optimizer in ("adam", "adamw", "nadam", "radam", "rmsprop", "sgd")),
    *(("mlp", "adam", scheduler, "auto") for scheduler in ("cosine", "step", "exponential", "plateau")),
    *(("gru", "adamw", "plateau", loss) for loss in ("focal", "mse", "mae", "huber")),
]


@pytest.mark.parametrize("kind,optimizer,scheduler,loss", EVERY)
def test_a_training_that_is_killed_five_times_ends_with_the_same_weights(kind: str, optimizer: str, scheduler: str, loss: str) -> None:
    """Each time in a new learner, in a process whose random generators are anywhere; what came after the last checkpoint is lost."""
    settings = Training(
        epochs=9, batch_size=16, learning_rate=0.02, optimizer=optimizer, scheduler=scheduler, loss=loss, scheduler_patience=1,  # type: ignore[arg-type]
        scheduler_every=2, warmup_epochs=2, weight_decay=0.01, gradient_clip=0.5,
    )  # fmt: skip
    returns = loss in ("mse", "mae", "huber")
    parts = samples(returns=returns), samples(60, 2, returns=returns)

    def learner() -> Learner:
        return Learner(*parts, MODELS[kind], settings, "cpu", "job")

    whole = learner()
    while not whole.over:
        whole.step()
    expected = whole.learned()
    chance = np.random.default_rng(7)
    kept: bytes | None = None
    for attempt in range(6):
        torch.manual_seed(attempt)
        current = learner()
        assert kept is None or current.restore(kept)
        for _ in range(9 if attempt == 5 else int(chance.integers(1, 3))):
            if current.over:
                break
            current.step()
            kept = current.dump() if chance.random() < 0.7 else kept
    found = current.learned()
    assert state(found.network) == state(expected.network)
    assert found.history == expected.history
    assert len(set(expected.history.learning_rate)) > 1
    assert found.best_epoch == expected.best_epoch


@pytest.mark.parametrize("kind", MODELS)
def test_the_order_of_blocks_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many batches are gathered at a time."""

    def learned() -> Learned:
        return learn(samples(), samples(60, 2), MODELS[kind], Training(epochs=2, batch_size=16), "cpu", lambda *_: None)

    whole = learned()
    monkeypatch.setattr(networks, "CHUNK", 100)
    assert state(learned().network) == state(whole.network)
