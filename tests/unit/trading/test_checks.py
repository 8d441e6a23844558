"""The checks of a model: what is clean passes, and a look ahead that is planted anywhere on the way from bars to fills is found."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_worker.handler import JobError, JobInterrupted
from ktrdr_worker.jobs.checks import lookahead, warmup
from ktrdr_worker.jobs.training import handler as training
from ktrdr_worker.trading import bundle, decisions, features, frames, history, indicators, inference
from ktrdr_worker.trading import lookahead as ahead
from ktrdr_worker.trading.backtest import Rules
from ktrdr_worker.trading.bars import Bars, DataError, cut, load
from ktrdr_zmq import payload
from ktrdr_zmq.results import LookaheadResult, WarmupResult
from ktrdr_zmq.samples import find_sample
from ktrdr_zmq.strategy import find_strategy, parse_strategy
from ktrdr_zmq.strategy.library import list_strategies
from tests.unit.trading.test_jobs import FAST, FILE, SAMPLE, Context, body, test_body

pytestmark = pytest.mark.timeout(120)

TWO_TIMEFRAMES = """
name: two_timeframes
version: "3.0"
training_data:
  symbols: {mode: single, symbol: EURUSD}
  timeframes: {mode: multi_timeframe, list: [1h, 4h], base_timeframe: 1h}
indicators:
  rsi_14: {type: rsi, period: 14}
  sma_10: {type: sma, period: 10}
fuzzy_sets:
  momentum: {indicator: rsi_14, low: [0, 0, 50], high: [50, 100, 100]}
nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
  - {raw_indicator: sma_10, timeframes: [4h], normalization: zscore}
model: {type: mlp, architecture: {hidden_layers: [8]}}
decisions: {output_format: classification, filters: {min_signal_separation: 3}}
training: {epochs: 3}
"""


SLOW = TWO_TIMEFRAMES.replace("{mode: multi_timeframe, list: [1h, 4h], base_timeframe: 1h}", "{mode: single, timeframe: 1h}").replace(
    "timeframes: [4h]", "timeframes: [1h]"
)
"""An RSI, which never quite forgets where its bars began."""


def model_of(tmp: Path, **changes: Any) -> bytes:
    context = Context(tmp, data=SAMPLE.path)  # type: ignore[union-attr]
    training.run(body(**changes), context)
    return context.artifacts["model"]


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model of the strategy that is built in, which decides often although it has learned for three epochs only."""
    return model_of(tmp_path_factory.mktemp("simple"), overrides={**FAST, "decisions.confidence_threshold": 0.34})


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model that reads an RSI."""
    return model_of(tmp_path_factory.mktemp("slow"), strategy=SLOW, overrides={})


@pytest.fixture(scope="module")
def returns(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model that predicts returns from windows of bars."""
    strategy = TWO_TIMEFRAMES.replace("output_format: classification", "output_format: regression, return_threshold: 0.0001")
    strategy = strategy.replace(
        "{type: mlp, architecture: {hidden_layers: [8]}}", "{type: gru, architecture: {hidden_size: 8, sequence_length: 5}}"
    )
    return model_of(tmp_path_factory.mktemp("returns"), strategy=strategy, overrides={})


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model that reads two timeframes."""
    return model_of(tmp_path_factory.mktemp("double"), strategy=TWO_TIMEFRAMES, overrides={})


def check(handler: Any, tmp: Path, model: bytes, **changes: Any) -> tuple[dict[str, Any], Context]:
    context = Context(tmp, data=SAMPLE.path, model=model)  # type: ignore[union-attr]
    asked = {**{key: value for key, value in test_body().items() if key in ("schema", "symbol", "timeframe", "data")}, **changes}
    return handler.run(asked, context), context


# ---------------------------------------------------------------- look-ahead


@pytest.mark.parametrize("which", ["simple", "double", "returns"])
def test_a_model_that_sees_nothing_ahead_is_clean(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    plain, context = check(lookahead, tmp_path, request.getfixturevalue(which), samples=12, seed=5)
    result = LookaheadResult.from_dict(payload.unpack(payload.pack(plain)))
    assert (result.clean, result.changes, result.cuts, result.seed) == (True, [], 12, 5)
    assert result.bars > 6000
    shares = [share for share, _ in context.reported]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert check(lookahead, tmp_path, request.getfixturevalue(which), samples=12, seed=5)[0]["digest"] == result.digest


def next_one(values: Any) -> Any:
    """The value of the bar after, at each bar."""
    return np.append(values[1:], values[-1])


def peeking_indicator(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("rsi", "cmo_unsmoothed"):
        honest = indicators.FUNCTIONS[kind]
        peeking = functools.partial(lambda honest, *args, **parameters: next_one(honest(*args, **parameters)), honest)
        monkeypatch.setitem(indicators.FUNCTIONS, kind, peeking)


def peeking_membership(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = features.membership
    monkeypatch.setattr(features, "membership", lambda values, *rest: honest(next_one(values), *rest))


def unfinished_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer timeframe's bar is read while it is under way."""
    honest = features.known

    def known(made: frames.Frames, timeframe: str) -> Any:
        rows = honest(made, timeframe)
        return rows if timeframe == made.base else np.minimum(rows + 1, len(made.by_timeframe[timeframe].opens) - 1)

    monkeypatch.setattr(features, "known", known)


