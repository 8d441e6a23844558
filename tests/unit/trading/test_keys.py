"""Every key of a strategy has its effect, nothing is learned from what lies ahead, and the jobs trade exactly what was decided.

What a job returns is computed once more here, from rules and not from its code, and compared.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import nn

from ktrdr_worker.jobs.backtesting import handler as backtesting
from ktrdr_worker.jobs.training import handler as training
from ktrdr_worker.trading import bundle
from ktrdr_worker.trading.backtest import Rules
from ktrdr_worker.trading.bars import Bars, load, stamp
from ktrdr_worker.trading.decisions import decide
from ktrdr_worker.trading.features import build
from ktrdr_worker.trading.inference import predict
from ktrdr_worker.trading.learning import Learned, Part, learn
from ktrdr_worker.trading.training import Outcome, train
from ktrdr_zmq.results import BacktestResult, TrainingResult
from ktrdr_zmq.samples import find_sample
from ktrdr_zmq.strategy import Strategy, find_strategy, parse_strategy
from ktrdr_zmq.strategy.schema import Architecture, Decisions, EarlyStopping, Model, Risk, Training
from tests.unit.trading.made import alone, apart, span, walk
from tests.unit.trading.test_jobs import Context, body, test_body
from tests.unit.trading.twin import trade

pytestmark = pytest.mark.timeout(120)

SAMPLE = find_sample("EURUSD", "1h")
assert SAMPLE is not None
SMALL = {"training.epochs": 2, "model.architecture.hidden_layers": [8]}
HORIZON, WINDOW = 24, 24
"""Of the strategy's labels, as its file says."""


def strategy_with(overrides: dict[str, Any]) -> Strategy:
    return parse_strategy(*find_strategy("neuro_mean_reversion"), {**SMALL, **overrides})


def trained_with(overrides: dict[str, Any], bars: Bars | None = None, first: int = 0, last: int | None = None) -> Outcome:
    bars = walk(600, seed=3) if bars is None else bars
    return train(strategy_with(overrides), [span(bars, first, last)], "cpu", lambda *_: None)


def weights(learned: Learned) -> list[float]:
    return [float(value) for tensor in learned.network.state_dict().values() for value in tensor.flatten()]


# ---------------------------------------------------------------- keys of the training

RECURRENT = {"model": {"type": "gru", "architecture": {"hidden_size": 4, "sequence_length": 8}}}
REGRESSION = {"decisions": {"output_format": "regression"}, "training": {"epochs": 2, "labels": {"horizon": 6}}}
BARRIERS = {"training.labels": {"source": "triple_barrier", "horizon": 12, "threshold": 1.0}}
RESTLESS = {"training": {"epochs": 40, "learning_rate": 0.3, "optimizer": "sgd", "batch_size": 16}}
"""The validation loss goes up and down for a while."""
LONGER = {"training.epochs": 5, "training.learning_rate": 0.0005}

