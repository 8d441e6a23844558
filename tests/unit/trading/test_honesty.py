"""Where nothing can be known, nothing is found; where there is an edge, it is.

Labels look one bar ahead, so that they do not overlap and each sample counts as one. The threshold is such that each class has probability
1/3 whatever was before: the right answers of any rule among n samples then follow the binomial distribution with 1/3, which is what every
baseline expects as well. Twenty seeds, each outside its 99 % interval with probability 0.01 at most: 0.2 of them are expected outside, and
three or more come once in a thousand times. All together must be inside the interval of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from ktrdr_worker.trading import network as networks
from ktrdr_worker.trading import samples
from ktrdr_worker.trading.backtest import Rules, simulate
from ktrdr_worker.trading.bars import Bars, cut
from ktrdr_worker.trading.decisions import decide
from ktrdr_worker.trading.features import build, scale
from ktrdr_worker.trading.labels import Labelled, label
from ktrdr_worker.trading.training import Outcome, train
from ktrdr_zmq.results import ClassificationMetrics, RegressionMetrics
from ktrdr_zmq.strategy import Strategy, parse_strategy
from tests.unit.trading.made import alone, span, walk

SEEDS = range(20)
MOST_OUTSIDE = 2
BARS, STEP = 1200, 0.002
COSTS = Rules(100_000.0, commission=0.5e-4, slippage=0.5e-4)

STRATEGY = """
name: honest
version: "3.0"
indicators:
  last: {type: roc, period: 1}
  rsi_5: {type: rsi, period: 5}
fuzzy_sets:
  momentum: {indicator: rsi_5, low: [0, 0, 30, 50], high: [50, 70, 100, 100]}
nn_inputs:
  - {fuzzy_set: momentum}
  - {raw_indicator: last, normalization: zscore}
training_data:
  symbols: {mode: single, symbol: EURUSD}
  timeframes: {mode: single, timeframe: 1h}
model: {architecture: {hidden_layers: [12]}}
training: {epochs: 6, learning_rate: 0.01, data_split: {train: 0.5, validation: 0.15, test: 0.35}}
"""


def normal(x: float) -> float:
    return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0


def third(edge: float) -> float:
    """The size that a step of deviation 1 around plus or minus `edge` stays below with probability 1/3."""
    low, high = 0.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if normal(middle - edge) - normal(-middle - edge) < 1.0 / 3.0 else (low, middle)
    return low


def interval(count: int, share: float = 1.0 / 3.0, outside: float = 0.01) -> tuple[int, int]:
    """The fewest and most right answers of a rule that knows nothing, with at most half of `outside` beyond either."""
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * math.log(share) + (count - k) * math.log(1.0 - share)
        for k in range(count + 1)
    ]
    below = np.cumsum(np.exp(logs))
    return int(np.searchsorted(below, outside / 2.0)), int(np.searchsorted(below, 1.0 - outside / 2.0))


def series(seed: int, edge: float) -> Bars:
    """Steps of one deviation around minus the sign of the last step, times `edge`; opens are the closes before."""
    chance = np.random.default_rng(seed)
    steps = np.zeros(BARS)
    for bar in range(1, BARS):
        steps[bar] = STEP * (chance.normal() - edge * np.sign(steps[bar - 1]))
    close = np.exp(np.cumsum(steps))
    opened = np.concatenate(([1.0], close[:-1]))
    spread = 1.0 + 1e-4 * chance.random(BARS)
    return walk(BARS)._replace(open=opened, close=close, high=np.maximum(opened, close) * spread, low=np.minimum(opened, close) / spread)


class Found(NamedTuple):
    """A training, and what trading its decisions on the test part returns, with and without costs."""

    outcome: Outcome
    gross: float
    net: float


def run(seed: int, edge: float, **overrides: Any) -> Found:
    threshold = math.expm1(third(edge) * STEP)
    classes = {} if overrides.get("decisions") else {"training.labels.scale": "fraction", "training.labels.threshold": threshold}
    strategy = parse_strategy(STRATEGY, "honest.yaml", {"training.labels.horizon": 1, **classes, "training.seed": seed, **overrides})
    bars = series(seed, edge)
    outcome = train(strategy, [span(bars)], "cpu", lambda *_: None)
    first = len(bars.opens) - 1 - outcome.parts[2].samples
    traded = cut(bars, first, len(bars.opens))
    decisions = decide(said(strategy, outcome, bars)[first:], strategy.decisions)
    returns = [
        simulate(traded.open, traded.high, traded.low, traded.close, decisions, rules).equity[-1] / rules.capital - 1.0
        for rules in (Rules(COSTS.capital), COSTS)
    ]
    return Found(outcome, *returns)


def said(strategy: Strategy, outcome: Outcome, bars: Bars) -> np.ndarray:
    """What the network says at every bar's close; NaN before the warm-up is over."""
    features = build(strategy, alone(bars))
    matrix = torch.from_numpy(scale(features.values[features.warmup :], outcome.scalings))
    window = strategy.model.window
    known = networks.predict(outcome.learned.network, matrix, torch.arange(window - 1, len(matrix)), window).numpy()
    return np.concatenate((np.full((len(bars.opens) - len(known), *known.shape[1:]), np.nan), known))


