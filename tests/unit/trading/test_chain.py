"""From bars to fills nothing depends on what comes later: data that end after a bar give the same features, decisions and fills up to it.

The chain is the one that a backtest runs: coarser bars, indicators, degrees and scaling, a network, decisions, the kernel. Each way to
peek that the mutations below put into it is noticed by the same comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from ktrdr_worker.trading import backtest, decisions, features, frames, inference, network
from ktrdr_worker.trading.bars import Bars, cut
from ktrdr_worker.trading.bars import deriving as bars_deriving
from ktrdr_worker.trading.bundle import SCHEMA, Description, Seen, Trained
from ktrdr_zmq.strategy import Strategy, parse_strategy
from ktrdr_zmq.strategy.catalogue import CATALOGUE
from ktrdr_zmq.strategy.indicator import SOURCES
from ktrdr_zmq.strategy.shapes import SHAPES
from tests.unit.trading.markets import market

pytestmark = pytest.mark.timeout(180)

MIXES = [
    ("forex", "1h", ["1h"], "1h"),
    ("forex", "1h", ["1d", "1h", "4h"], "1h"),
    ("forex", "1h", ["1h", "1w"], "1h"),
    ("forex", "1h", ["4h", "1d"], "4h"),
    ("forex", "1h", ["1h", "4h"], "4h"),  # what is shorter than the base is read too
    ("forex", "15m", ["15m", "30m", "1h", "4h"], "15m"),
    ("crypto", "1h", ["1h", "4h", "1d"], "1h"),
    ("crypto", "4h", ["4h", "1w"], "4h"),
    ("stock", "30m", ["30m", "1h", "1d"], "30m"),
    ("stock", "1h", ["1h", "4h", "1d", "1w"], "1h"),
    ("stock", "1d", ["1d", "1w"], "1d"),
]
"""Kind of market, timeframe of the file, timeframes that are read, base."""
PARAMETERS = {"triangular": [20, 50, 80], "trapezoidal": [20, 40, 60, 80], "gaussian": [50, 12], "bell": [15, 2, 50], "sigmoid": [50, 0.1]}
DECIDES = "decisions: {confidence_threshold: 0.35, filters: {min_signal_separation: 2}}\n"
RETURNS = "decisions: {output_format: regression, return_threshold: 0.1, filters: {min_signal_separation: 2}}\n"
NETWORKS = {
    "lstm": "model: {type: lstm, architecture: {sequence_length: 5, hidden_size: 8, num_layers: 2}}\n" + DECIDES,
    "gru": "model: {type: gru, architecture: {sequence_length: 7, hidden_size: 8}}\n" + DECIDES,
    "mlp, returns": RETURNS,
    "gru, returns": "model: {type: gru, architecture: {sequence_length: 3, hidden_size: 8}}\n" + RETURNS,
}
RULES = backtest.Rules(100_000.0, commission=1e-4, slippage=1e-4, stop_loss=0.01, take_profit=0.015, max_holding_bars=9)


def written(timeframes: list[str], base: str, indicators: str, fuzzy: str, inputs: str, rest: str = DECIDES) -> Strategy:
    """A strategy on these timeframes."""
    data = (
        f"{{mode: multi_timeframe, list: [{', '.join(timeframes)}], base_timeframe: {base}}}"
        if len(timeframes) > 1
        else f"{{mode: single, timeframe: {base}}}"
    )
    text = f'name: x\nversion: "3.0"\ntraining_data:\n  symbols: {{symbol: X}}\n  timeframes: {data}\nindicators:\n{indicators}\n'
    text += (f"fuzzy_sets:\n{fuzzy}\n" if fuzzy else "") + f"nn_inputs:\n{inputs}\n"
    return parse_strategy(text + rest, "x.yaml")


def of_every_kind(timeframes: list[str], base: str, rest: str = DECIDES) -> Strategy:
    """All membership functions, both normalizations and several sources, each on all timeframes."""
    labels = "\n".join(f"    {shape}: {{type: {shape}, parameters: {PARAMETERS[shape]}}}" for shape in SHAPES)
    indicators = "  rsi: {type: rsi, period: 3}\n  atr: {type: atr, period: 2}\n  mean: {type: ema, period: 3, source: hlc3}"
    inputs = "  - {fuzzy_set: momentum}\n  - {raw_indicator: atr, normalization: zscore}\n  - {raw_indicator: mean, normalization: minmax}"
    return written(timeframes, base, indicators, f"  momentum:\n    indicator: rsi\n{labels}", inputs, rest)


def of_indicator(kind: str, timeframes: list[str], base: str) -> Strategy:
    """One indicator with all its outputs."""
    known = CATALOGUE[kind]
    inputs = "\n".join(f"  - {{raw_indicator: one.{output}, timeframes: all, normalization: zscore}}" for output in known.outputs)
    return written(timeframes, base, f"  one: {{type: {kind}}}", "", inputs)


Scaling = list[tuple[float, float]]


def with_a_random_network(strategy: Strategy, scaling: Scaling, seed: int) -> Trained:
    """A model that was never trained: whatever it reads moves its decisions."""
    torch.manual_seed(seed)
    net = network.build(len(strategy.features), strategy.model, len(strategy.classes) or 1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
    description = Description(
        schema=SCHEMA, kind="model", strategy="", strategy_name="x", overrides=[], config_digest="", classes=list(strategy.classes),
        feature_ids=strategy.feature_ids, scaling=scaling, seen=Seen(data={"X": ""}, since="", until=""), seed=seed, fingerprint={},
    )  # fmt: skip
    return Trained(net.eval(), strategy, description)


class Run(NamedTuple):
    """What came out of the chain."""

    bars: Bars
    features: np.ndarray
    probabilities: np.ndarray
    decisions: np.ndarray
    outcome: backtest.Outcome


def run(strategy: Strategy, source: Bars, scaling: Scaling, seed: int) -> Run:
    """What a backtest does with a file's bars."""
    made = frames.frames_of(source, strategy.timeframes, strategy.base, [], "x")
    probabilities, warmup = inference.predict(with_a_random_network(strategy, scaling, seed), made)
    bars = cut(made.bars, warmup, len(made.bars.opens))
    decided = decisions.decide(probabilities[warmup:], strategy.decisions)
    outcome = backtest.simulate(bars.open, bars.high, bars.low, bars.close, decided, RULES)
    return Run(bars, features.build(strategy, made).values[warmup:], probabilities[warmup:], decided, outcome)