def later_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarser bar's close is that of the bar after it."""
    honest = frames.derive

    def derive(*args: Any) -> Bars:
        made = honest(*args)
        return made._replace(close=next_one(made.close))

    monkeypatch.setattr(frames, "derive", derive)


def scaling_by_all_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = inference.scale
    monkeypatch.setattr(inference, "scale", lambda values, scalings: honest(values - 0.5 * values.mean(axis=0), scalings))


def peeking_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "separate", lambda found, bars: next_one(found))


def peeking_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fill of a bar knows the decision of the next one."""
    honest = ahead.simulate

    def simulate(*args: Any) -> Any:
        *prices, found, rules = args
        return honest(*prices, np.append(found[2:], [found[-1]] * 2), rules)

    monkeypatch.setattr(ahead, "simulate", simulate)


@pytest.mark.parametrize(
    "plant,which,step,name",
    [
        (peeking_indicator, "simple", "feature", "1h_"),
        (peeking_membership, "simple", "feature", "1h_"),
        (peeking_indicator, "double", "feature", "_momentum_"),
        (unfinished_bar, "double", "feature", "4h_"),
        (later_close, "double", "bar", "4h close"),
        (scaling_by_all_bars, "simple", "output", ""),
        (scaling_by_all_bars, "returns", "output", "return"),
        (peeking_decisions, "simple", "decision", "decision"),
        (peeking_fills, "simple", "fill", ""),
    ],
)
def test_a_look_ahead_is_found_where_it_begins(
    plant: Callable[[pytest.MonkeyPatch], None], which: str, step: str, name: str, tmp_path: Path, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = request.getfixturevalue(which)
    plant(monkeypatch)
    result = LookaheadResult.from_dict(check(lookahead, tmp_path, model, samples=12)[0])
    assert not result.clean
    first = result.changes[0]
    assert first.step == step
    assert name in first.name
    assert first.first <= first.cut_after
    steps = [ahead.STEPS.index(change.step) for change in result.changes if change.first == first.first]
    assert steps == sorted(steps)


def test_the_first_bar_and_the_size_are_those_of_the_difference(simple: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bar is seen ahead, so that only the last bar before a cut changes, by what the next bar moves the indicator."""
    peeking_indicator(monkeypatch)
    model = bundle.load(simple)
    bars = load(SAMPLE.path, "x", "EURUSD", "1h", "1h").bars  # type: ignore[union-attr]
    whole = ahead.course(model, frames.Frames("1h", {"1h": bars}), Rules(1.0), "cpu")
    found = ahead.differences(model, bars, whole, 3000, Rules(1.0), "cpu")
    assert found
    for difference in found:
        if difference.step == "feature":
            assert (difference.bar, difference.bars, difference.last) == (3000, 1, 3000)
            assert difference.largest == abs(difference.whole - difference.part) > 0
            column = whole.ids.index(difference.name)
            assert difference.whole == whole.features[3000, column]
            again = features.build(model.strategy, frames.Frames("1h", {"1h": cut(bars, 0, 3001)}))
            assert difference.part == again.values[3000, column]