def right(found: Found) -> tuple[int, int]:
    """Right answers of the test part, and how many there were."""
    test = found.outcome.scores[2]
    assert isinstance(test, ClassificationMetrics)
    return round(test.accuracy * test.samples), test.samples


def correlation(found: Found) -> float:
    """Of predicted and true returns of the test part."""
    test = found.outcome.scores[2]
    assert isinstance(test, RegressionMetrics)
    assert test.ic is not None
    return test.ic


def outside(results: list[Found]) -> list[tuple[int, int]]:
    return [pair for pair in map(right, results) if not interval(pair[1])[0] <= pair[0] <= interval(pair[1])[1]]


def shuffled(chance: np.random.Generator) -> Callable[..., Labelled]:
    """Labels as they are, each given to another bar."""

    def given(bars: Bars, *rest: Any, **options: Any) -> Labelled:
        found = label(bars, *rest, **options)
        targets = found.targets.copy()
        targets[found.known] = chance.permutation(targets[found.known])
        return found._replace(targets=targets)

    return given


def test_the_interval_is_that_of_the_binomial_distribution() -> None:
    """Of 10,000 draws about 1 % lie outside."""
    low, high = interval(400)
    draws = np.random.default_rng(1).binomial(400, 1 / 3, 10_000)
    assert 0.005 < np.mean((draws < low) | (draws > high)) < 0.0105
    assert (low, high) == (109, 158)


def test_nothing_is_found_in_a_random_walk() -> None:
    results = [run(seed, 0.0) for seed in SEEDS]
    assert right(results[0])[1] > 400
    assert len(outside(results)) <= MOST_OUTSIDE
    everything = np.sum([right(found) for found in results], axis=0)
    assert interval(everything[1])[0] <= everything[0] <= interval(everything[1])[1]
    net = np.array([found.net for found in results])
    gross = np.array([found.gross for found in results])
    assert abs(gross.mean()) < 2.58 * gross.std(ddof=1) / math.sqrt(len(gross)), "without costs neither profit nor loss"
    assert net.mean() < 0.0, "what is lost are the costs"


def test_nothing_is_found_where_labels_are_shuffled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of series with an edge, which is found with the labels in their places."""
    monkeypatch.setattr(samples, "label", shuffled(np.random.default_rng(3)))
    results = [run(seed, 0.5) for seed in SEEDS]
    assert len(outside(results)) <= MOST_OUTSIDE
    everything = np.sum([right(found) for found in results], axis=0)
    assert interval(everything[1])[0] <= everything[0] <= interval(everything[1])[1]
    assert np.mean([found.net for found in results]) < 0.0


@pytest.mark.parametrize("kind", ["mlp", "gru", "lstm"])
def test_a_planted_edge_is_found(kind: str) -> None:
    shape = {} if kind == "mlp" else {"model": {"type": kind, "architecture": {"hidden_size": 12, "sequence_length": 4}}}
    results = [run(seed, 0.5, **shape) for seed in range(3)]
    for found in results:
        answers, count = right(found)
        assert answers > interval(count, outside=1e-6)[1], "beyond what chance brings once in a million"
        assert found.net > 0.1
        test, base = found.outcome.scores[2], found.outcome.baseline
        assert isinstance(test, ClassificationMetrics)
        assert isinstance(base, ClassificationMetrics)
        assert test.balanced_accuracy > base.balanced_accuracy + 0.05
        assert test.log_loss < base.log_loss


def test_a_regression_finds_an_edge_and_none_where_there_is_none() -> None:
    """The correlation of what is unrelated has a deviation of one over the root of n."""
    asked: dict[str, Any] = {"decisions": {"output_format": "regression"}}
    nothing = [run(seed, 0.0, **asked) for seed in SEEDS]
    deviations = np.array([correlation(found) * math.sqrt(found.outcome.scores[2].samples) for found in nothing])
    assert (abs(deviations) > 2.58).sum() <= MOST_OUTSIDE
    assert abs(deviations.sum()) < 2.58 * math.sqrt(len(deviations))
    assert np.mean([found.net for found in nothing]) < 0.0
    found = run(1, 0.5, **asked)
    assert correlation(found) > 0.25
    assert found.net > 0.1
