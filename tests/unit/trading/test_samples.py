"""Samples of several symbols: parts cut at common moments, purge and embargo across symbols, and no leak between them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_worker.trading import samples, splits, training
from ktrdr_worker.trading.bars import Bars, cut, moment, stamp
from ktrdr_worker.trading.features import build
from ktrdr_worker.trading.frames import Frames, frames_of, known
from ktrdr_worker.trading.samples import Span, Table, gather, split
from ktrdr_worker.trading.training import Outcome, train
from ktrdr_zmq.strategy import Strategy, find_strategy, parse_strategy
from tests.unit.trading.made import walk
from tests.unit.trading.markets import market

HORIZON = 6
SETTINGS = {
    "training_data.symbols": {"mode": "multi_symbol", "list": ["EURUSD", "GBPUSD"]}, "training.epochs": 2,
    "model.architecture.hidden_layers": [6], "training.labels.horizon": HORIZON, "training.labels.volatility_window": 10,
}  # fmt: skip


def strategy_with(overrides: dict[str, Any] | None = None, name: str = "neuro_mean_reversion") -> Strategy:
    return parse_strategy(*find_strategy(name), {**SETTINGS, **(overrides or {})})


def two(strategy: Strategy, one: Bars, other: Bars) -> list[Span]:
    made = [frames_of(bars, strategy.timeframes, strategy.base, [], "x") for bars in (one, other)]
    return [Span(frames, 0, len(frames.bars.opens)) for frames in made]


def table_of(strategy: Strategy, spans: list[Span]) -> Table:
    return gather(strategy, spans, [build(strategy, span.frames) for span in spans])


def forex(symbol: str, count: int, seed: int) -> Bars:
    return market("forex", "1h", count, seed, symbol=symbol)


# ---------------------------------------------------------------- where parts begin and end


@given(st.integers(0, 10_000), st.integers(0, 8), st.integers(0, 6))
def test_no_label_of_any_symbol_looks_into_the_next_part_of_another(seed: int, horizon: int, embargo: int) -> None:
    """Two symbols that trade at other times: every label is over when the next part begins, less the embargo in bars of either."""
    chance = np.random.default_rng(seed)
    moments, over, begins, grids = [], [], [], []
    for step in (7, 11):
        grid = np.sort(chance.choice(np.arange(0, 2000, step), 90, replace=False))
        grids.append(grid)
        index = np.arange(3, len(grid) - horizon - 1)
        moments.append(grid[index])
        over.append(grid[index + horizon] + step)
        begins.append(grid[index - 2])
    when, end, start = (np.concatenate(parts) for parts in (moments, over, begins))

    def limit(boundary: int) -> int:
        return min(grid[max(np.searchsorted(grid, boundary) - embargo, 0)] for grid in grids if grid[-1] >= boundary)

    found = splits.pooled(when, end, start, (0.5, 0.25, 0.25), limit)
    assert sum(len(part.rows) + part.purged + part.skipped for part in found) == len(when)
    for earlier, later in ((found.train, found.validation), (found.validation, found.test)):
        if not len(earlier.rows) or not len(later.rows):
            continue
        boundary = min(when[later.rows].min(), start[later.rows].min())
        assert end[earlier.rows].max() <= boundary
        assert when[earlier.rows].max() < boundary
        for grid in grids:
            between = grid[(grid >= end[earlier.rows].max()) & (grid < boundary)]
            assert len(between) >= min(embargo, int((grid < boundary).sum())) - 1, "whole bars, less one that lies across the moment"


def by_hand(strategy: Strategy, spans: list[Span], fractions: tuple[float, float], embargo: int) -> list[list[tuple[str, str]]]:
    """The parts as (symbol, open) of their samples, one by one and in words of time."""
    found: list[tuple[int, str, int, int]] = []
    for span in spans:
        bars = span.frames.bars
        first = max(build(strategy, span.frames).warmup, 10)
        for bar in range(first, len(bars.opens) - HORIZON):
            end = bar + HORIZON
            over = min(bars.closes[end], bars.opens[end + 1]) if end + 1 < len(bars.opens) else bars.closes[end]
            found.append((int(bars.opens[bar]), bars.symbol, int(over), bar))
    times = sorted(when for when, *_ in found)
    starts = [times[round(len(times) * share)] for share in (fractions[0], sum(fractions))]
    limits = []
    for start in starts:
        moments = [start]
        for span in spans:
            before = [open_ for open_ in span.frames.bars.opens if open_ < start]
            if span.frames.bars.opens[-1] >= start and embargo:
                moments.append(before[-embargo])
        limits.append(min(moments))
    parts: list[list[tuple[str, str]]] = [[], [], []]
    for when, symbol, over, _ in sorted(found, key=lambda one: (one[1], one[0])):
        number = sum(when >= start for start in starts)
        if number == 2 or over <= limits[number]:
            parts[number].append((symbol, stamp(when)))
    return parts


@pytest.mark.parametrize("embargo", [0, 5])
@pytest.mark.parametrize("lengths", [(500, 500), (500, 320), (260, 500)])
def test_parts_are_those_that_are_found_sample_by_sample(lengths: tuple[int, int], embargo: int) -> None:
    """The symbols have holes at other places, and one may end before the other."""
    strategy = strategy_with({"training.data_split.embargo": embargo})
    spans = two(strategy, forex("EURUSD", lengths[0], 1), forex("GBPUSD", lengths[1], 2))
    table = table_of(strategy, spans)
    found = split(strategy, table, spans)
    names = ["EURUSD", "GBPUSD"]
    for part, expected in zip(found, by_hand(strategy, spans, (0.6, 0.2), embargo), strict=True):
        assert [(names[table.symbols[row]], stamp(table.opens[row])) for row in part.rows] == expected


def test_every_sample_reads_the_row_of_its_own_bar() -> None:
    strategy = strategy_with(name="multi_timeframe_trend")
    spans = two(strategy, forex("EURUSD", 1100, 1), forex("GBPUSD", 1000, 2))
    table = table_of(strategy, spans)
    for number, span in enumerate(spans):
        rows = np.flatnonzero(table.symbols == number)
        bars = np.searchsorted(span.frames.bars.opens, table.opens[rows])
        np.testing.assert_array_equal(table.values[table.positions[rows]], build(strategy, span.frames).values[bars])
    assert set(table.symbols) == {0, 1}


def test_a_span_is_not_left_on_either_side() -> None:
    strategy = strategy_with()
    whole = two(strategy, forex("EURUSD", 600, 1), forex("GBPUSD", 600, 2))
    spans = [span._replace(first=100, last=500) for span in whole]
    table = table_of(strategy, spans)
    for number, span in enumerate(spans):
        mine = table.symbols == number
        assert table.opens[mine].min() == span.frames.bars.opens[100]
        assert table.label_opens[mine].max() == span.frames.bars.opens[499]


def test_a_symbol_without_samples_is_named() -> None:
    strategy = strategy_with()
    spans = two(strategy, forex("EURUSD", 600, 1), forex("GBPUSD", 600, 2))
    with pytest.raises(samples.DataError, match="none of GBPUSD 1h has both features and a label"):
        table_of(strategy, [spans[0], spans[1]._replace(last=30)])


# ---------------------------------------------------------------- what a coarser bar tells


def test_a_day_is_known_at_the_base_bar_that_ends_it_and_not_before() -> None:
    source = market("forex", "1h", 400, 4, holes=0.0)
    made = frames_of(source, ["1h", "1d"], "1h", [], "x")
    rows, days = known(made, "1d"), made.by_timeframe["1d"]
    for bar in range(24, 300):
        complete = [index for index in range(len(days.opens)) if days.closes[index] <= source.closes[bar]]
        assert rows[bar] == (complete[-1] if complete else -1)
    assert stamp(days.closes[0]) == "2017-03-06T22:00:00Z"
    assert stamp(days.closes[5]) == "2017-03-13T21:00:00Z", "New York's clock has changed"
    first = int(np.flatnonzero(rows == 5)[0])
    assert stamp(source.opens[first]) == "2017-03-13T20:00:00Z"


def test_warm_up_is_that_of_the_slowest_timeframe_in_base_bars() -> None:
    strategy = strategy_with(name="multi_timeframe_trend")
    source = market("forex", "1h", 1000, 4, holes=0.0)
    made = frames_of(source, strategy.timeframes, "1h", [], "x")
    needed = made.by_timeframe["1d"].closes[strategy.warmup("1d")]
    built = build(strategy, made)
    assert built.warmup == int(np.searchsorted(source.closes, needed))
    assert np.isnan(built.values[: built.warmup]).all()
    assert np.isfinite(built.values[built.warmup :]).all()
    short = frames_of(cut(source, 0, built.warmup - 30), strategy.timeframes, "1h", [], "x")
    with pytest.raises(samples.DataError, match="needs more than 19 bars of 1d before the first one it can use; EURUSD has 18"):
        build(strategy, short)


# ---------------------------------------------------------------- no leak in a training


def trained(strategy: Strategy, spans: list[Span]) -> Outcome:
    return train(strategy, spans, "cpu", lambda *_: None)


def model_of(outcome: Outcome) -> tuple[Any, ...]:
    weights = [float(value) for tensor in outcome.learned.network.state_dict().values() for value in tensor.flatten()]
    return outcome.scalings, outcome.learned.history, weights


def wild_from(bars: Bars, when: int) -> Bars:
    """The same bars up to a moment, and others after it."""
    chance = np.random.default_rng(1)
    change = np.where(bars.opens < when, 1.0, chance.uniform(0.9, 1.1, len(bars.opens)))
    open_ = bars.open * change
    close = np.where(bars.opens < when, bars.close, bars.close * np.roll(change, 1))
    high, low = np.maximum(np.maximum(open_, close), bars.high), np.minimum(np.minimum(open_, close), bars.low)
    return bars._replace(open=open_, high=high, low=low, close=close)


def leaks(strategy: Strategy) -> None:
    """Whatever any symbol does from the beginning of the test part on changes nothing in the model; before it, it does."""
    one, other = forex("EURUSD", 700, 1), forex("GBPUSD", 640, 2)
    first = trained(strategy, two(strategy, one, other))
    begin = first.seen[1]
    assert begin <= moment(first.parts[2].first)
    for bars in ((wild_from(one, begin), other), (one, wild_from(other, begin))):
        again = trained(strategy, two(strategy, *bars))
        assert again.parts[:2] == first.parts[:2]
        assert model_of(again) == model_of(first)
        assert again.scores[2] != first.scores[2]
    hours = 3600 * 10**9
    assert model_of(trained(strategy, two(strategy, one, wild_from(other, begin - 30 * hours)))) != model_of(first)


SPARSE = {"training.data_split.embargo": 3}


def test_nothing_of_the_test_part_of_any_symbol_changes_a_model() -> None:
    leaks(strategy_with(SPARSE))


def test_nor_with_several_timeframes() -> None:
    text, source = find_strategy("multi_timeframe_trend")
    quick = {
        "indicators.rsi_14.period": 3,
        "indicators.adx_14.period": 2,
        "indicators.channel.period": 3,
        "indicators.volatility.period": 3,
        "indicators.drift.period": 2,
    }
    leaks(parse_strategy(text, source, {**SETTINGS, **SPARSE, **quick}))


def no_purge(pooled: Callable[..., splits.Split]) -> Callable[..., splits.Split]:
    """Labels may look into the next part."""
    return lambda moments, over, begins, fractions, limit: pooled(moments, over, begins, fractions, lambda _: 2**62)


def each_for_itself(pooled: Callable[..., splits.Split]) -> Callable[..., splits.Split]:
    """Parts by the count of each symbol's own samples, not by a common moment."""

    def cut_by_count(moments: np.ndarray, over: np.ndarray, begins: np.ndarray, fractions: Any, limit: Any) -> splits.Split:
        border = int(np.flatnonzero(np.diff(moments) < 0)[0]) + 1
        halves = [
            pooled(moments[part], over[part], begins[part], fractions, limit) for part in (slice(0, border), slice(border, len(moments)))
        ]
        return splits.Split(*(
            splits.PartIndices(np.concatenate((one.rows, two.rows + border)), one.purged + two.purged, 0)
            for one, two in zip(*halves, strict=True)
        ))  # fmt: skip

    return cut_by_count