def test_rounding_is_no_look_ahead(simple: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs that differ in the last bits, as they do where blocks are cut otherwise; ties are broken the other way by that."""
    honest = ahead.predict

    def noisy(*args: Any) -> Any:
        outputs, first = honest(*args)
        return np.round(outputs, 2) + 1e-7 * np.sin(np.arange(outputs.size) * len(outputs)).reshape(outputs.shape), first

    monkeypatch.setattr(ahead, "predict", noisy)
    assert check(lookahead, tmp_path, simple, samples=12)[0]["clean"]


@given(st.integers(0, 500), st.integers(1, 500), st.integers(1, 600), st.integers(0, 2**31 - 1))
def test_the_sample_is_of_the_seed(first: int, length: int, samples: int, seed: int) -> None:
    chosen = ahead.sample(first, first + length, samples, seed)
    assert len(chosen) == min(samples, length)
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= first
    assert chosen[-1] < first + length
    assert (ahead.sample(first, first + length, samples, seed) == chosen).all()


def test_half_of_the_sample_is_where_decisions_change() -> None:
    decisions = np.zeros(1000, dtype=np.int8)
    decisions[[100, 500]] = 1
    turning = ahead.turning(decisions)
    assert np.flatnonzero(turning).tolist() == [99, 100, 101, 499, 500, 501]
    chosen = ahead.sample(10, 999, 8, 3, turning)
    assert len(chosen) == 8
    assert turning[chosen].sum() >= 4
    assert turning[ahead.sample(10, 999, 40, 3, turning)].sum() == 6
    assert len(ahead.sample(10, 999, 40, 3, ahead.turning(decisions * 0))) == 40


def test_nothing_can_be_cut_off_behind_the_only_decision() -> None:
    with pytest.raises(DataError, match="first decision is made at bar 30"):
        ahead.sample(30, 30, 5, 0)


# ---------------------------------------------------------------- warm-up


def test_decisions_settle_with_history(slow: bytes, tmp_path: Path) -> None:
    """An RSI forgets slowly: what it says after its warm-up changes decisions."""
    plain, context = check(warmup, tmp_path, slow, samples=40, seed=1)
    result = WarmupResult.from_dict(payload.unpack(payload.pack(plain)))
    assert result.warmup_bars == 14
    tried = [each.bars for each in result.lengths]
    assert set(tried) >= {14 * multiple for multiple in history.MULTIPLES}
    assert tried == sorted(tried)
    assert [each.multiple for each in result.lengths] == [bars / 14 for bars in tried]
    outputs = [each.largest_output for each in result.lengths if each.bars in {14 * multiple for multiple in history.MULTIPLES}]
    assert outputs == sorted(outputs, reverse=True)
    assert outputs[0] > history.ENOUGH > outputs[-1]
    assert all(each.samples == 40 and each.share == each.changed / 40 for each in result.lengths)
    assert result.lengths[0].feature in bundle.load(slow).description.feature_ids
    assert result.recommended is not None
    assert (result.history_required, result.enough) == (0, False)
    chosen = next(each for each in result.lengths if each.bars == result.recommended)
    assert chosen.changed == 0
    assert chosen.largest_output <= history.ENOUGH
    shares = [share for share, _ in context.reported]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert check(warmup, tmp_path, slow, samples=40, seed=1)[0]["digest"] == result.digest


def test_a_model_of_returns_is_measured_by_how_much_they_vary(returns: bytes, tmp_path: Path) -> None:
    result = check(warmup, tmp_path, returns, samples=20)[0]
    assert result["lengths"][0]["largest_output"] > history.ENOUGH > result["lengths"][-1]["largest_output"]
    assert result["recommended"] is not None


def test_an_indicator_that_forgets_needs_no_more_than_its_warm_up(tmp_path: Path) -> None:
    strategy = TWO_TIMEFRAMES.replace("{type: rsi, period: 14}", "{type: stochastic, period: 14}").replace("rsi_14, low", "rsi_14.k, low")
    result = check(warmup, tmp_path, model_of(tmp_path, strategy=strategy, overrides={}), samples=20)[0]
    assert [each["changed"] for each in result["lengths"]] == [0] * len(result["lengths"])
    assert max(each["largest_feature"] for each in result["lengths"]) < 1e-5
    assert (result["recommended"], result["enough"]) == (result["warmup_bars"], True)


def test_less_history_is_that_of_the_bars_before(slow: bytes) -> None:
    """Against features computed from a slice of the bars."""
    model = history.plain(bundle.load(slow))
    bars = load(SAMPLE.path, "x", "EURUSD", "1h", "1h").bars  # type: ignore[union-attr]
    made = frames.Frames("1h", {"1h": bars})
    full = history.reference(model, made, "cpu")
    found = history.effect(model, bars, made, full, np.array([4000]), 54, "cpu", lambda _: None)
    slice_ = features.build(model.strategy, frames.Frames("1h", {"1h": cut(bars, 4000 - 54, 4001)}))
    apart = np.abs(features.scale(slice_.values[-1:], model.scalings)[0] - full.features[4000])
    assert found.largest_feature == apart.max() > 0
    assert found.feature == full.ids[int(apart.argmax())]


@pytest.mark.parametrize("name", [info.name for info in list_strategies() if info.origin == "built-in"])
def test_what_ships_asks_for_the_history_that_it_needs(name: str, tmp_path: Path) -> None:
    """Trained as a person would who names nothing but the strategy, and checked in the same way."""
    text = find_strategy(name)[0]
    strategy = parse_strategy(text, name)
    sample = find_sample(strategy.symbols[0], *strategy.timeframes)
    assert sample is not None
    file = {"symbol": sample.symbol, "timeframe": sample.timeframe, "filename": sample.path.name, "origin": "built-in"}
    context = Context(tmp_path, data=sample.path)
    training.run(body(strategy=text, strategy_name=name, overrides={}, data=[file]), context)
    asked = {"schema": 1, "symbol": sample.symbol, "timeframe": strategy.base, "data": [file], "samples": 100}
    result = warmup.run(asked, Context(tmp_path, data=sample.path, model=context.artifacts["model"]))
    assert result["enough"], (result["recommended"], result["history_required"])


def effects(*pairs: tuple[int, float]) -> list[history.Effect]:
    return [history.Effect(10 * (i + 1), 5, changed, "", 0.0, output) for i, (changed, output) in enumerate(pairs)]


def test_what_is_recommended() -> None:
    assert history.recommended(effects((3, 0.5), (0, 0.01), (0, 0.0001), (0, 0.0))) == 30
    assert history.recommended(effects((0, 0.0), (1, 0.0), (0, 0.0))) == 30, "and any longer one"
    assert history.recommended(effects((0, 0.0), (0, 0.0))) == 10
    assert history.recommended(effects((0, 0.0), (1, 0.0))) is None
    assert history.recommended([history.Effect(10, 0, 0, "", 0.0, 0.0)]) is None, "nothing was tried"


@given(st.integers(1, 100), st.integers(1, 2000))
def test_it_is_sought_between_the_lengths_that_are_tried(warmup: int, needed: int) -> None:
    shares: list[float] = [0.0]

    def effect(bars: int, begin: float, end: float) -> history.Effect:
        assert shares[-1] == begin < end <= 1.0
        shares.append(end)
        return history.Effect(bars, 5, int(bars < needed), "", 0.0, 0.0)

    tried = history.lengths(warmup, 32 * warmup)
    found = history.measure(effect, tried)
    assert [each.bars for each in found] == sorted({each.bars for each in found})
    said = history.recommended(found)
    if needed > tried[-1]:
        assert said is None
        assert len(found) == len(tried)
        return
    assert said is not None
    coarse = next(bars for bars in tried if bars >= needed)
    assert needed <= said <= coarse
    if said > tried[0]:
        gap = coarse - coarse // 2
        assert said - needed < max(gap / 2**history.REFINEMENTS + 1, 2), "to an eighth of the stretch"


def test_histories_that_most_bars_have() -> None:
    assert history.lengths(27, 300) == [27, 54, 108]
    assert history.lengths(0, 10) == [1, 2, 4]
    with pytest.raises(DataError, match="at least twice the warm-up of 27"):
        history.lengths(27, 50)


# ---------------------------------------------------------------- both


@pytest.mark.parametrize("handler", [lookahead, warmup])
@pytest.mark.parametrize("stop_after", [0.05, 0.3])
def test_a_check_stops_when_it_is_told_to(handler: Any, stop_after: float, simple: bytes, tmp_path: Path) -> None:
    context = Context(tmp_path, data=SAMPLE.path, model=simple)  # type: ignore[union-attr]
    context.stop_after = stop_after
    with pytest.raises(JobInterrupted):
        handler.run(test_body(samples=10), context)


@pytest.mark.parametrize("handler", [lookahead, warmup])
@pytest.mark.parametrize(
    "changes,said",
    [
        ({"samples": 0}, "samples must be between 1 and 100,000"),
        ({"samples": 100_001}, "samples must be between 1 and 100,000"),
        ({"seed": -1}, "seed between 0"),
        ({"samples": "many"}, "body is not what"),
        ({"timeframe": "1d"}, "decides on bars of 1h, not of 1d"),
        ({"data": [{**FILE, "timeframe": "1d"}]}, "no bar of 1d opens|cannot be made|follows too soon|fits no bar"),
    ],
)
def test_a_check_that_cannot_be_done_says_why(handler: Any, changes: dict[str, Any], said: str, simple: bytes, tmp_path: Path) -> None:
    with pytest.raises((JobError, DataError), match=said):
        check(handler, tmp_path, simple, **changes)


@pytest.mark.parametrize("handler", [lookahead, warmup])
def test_too_few_bars(handler: Any, simple: bytes, tmp_path: Path) -> None:
    lines = SAMPLE.path.read_text().splitlines(keepends=True)[:30]  # type: ignore[union-attr]
    context = Context(tmp_path, data="".join(lines).encode(), model=simple)
    with pytest.raises(DataError):
        handler.run(test_body(samples=5), context)