TRAINING_KEYS: list[tuple[str, Any, Any, dict[str, Any]]] = [
    ("model.architecture.hidden_layers", [8], [8, 8], {}),
    ("model.architecture.activation", "relu", "tanh", {}),
    ("model.architecture.activation", "relu", "gelu", {}),
    ("model.architecture.activation", "gelu", "silu", {}),
    ("model.architecture.dropout", 0.0, 0.5, {}),
    ("model.architecture.dropout", 0.0, 0.5, RECURRENT),
    ("model.type", "gru", "lstm", RECURRENT),
    ("model.architecture.hidden_size", 4, 5, RECURRENT),
    ("model.architecture.num_layers", 1, 2, RECURRENT),
    ("model.architecture.sequence_length", 8, 9, RECURRENT),
    ("decisions.output_format", "classification", "regression", {"decisions": {}, "training": {"epochs": 2}}),
    ("training.epochs", 2, 1, {}),
    ("training.batch_size", 64, 32, {}),
    ("training.batch_size", 64, 1000, {}),
    ("training.learning_rate", 0.001, 0.002, {}),
    ("training.optimizer", "adam", "adamw", {"training.weight_decay": 0.1}),
    ("training.optimizer", "adam", "sgd", {}),
    *(("training.optimizer", "adam", other, {}) for other in ("nadam", "radam", "rmsprop")),
    ("training.scheduler", "none", "cosine", {}),
    ("training.scheduler", "none", "exponential", LONGER),
    ("training.scheduler", "none", "step", {**LONGER, "training.epochs": 12}),
    ("training.scheduler", "none", "plateau", RESTLESS),
    ("training.scheduler_every", 2, 3, {**LONGER, "training.scheduler": "step"}),
    ("training.scheduler_factor", 0.5, 0.2, {**LONGER, "training.scheduler": "exponential"}),
    ("training.scheduler_patience", 1, 4, {**RESTLESS, "training.scheduler": "plateau"}),
    ("training.warmup_epochs", 0, 2, LONGER),
    ("training.loss", "cross_entropy", "focal", {}),
    ("training.loss", "mse", "mae", REGRESSION),
    ("training.loss", "mse", "huber", REGRESSION),
    ("training.label_smoothing", 0.0, 0.2, {}),
    ("training.weight_decay", 0.0, 0.1, {"training.optimizer": "adam"}),
    ("training.weight_decay", 0.0, 0.1, {"training.optimizer": "adamw"}),
    ("training.weight_decay", 0.0, 0.1, {"training.optimizer": "sgd"}),
    ("training.gradient_clip", 0.0, 0.01, {}),
    ("training.class_weights", "balanced", "none", {}),
    ("training.early_stopping.min_delta", 0.0, 10.0, {"training.learning_rate": 0.01}),
    ("training.early_stopping.patience", 1, 9, RESTLESS),
    ("training.labels.horizon", 24, 6, {}),
    ("training.labels.threshold", 0.5, 1.0, {}),
    ("training.labels.scale", "volatility", "fraction", {"training.labels": {"threshold": 0.002}}),
    ("training.labels.source", "forward_return", "triple_barrier", {}),
    ("training.labels.horizon", 12, 6, BARRIERS),
    ("training.labels.threshold", 1.0, 0.5, BARRIERS),
    ("training.labels.stop_threshold", 1.0, 2.0, BARRIERS),
    ("training.labels.stop_threshold", 1.0, 0.5, BARRIERS),
    ("training.labels.volatility_window", 20, 60, BARRIERS),
    ("training.labels.horizon", 6, 12, REGRESSION),
    ("training.labels.reversal", 0.005, 0.01, {"training.labels": {"source": "zigzag"}}),
    ("training.labels.volatility_window", 24, 60, {}),
    ("training.data_split.embargo", 0, 40, {}),
    ("training.seed", 42, 43, {}),
]


@pytest.mark.parametrize("key,one,other,rest", TRAINING_KEYS)
def test_another_value_of_a_key_gives_other_weights(key: str, one: Any, other: Any, rest: dict[str, Any]) -> None:
    first, again, changed = (trained_with({**rest, key: value}) for value in (one, one, other))
    assert weights(first.learned) == weights(again.learned)
    assert weights(first.learned) != weights(changed.learned)


def test_the_shares_of_the_split_are_those_of_the_samples() -> None:
    shares = {"training.data_split.train": 0.5, "training.data_split.validation": 0.2, "training.data_split.test": 0.3}
    samples = [part.samples + part.purged for part in trained_with(shares).parts]
    count = 600 - 30 - HORIZON
    assert samples == [round(count * 0.5), round(count * 0.7) - round(count * 0.5), count - round(count * 0.7)]


BACKTEST_KEYS: list[tuple[str, Any]] = [
    ("decisions.confidence_threshold", 0.37),
    ("decisions.filters.min_signal_separation", 6),
    ("decisions.cost_model.commission_bps", 4.0),
    ("decisions.cost_model.slippage_bps", 6.0),
    ("risk.position_fraction", 0.25),
    ("risk.allow_short", False),
    ("risk.stop_loss", 0.001),
    ("risk.take_profit", 0.002),
    ("risk.max_holding_bars", 5),
]


def keys(kind: type[BaseModel], path: str) -> Iterator[str]:
    """The key paths of a section."""
    for name, field in kind.model_fields.items():
        inner = [
            option
            for option in (field.annotation, *get_args(field.annotation))
            if isinstance(option, type) and issubclass(option, BaseModel)
        ]
        yield from keys(inner[0], f"{path}.{name}") if inner else [f"{path}.{name}"]


def test_no_key_is_without_a_test_of_its_effect() -> None:
    """A new key belongs into one of the two tables above; the shares and the return threshold have tests of their own."""
    sections = {"model": Model, "training": Training, "decisions": Decisions, "risk": Risk}
    known = {key for name, kind in sections.items() for key in keys(kind, name)}
    own = {"decisions.return_threshold", *(f"training.data_split.{part}" for part in ("train", "validation", "test"))}
    assert known - own == {key for key, *_ in TRAINING_KEYS} | {key for key, _ in BACKTEST_KEYS}