def scaling_of(strategy: Strategy, source: Bars) -> Scaling:
    """Any scaling that stays as it is, as that of a trained model does: fitted on the first half of the bars."""
    made = frames.frames_of(source, strategy.timeframes, strategy.base, [], "x")
    built = features.build(strategy, made)
    half = built.values[built.warmup : (built.warmup + len(built.values)) // 2 + 1]
    return [(scaling.offset, scaling.divisor) for scaling in features.fit_scaling(strategy, half)]


def compare(strategy: Strategy, source: Bars, ends: list[int]) -> None:
    """Cut the source after some of its bars, and compare everything up to there."""
    scaling = scaling_of(strategy, source)
    whole, seed = next((one, seed) for seed in range(50) if len((one := run(strategy, source, scaling, seed)).outcome.trades) > 8)
    for end in ends:
        part = run(strategy, cut(source, 0, end), scaling, seed)
        count = len(part.bars.opens)
        closed = whole.bars.closes <= source.closes[end - 1]
        assert count >= int(closed.sum()) - 1, "all that is complete is there, the last bar of a session with a hole at its end apart"
        np.testing.assert_array_equal(part.features, whole.features[:count])
        np.testing.assert_allclose(part.probabilities, whole.probabilities[:count], rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(part.decisions, whole.decisions[:count])
        same_entries(part, whole, count - 1)
        left = int((whole.outcome.trades["exit_bar"] < count - 1).sum())  # at the last close the shorter run ends what is open
        np.testing.assert_array_equal(part.outcome.trades[:left], whole.outcome.trades[:left])
        np.testing.assert_array_equal(part.outcome.equity[:-1], whole.outcome.equity[: count - 1])
        np.testing.assert_array_equal(part.outcome.position[:-1], whole.outcome.position[: count - 1])
    if strategy.base == source.timeframe:
        for entered in whole.outcome.trades["entry_bar"][-6:]:
            end = int(np.searchsorted(source.opens, whole.bars.opens[entered])) + 1
            same_entries(run(strategy, another_last_bar(cut(source, 0, end)), scaling, seed), whole, int(entered))


def another_last_bar(bars: Bars) -> Bars:
    """The same bars, but the last went elsewhere after its open."""
    changed = [column.copy() for column in (bars.high, bars.low, bars.close)]
    for column, factor in zip(changed, (1.05, 0.94, 0.95), strict=True):
        column[-1] = bars.open[-1] * factor
    return bars._replace(high=changed[0], low=changed[1], close=changed[2])


def same_entries(part: Run, whole: Run, last: int) -> None:
    """What is entered up to, and at, the open of a bar."""
    one, two = part.outcome.trades, whole.outcome.trades
    entered = int((two["entry_bar"] <= last).sum())
    assert len(one) == entered
    for name in ("entry_bar", "side", "entry_price", "size"):
        np.testing.assert_array_equal(one[name], two[name][:entered], err_msg=name)


def ends_of(source: Bars, seed: int, count: int = 4) -> list[int]:
    """Where to cut: anywhere in the later half, and once just before and just after a session's end."""
    chance = np.random.default_rng(seed)
    half = len(source.opens) // 2
    anywhere = chance.integers(half, len(source.opens), count).tolist()
    session = half + int(np.flatnonzero(np.diff(source.sessions[half:]))[2]) + 1
    return sorted({*anywhere, session - 1, session, session + 1})


COUNT = {"15m": 900, "30m": 900, "1h": 1400, "4h": 700, "1d": 500}


def case(mix: tuple[str, str, list[str], str], seed: int = 1) -> tuple[Strategy, Bars]:
    kind, timeframe, timeframes, base = mix
    return of_every_kind(timeframes, base), market(kind, timeframe, COUNT[timeframe], seed)


def named(mix: Any) -> str:
    return f"{mix[0]}-{mix[1]}-{'+'.join(mix[2])}-{mix[3]}" if isinstance(mix, tuple) else str(mix)


# ---------------------------------------------------------------- nothing looks ahead


@pytest.mark.parametrize("mix", MIXES, ids=named)
def test_bars_that_come_later_change_nothing_in_any_mix_of_timeframes_or_kind_of_input(mix: tuple[str, str, list[str], str]) -> None:
    strategy, source = case(mix)
    compare(strategy, source, ends_of(source, 3))


@pytest.mark.parametrize("rest", NETWORKS.values(), ids=NETWORKS)
def test_bars_that_come_later_change_nothing_with_any_network(rest: str) -> None:
    source = market("forex", "1h", COUNT["1h"], 6)
    compare(of_every_kind(["1h", "4h"], "1h", rest), source, ends_of(source, 6))


@pytest.mark.parametrize("kind", CATALOGUE)
def test_bars_that_come_later_change_nothing_with_any_indicator(kind: str) -> None:
    strategy = of_indicator(kind, ["1h", "4h"], "1h")
    source = market("forex", "1h", 6 * max(strategy.warmup("4h"), 30) + 300, 2)
    compare(strategy, source, ends_of(source, 4, 1))


@pytest.mark.parametrize("source_name", SOURCES)
def test_bars_that_come_later_change_nothing_with_any_source(source_name: str) -> None:
    inputs = "  - {raw_indicator: mean, timeframes: all, normalization: zscore}"
    strategy = written(["1h", "4h"], "1h", f"  mean: {{type: sma, period: 3, source: {source_name}}}", "", inputs)
    source = market("forex", "1h", 600, 3)
    compare(strategy, source, ends_of(source, 5, 1))


def test_every_shape_is_among_the_inputs() -> None:
    assert set(PARAMETERS) == set(SHAPES)


# ---------------------------------------------------------------- and whatever did would be noticed

Known = Callable[[frames.Frames, str], np.ndarray]


def one_base_bar_early(made: frames.Frames, timeframe: str) -> np.ndarray:
    """A coarser bar is seen at the close of the base bar before the one at which it is complete."""
    if timeframe == made.base:
        return np.arange(len(made.bars.opens))
    following = np.append(made.bars.closes[1:], made.bars.closes[-1])
    return np.searchsorted(made.by_timeframe[timeframe].closes, following, side="right") - 1


def an_hour_early(made: frames.Frames, timeframe: str) -> np.ndarray:
    """Seen at every base bar that closes within an hour before it is complete."""
    if timeframe == made.base:
        return np.arange(len(made.bars.opens))
    return np.searchsorted(made.by_timeframe[timeframe].closes, made.bars.closes + 3600 * 10**9, side="right") - 1


def under_way(made: frames.Frames, timeframe: str) -> np.ndarray:
    """The bar that is under way is seen, as it will be."""
    if timeframe == made.base:
        return np.arange(len(made.bars.opens))
    return np.searchsorted(made.by_timeframe[timeframe].opens, made.bars.opens, side="right") - 1


def peeking(compute: Callable[..., dict[str, np.ndarray]]) -> Callable[..., dict[str, np.ndarray]]:
    """Indicators that know the next bar."""

    def shifted(use: Any, bars: Bars) -> dict[str, np.ndarray]:
        return {name: np.append(values[1:], values[-1]) for name, values in compute(use, bars).items()}

    return shifted


def standardised(values: np.ndarray, _: Any) -> np.ndarray:
    """Scaling by what the whole file says, its end included."""
    return ((values - values.mean(axis=0)) / (values.std(axis=0) + 1e-12)).astype(np.float32)


def unfinished(patch: pytest.MonkeyPatch) -> None:
    """A coarser bar is complete with the last bar that the file has of it."""

    def derive(source: Bars, *rest: Any) -> Bars:
        found = bars_deriving.derive(source, *rest)
        return found._replace(closes=source.closes[np.searchsorted(source.opens, found.closes) - 1])

    patch.setattr(bars_deriving, "cut", lambda made, first, last: cut(made, first, len(made.opens)))
    patch.setattr(frames, "derive", derive)


def tomorrows(decide: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Decisions of the next bar."""

    def ahead(probabilities: np.ndarray, settings: Any) -> np.ndarray:
        return decide(np.vstack([probabilities[1:], probabilities[-1:]]), settings)

    return ahead


def fills_now(simulate: Callable[..., backtest.Outcome]) -> Callable[..., backtest.Outcome]:
    """The kernel fills at the open of the bar at whose close it decides."""

    def early(*arrays: Any) -> backtest.Outcome:
        *prices, decided, rules = arrays
        return simulate(*prices, np.append(decided[1:], decided[-1:]), rules)

    return early


MUTATIONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a coarser bar one base bar early": lambda patch: patch.setattr(features, "known", one_base_bar_early),
    "a coarser bar an hour early": lambda patch: patch.setattr(features, "known", an_hour_early),
    "the unfinished coarser bar": lambda patch: patch.setattr(features, "known", under_way),
    "days end with the bars that are there": unfinished,
    "indicators that know the next bar": lambda patch: patch.setattr(features, "compute", peeking(features.compute)),
    "scaling by the whole file": lambda patch: patch.setattr(inference, "scale", standardised),
    "decisions of the next bar": lambda patch: patch.setattr(decisions, "decide", tomorrows(decisions.decide)),
    "fills at the bar that decides": lambda patch: patch.setattr(backtest, "simulate", fills_now(backtest.simulate)),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_whoever_peeks_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, source = case(("forex", "1h", ["1d", "1h", "4h"], "1h"))
    ends = ends_of(source, 3, 8)
    compare(strategy, source, ends)
    MUTATIONS[name](monkeypatch)
    with pytest.raises(AssertionError):
        compare(strategy, source, ends)