def scaled_by_all(patch: pytest.MonkeyPatch) -> None:
    """Scaling is fitted to all samples."""
    everything: list[np.ndarray] = []

    def remember(*arguments: Any) -> Table:
        table = gather(*arguments)
        everything[:] = [table.values[table.positions]]
        return table

    fit = training.fit_scaling
    patch.setattr(training, "gather", remember)
    patch.setattr(training, "fit_scaling", lambda strategy, _: fit(strategy, everything[0]))


LEAKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no purge": lambda patch: patch.setattr(samples, "pooled", no_purge(splits.pooled)),
    "each symbol split for itself": lambda patch: patch.setattr(samples, "pooled", each_for_itself(splits.pooled)),
    "scaling by all samples": scaled_by_all,
}


@pytest.mark.parametrize("name", LEAKS)
def test_leaks_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    LEAKS[name](monkeypatch)
    with pytest.raises(AssertionError):
        leaks(strategy_with(SPARSE))


def test_the_same_bars_under_one_name_or_two_give_the_parts_of_one() -> None:
    """A second symbol with the same bars doubles every part and moves no boundary."""
    bars = walk(600, seed=3)
    both = strategy_with()
    one = parse_strategy(*find_strategy("neuro_mean_reversion"), {k: v for k, v in SETTINGS.items() if k != "training_data.symbols"})
    alone = trained(one, [Span(Frames("1h", {"1h": bars}), 0, 600)])
    doubled = trained(both, two(both, bars, bars._replace(symbol="GBPUSD")))
    for single, double in zip(alone.parts, doubled.parts, strict=True):
        assert (double.first, double.last, double.label_end) == (single.first, single.last, single.label_end)
        assert (double.samples, double.purged) == (2 * single.samples, 2 * single.purged)
        assert double.by_symbol == {"EURUSD": single.samples, "GBPUSD": single.samples}
    assert [pair[1] for pair in doubled.scalings] == pytest.approx([pair[1] for pair in alone.scalings])
    assert dt.datetime.fromisoformat(alone.parts[1].label_end) < dt.datetime.fromisoformat(alone.parts[2].first)