def test_every_value_of_a_choice_is_in_the_table() -> None:
    for key, values in (
        ("training.optimizer", {"adam", "adamw", "nadam", "radam", "rmsprop", "sgd"}),
        ("training.scheduler", {"none", "cosine", "step", "exponential", "plateau"}),
        ("training.loss", {"auto", "cross_entropy", "focal", "mse", "mae", "huber"}),
        ("training.labels.source", {"forward_return", "triple_barrier", "zigzag"}),
        ("model.type", {"mlp", "lstm", "gru"}),
    ):
        tried = {value for name, one, other, rest in TRAINING_KEYS if name == key for value in (one, other)}
        assert values - tried <= {"auto", "mlp", "zigzag"}, key


def test_auto_is_cross_entropy_for_classes_and_mse_for_returns() -> None:
    for rest, named in (({}, "cross_entropy"), (REGRESSION, "mse")):
        one, other = (trained_with({**rest, "training.loss": loss}) for loss in ("auto", named))
        assert weights(one.learned) == weights(other.learned)


def test_keys_without_effect_are_no_part_of_a_models_identity() -> None:
    plain = strategy_with(RECURRENT).plain
    assert set(plain["model"]["architecture"]) == {"hidden_size", "num_layers", "sequence_length", "dropout"}
    assert "return_threshold" not in plain["decisions"]
    assert set(strategy_with(REGRESSION).plain["training"]["labels"]) == {"source", "horizon"}


# ---------------------------------------------------------------- the loop once more


def samples(count: int, seed: int) -> Part:
    chance = np.random.default_rng(seed)
    classes = chance.choice(3, count, p=[0.2, 0.5, 0.3]).astype(np.int64)
    return apart(chance.normal(size=(count, 4)), classes)


def by_hand(part: Part, settings: Training, epochs: int) -> nn.Module:
    """The loop with nothing but torch's layers: adam, cosine, decay, clipping and balanced classes written out."""
    torch.manual_seed(settings.seed)
    order = torch.Generator().manual_seed(settings.seed)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    rows, classes = torch.from_numpy(part.matrix), torch.from_numpy(part.targets)
    counts = torch.bincount(classes, minlength=3).double()
    importance = (len(classes) / (3 * counts)).float()
    state = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in network.parameters()]
    step = 0
    for epoch in range(epochs):
        rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))
        for batch in torch.randperm(len(rows), generator=order).split(settings.batch_size):
            network.zero_grad()
            chosen = importance[classes[batch]]
            given = torch.log_softmax(network(rows[batch]), 1)[torch.arange(len(batch)), classes[batch]]
            (-(chosen * given).sum() / chosen.sum()).backward()
            norm = math.sqrt(sum(float(weight.grad.square().sum()) for weight in network.parameters()))
            step += 1
            with torch.no_grad():
                for weight, (mean, square) in zip(network.parameters(), state, strict=True):
                    gradient = weight.grad * min(1.0, settings.gradient_clip / norm) + settings.weight_decay * weight
                    mean += 0.1 * (gradient - mean)
                    square += 0.001 * (gradient**2 - square)
                    weight -= rate * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    return network


def test_the_loop_gives_the_weights_of_one_written_by_hand() -> None:
    part = samples(100, 1)
    settings = Training(
        epochs=4,
        batch_size=32,
        learning_rate=0.01,
        scheduler="cosine",
        weight_decay=0.05,
        gradient_clip=0.1,
        class_weights="balanced",
        seed=7,
    )
    model = Model(architecture=Architecture(hidden_layers=[5], activation="tanh"))
    found = learn(part, samples(50, 2), model, settings, "cpu", lambda *_: None)
    expected = by_hand(part, settings, found.best_epoch)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
    assert found.history.learning_rate == pytest.approx([0.01, 0.01 * (2 + math.sqrt(2)) / 4, 0.005, 0.01 * (2 - math.sqrt(2)) / 4])
    without = learn(part, samples(50, 2), model, settings.model_copy(update={"gradient_clip": 0.0}), "cpu", lambda *_: None)
    assert weights(without) != weights(found)


def overfitted(**stopping: Any) -> Learned:
    """Noise: the training loss goes on falling, the validation loss rises."""
    settings = Training(epochs=30, learning_rate=0.02, early_stopping=EarlyStopping(**stopping))
    return learn(samples(80, 3), samples(80, 4), Model(), settings, "cpu", lambda *_: None)


def test_training_stops_by_the_loss_of_the_validation_part_and_keeps_its_best_weights() -> None:
    found = overfitted(patience=5)
    history = found.history
    assert found.stopped_early
    assert history.train_loss[-1] == min(history.train_loss), "or nothing would be shown"
    assert found.best_epoch == int(np.argmin(history.validation_loss)) + 1 < len(history.epoch)
    assert len(history.epoch) == found.best_epoch + 5
    held = samples(80, 4)
    loss = nn.functional.cross_entropy(found.network(torch.from_numpy(held.matrix)), torch.from_numpy(held.targets))
    assert loss.item() == pytest.approx(min(history.validation_loss), rel=1e-5)


def test_a_loss_counts_as_better_only_by_min_delta() -> None:
    losses = learn(samples(400, 3), samples(80, 4), Model(), Training(epochs=5), "cpu", lambda *_: None).history.validation_loss
    assert losses[1] < losses[0]
    barely = losses[0] - losses[1]

    def best(delta: float) -> int:
        settings = Training(epochs=2, early_stopping=EarlyStopping(patience=9, min_delta=delta))
        return learn(samples(400, 3), samples(80, 4), Model(), settings, "cpu", lambda *_: None).best_epoch

    assert (best(barely * 0.9), best(barely * 1.1)) == (2, 1)


# ---------------------------------------------------------------- nothing is learned from what lies ahead


def labels_by_hand(close: np.ndarray) -> list[int | None]:
    """Labels of the strategy's file, bar by bar."""
    found: list[int | None] = []
    steps = np.diff(np.log(close))
    for bar in range(len(close)):
        if bar < WINDOW or bar + HORIZON >= len(close):
            found.append(None)
            continue
        limit = 0.5 * math.sqrt(HORIZON) * steps[bar - WINDOW : bar].std(ddof=1)
        change = close[bar + HORIZON] / close[bar] - 1
        found.append(2 if change > limit else 0 if change < -limit else 1)
    return found


class Job(NamedTuple):
    """A training as a job: with an embargo, over bars 100 to 2100 of the sample."""

    result: TrainingResult
    model: bytes
    bars: Bars
    parts: tuple[list[int], list[int], list[int]]
    labels: list[int | None]


FIRST, LAST, EMBARGO = 100, 2100, 50


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    assert SAMPLE is not None
    bars = load(SAMPLE.path, "x", "EURUSD", "1h", "1h").bars
    context = Context(tmp_path_factory.mktemp("job"), data=SAMPLE.path)
    overrides = {**SMALL, "training.data_split.embargo": EMBARGO}
    asked = body(overrides=overrides, start=stamp(bars.opens[FIRST]), end=stamp(bars.opens[LAST]))
    result = TrainingResult.from_dict(training.run(asked, context))
    usable = list(range(FIRST, LAST - HORIZON))
    cuts = (round(len(usable) * 0.6), round(len(usable) * 0.8))
    train_part = [bar for bar in usable[: cuts[0]] if bar + HORIZON < usable[cuts[0]] - EMBARGO]
    validation = [bar for bar in usable[cuts[0] : cuts[1]] if bar + HORIZON < usable[cuts[1]] - EMBARGO]
    return Job(result, context.artifacts["model"], bars, (train_part, validation, usable[cuts[1] :]), labels_by_hand(bars.close))


def test_the_parts_end_before_the_embargo_and_no_label_looks_at_the_end_or_beyond(job: Job) -> None:
    assert job.result.conventions["embargo_bars"] == EMBARGO
    for part, expected in zip((job.result.train_part, job.result.validation_part, job.result.test_part), job.parts, strict=True):
        ends = (expected[0], expected[-1], expected[-1] + HORIZON)
        assert (part.first, part.last, part.label_end) == tuple(stamp(job.bars.opens[bar]) for bar in ends)
        assert part.samples == len(expected)
        assert part.class_counts == [sum(job.labels[bar] == which for bar in expected) for which in range(3)]
    assert job.result.train_part.purged == job.result.validation_part.purged == HORIZON + EMBARGO
    assert job.result.test_part.label_end == stamp(job.bars.opens[LAST - 1])


def test_the_scaling_is_that_of_the_training_part_alone(job: Job) -> None:
    model = bundle.load(job.model)
    values = build(model.strategy, alone(job.bars)).values[:, -1]
    learned_from = values[job.parts[0]]
    assert model.description.scaling[-1] == (pytest.approx(learned_from.mean(), rel=1e-12), pytest.approx(learned_from.std(), rel=1e-12))
    assert values[FIRST : LAST - HORIZON].mean() != pytest.approx(learned_from.mean(), rel=1e-6), "or nothing would be shown"
    assert all(pair == (0.0, 1.0) for pair in model.description.scaling[:-1])


def test_each_score_is_that_of_the_model_on_its_own_part(job: Job) -> None:
    said = predict(bundle.load(job.model), alone(job.bars))[0].argmax(axis=1)
    for score, part in zip((job.result.train, job.result.validation, job.result.test), job.parts, strict=True):
        confusion = [[sum(job.labels[bar] == true and said[bar] == which for bar in part) for which in range(3)] for true in range(3)]
        assert score.confusion == confusion


def test_nothing_from_the_end_on_changes_a_training() -> None:
    bars = walk(700, seed=3)
    last = 600
    wild = np.where(np.arange(700) < last, 1.0, 3.0)
    other = bars._replace(open=bars.open * wild, high=bars.high * wild, low=bars.low * wild, close=bars.close * wild)
    one, two = trained_with({}, bars, 0, last), trained_with({}, other, 0, last)
    assert one.parts == two.parts
    assert one.scores == two.scores
    assert one.scalings == two.scalings
    assert weights(one.learned) == weights(two.learned)
    assert one.parts[2].label_end == stamp(bars.opens[last - 1])


def test_nothing_of_the_test_part_changes_a_model() -> None:
    """Neither scaling nor weights: bars from the last label of the validation part on are made wild."""
    bars = walk(700, seed=3)
    one = trained_with({"training.data_split.embargo": 3}, bars)
    begin = 1 + next(bar for bar in range(700) if stamp(bars.opens[bar]) == one.parts[1].label_end)
    wild = np.where(np.arange(700) < begin, 1.0, np.random.default_rng(1).uniform(0.8, 1.2, 700))
    other = bars._replace(open=bars.open * wild, high=bars.high * wild, low=bars.low * wild, close=bars.close * wild)
    other = other._replace(high=np.maximum(other.high, other.low), low=np.minimum(other.high, other.low))
    two = trained_with({"training.data_split.embargo": 3}, other)
    assert one.scores[2] != two.scores[2]
    assert one.scalings == two.scalings
    assert one.learned.history == two.learned.history
    assert weights(one.learned) == weights(two.learned)


# ---------------------------------------------------------------- a backtest trades what was decided

BASE = {"decisions.confidence_threshold": 0.0, "risk.stop_loss": 0.003, "risk.take_profit": 0.004, "risk.max_holding_bars": 24}
RULES = Rules(100_000.0, commission=0.5e-4, slippage=0.5e-4, stop_loss=0.003, take_profit=0.004, max_holding_bars=24)


class Backtest(NamedTuple):
    """A backtest as a job."""

    result: BacktestResult
    trades: list[dict[str, str]]
    equity: list[dict[str, str]]


def backtested(folder: Path, model: bytes, overrides: dict[str, Any], **changes: Any) -> Backtest:
    context = Context(folder, data=SAMPLE.path, model=model)  # type: ignore[union-attr]
    result = BacktestResult.from_dict(backtesting.run(test_body(overrides={**BASE, **overrides}, **changes), context))
    tables = [list(csv.DictReader(io.StringIO(context.artifacts[name].decode()))) for name in ("trades", "equity")]
    return Backtest(result, *tables)


def decided(probabilities: np.ndarray, threshold: float, separation: int) -> list[int]:
    """Decisions, bar by bar."""
    found: list[int] = []
    counted = -math.inf
    for bar, row in enumerate(probabilities):
        best = max(range(3), key=lambda which, row=row: row[which])  # type: ignore[misc]
        signal = best - 1 if row[best] >= threshold and bar - counted > separation else 0
        if signal:
            counted = bar
        found.append(signal)
    return found


def check(job: Job, test: Backtest, rules: Rules, first: int, last: int, threshold: float = 0.0, separation: int = 1) -> None:
    """Compare a job's tables with the twin's on decisions that were made here."""
    bars = job.bars
    decisions = decided(predict(bundle.load(job.model), alone(bars))[0][first:last], threshold, separation)
    rows = list(zip(*(column[first:last].tolist() for column in (bars.open, bars.high, bars.low, bars.close)), strict=True))
    trades, equity, position, held = trade(rows, decisions, rules)
    assert len(test.trades) == len(trades) == test.result.metrics.trades > 5
    for found, expected in zip(test.trades, trades, strict=True):
        entry, left, side, *numbers, reason = expected
        at = bars.closes if reason == "end_of_data" else bars.opens
        assert decisions[entry - 1] == side, "decided at the close of the bar before the entry"
        assert found["entry_time"] == stamp(bars.opens[first + entry])
        assert found["exit_time"] == stamp(at[first + left])
        assert (found["side"], found["exit_reason"]) == ("long" if side > 0 else "short", reason)
        names = ("size", "entry_price", "exit_price", "pnl", "commission", "slippage", "mae", "mfe", "bars_held")
        for name, number in zip(names, numbers, strict=True):
            if name in found:
                assert float(found[name]) == pytest.approx(number, rel=1e-9, abs=1e-9), name
    assert [row["time"] for row in test.equity] == [stamp(moment) for moment in bars.closes[first:last]]
    assert [float(row["equity"]) for row in test.equity] == pytest.approx(equity, rel=1e-9)
    assert [float(row["position"]) for row in test.equity] == pytest.approx(position, rel=1e-9)
    metrics = test.result.metrics
    assert test.result.signals == {"SELL": decisions.count(-1), "HOLD": decisions.count(0), "BUY": decisions.count(1)}
    assert metrics.exposure_time == pytest.approx(np.mean(held))
    assert metrics.total_return == pytest.approx(equity[-1] / rules.capital - 1)
    assert metrics.buy_hold_return == pytest.approx(bars.close[last - 1] / bars.close[first] - 1)
    assert metrics.duration_days == pytest.approx((bars.closes[last - 1] - bars.opens[first]) / 86_400e9)
    assert metrics.commission_paid == pytest.approx(sum(expected[7] for expected in trades))
    assert metrics.slippage_paid == pytest.approx(sum(expected[8] for expected in trades))


def stretch(job: Job) -> tuple[int, int, dict[str, str]]:
    """A window after all that the model has seen, and how a job is asked for it."""
    first, last = LAST, LAST + 800
    return first, last, {"start": stamp(job.bars.opens[first]), "end": stamp(job.bars.opens[last])}


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "decisions.confidence_threshold": ({}, {"threshold": 0.37}),
    "decisions.filters.min_signal_separation": ({}, {"separation": 6}),
    "decisions.cost_model.commission_bps": ({"commission": 4e-4}, {}),
    "decisions.cost_model.slippage_bps": ({"slippage": 6e-4}, {}),
    "risk.position_fraction": ({"fraction": 0.25}, {}),
    "risk.allow_short": ({"allow_short": False}, {}),
    "risk.stop_loss": ({"stop_loss": 0.001}, {}),
    "risk.take_profit": ({"take_profit": 0.002}, {}),
    "risk.max_holding_bars": ({"max_holding_bars": 5}, {}),
}
"""What each key changes in the twin's rules, and in the decisions made here."""


@pytest.fixture(scope="module")
def plainly(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    return backtested(tmp_path_factory.mktemp("test"), job.model, {}, **stretch(job)[2])


def test_a_backtest_trades_the_decisions_at_the_next_open_as_its_rules_say(job: Job, plainly: Backtest) -> None:
    first, last, _ = stretch(job)
    check(job, plainly, RULES, first, last)
    assert {row["exit_reason"] for row in plainly.trades} >= {"signal", "stop_loss", "take_profit"}
    assert {row["side"] for row in plainly.trades} == {"long", "short"}


@pytest.mark.parametrize("key,value", BACKTEST_KEYS)
def test_another_value_of_a_key_gives_other_trades(job: Job, plainly: Backtest, tmp_path: Path, key: str, value: Any) -> None:
    first, last, asked = stretch(job)
    found = backtested(tmp_path, job.model, {key: value}, **asked)
    rules, decisions = CHANGES[key]
    check(job, found, RULES._replace(**rules), first, last, **decisions)
    assert found.trades != plainly.trades


@pytest.mark.parametrize(
    "asked,strategy,commission,slippage",
    [
        ({"commission_bps": 7.0, "slippage_bps": 9.0}, {"decisions.cost_model.slippage_bps": 3.0}, 7.0, 9.0),
        ({"commission_bps": 0.0, "slippage_bps": 0.0}, {"decisions.cost_model.commission_bps": 3.0}, 0.0, 0.0),
        ({}, {"decisions.cost_model.commission_bps": 3.0, "decisions.cost_model.slippage_bps": 2.0}, 3.0, 2.0),
        ({"capital": 5_000.0}, {}, 0.5, 0.5),
    ],
)
def test_costs_and_capital_of_the_command_are_those_that_are_traded_with(
    job: Job, tmp_path: Path, asked: dict[str, float], strategy: dict[str, float], commission: float, slippage: float
) -> None:
    first, last, window = stretch(job)
    found = backtested(tmp_path, job.model, strategy, **window, **asked)
    assert (found.result.commission_bps, found.result.slippage_bps) == (pytest.approx(commission), pytest.approx(slippage))
    capital = asked.get("capital", 100_000.0)
    check(job, found, RULES._replace(capital=capital, commission=commission * 1e-4, slippage=slippage * 1e-4), first, last)


def test_by_default_the_window_begins_with_the_bar_after_the_last_one_seen(job: Job, tmp_path: Path) -> None:
    first = job.parts[1][-1] + HORIZON + 1
    found = backtested(tmp_path, job.model, {})
    assert found.result.window.first == stamp(job.bars.opens[first])
    assert (found.result.window.seen_bars, found.result.in_sample) == (0, False)
    check(job, found, RULES, first, len(job.bars.opens))


@pytest.mark.parametrize("before,seen", [(-1, 0), (0, 1), (1, 2)])
def test_the_last_bar_that_a_label_looked_at_counts_as_seen(job: Job, tmp_path: Path, before: int, seen: int) -> None:
    last = job.parts[1][-1] + HORIZON
    found = backtested(tmp_path, job.model, {}, start=stamp(job.bars.opens[last - before])).result
    assert (found.window.seen_bars, found.in_sample) == (seen, seen > 0)


@pytest.mark.parametrize("behind,seen", [(0, 0), (1, 1)])
def test_the_first_bar_that_was_learned_from_counts_as_seen_and_none_before_it(job: Job, tmp_path: Path, behind: int, seen: int) -> None:
    found = backtested(tmp_path, job.model, {}, start=stamp(job.bars.opens[FIRST - 40]), end=stamp(job.bars.opens[FIRST + behind])).result
    assert (found.window.seen_bars, found.in_sample) == (seen, seen > 0)


@pytest.mark.parametrize("symbol,year,hours", [("BTCUSD", 365, 0), ("EURUSD", 252, None)])
def test_annual_figures_are_of_the_sessions_of_the_symbol_and_their_number_a_year(
    job: Job, tmp_path: Path, symbol: str, year: int, hours: int | None
) -> None:
    """Crypto's days are those of UTC and 365 a year; forex's end at five in New York (in winter 22:00 UTC) and are 252."""
    asked = {"start": "2017-11-06T00:00:00Z", "end": "2017-12-20T00:00:00Z"}  # all of it in winter time
    found = backtested(tmp_path, job.model, {}, symbol=symbol, **asked)
    last_of: dict[dt.date, float] = {}
    for row in found.equity:
        opened = dt.datetime.fromisoformat(row["time"]) - dt.timedelta(hours=1)
        last_of[(opened + dt.timedelta(hours=2 if hours is None else hours)).date()] = float(row["equity"])
    values = np.array([100_000.0, *last_of.values()])
    returns = values[1:] / values[:-1] - 1
    metrics = found.result.metrics
    assert metrics.annual_volatility == pytest.approx(returns.std(ddof=1) * math.sqrt(year))
    assert metrics.sharpe_ratio == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(year))
    assert metrics.annual_return == pytest.approx((values[-1] / values[0]) ** (year / len(returns)) - 1)
    assert found.result.conventions["periods_per_year"] == year


def test_a_probability_of_exactly_the_threshold_is_enough() -> None:
    probabilities = np.array([[0.25, 0.25, 0.5], [0.5, 0.25, 0.25], [0.25, 0.2500001, 0.4999999]])
    assert decide(probabilities, Decisions(confidence_threshold=0.5)).tolist() == [1, -1, 0]
