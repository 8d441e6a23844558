"""Labels: by hand, against twins in plain Python, and none looks further than it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_worker.trading.bars import Bars, cut
from ktrdr_worker.trading.labels import BUY, HOLD, SELL, UNKNOWN, Labelled, label, thresholds
from ktrdr_zmq.strategy.schema import Labels
from tests.unit.trading.made import walk


def series(close: list[float], high: list[float] | None = None, low: list[float] | None = None) -> Bars:
    """Bars with these prices; where no high or low is given, there are none beyond the close."""
    prices = [np.array(column if column is not None else close, dtype=float) for column in (high, low)]
    return walk(len(close))._replace(close=np.array(close, dtype=float), high=prices[0], low=prices[1])


# ---------------------------------------------------------------- forward returns


def test_forward_labels_say_what_the_price_did() -> None:
    bars = series([100.0, 100.0, 103.0, 103.0, 100.0, 100.0])
    found = label(bars, Labels(horizon=2, threshold=0.01, scale="fraction"))
    assert found.targets.tolist() == [BUY, BUY, SELL, SELL, UNKNOWN, UNKNOWN]
    assert found.ends.tolist() == [2, 3, 4, 5, 6, 7]
    assert found.known.tolist() == [True] * 4 + [False] * 2
    assert label(bars, Labels(horizon=2, threshold=0.05, scale="fraction")).targets[:4].tolist() == [HOLD] * 4
    assert not label(bars, Labels(horizon=9)).known.any()


def test_returns_are_those_after_the_horizon() -> None:
    found = label(series([100.0, 101.0, 99.0, 102.0]), Labels(horizon=2), returns=True)
    assert found.targets.dtype == np.float32
    assert found.targets[:2] == pytest.approx([-0.01, 102 / 101 - 1])
    assert found.known.tolist() == [True, True, False, False]
    assert found.ends.tolist() == [2, 3, 4, 5]


def test_a_threshold_by_volatility_is_known_at_its_bar() -> None:
    settings = Labels(horizon=4, threshold=0.5, scale="volatility", volatility_window=10)
    bars = walk(100)
    limits = thresholds(bars.close, settings)
    steps = np.diff(np.log(bars.close))
    assert np.isnan(limits[:10]).all()
    assert limits[10] == pytest.approx(0.5 * 2.0 * steps[:10].std(ddof=1))
    np.testing.assert_array_equal(limits[:60], thresholds(bars.close[:60], settings))
    for source in ("forward_return", "triple_barrier"):
        assert not label(bars, settings.model_copy(update={"source": source})).known[:10].any()


# ---------------------------------------------------------------- triple barrier

BARRIER = Labels(source="triple_barrier", horizon=3, threshold=0.02, scale="fraction")


@pytest.mark.parametrize(
    "highs,lows,said,end",
    [
        ([100, 102.5, 101, 101], [100, 99, 99, 99], BUY, 1),
        ([100, 101, 101, 101], [100, 99, 99, 97], SELL, 3),
        ([100, 101, 101, 101], [100, 99, 99, 99], HOLD, 3),
        ([100, 102.5, 101, 101], [100, 97.5, 99, 99], HOLD, 1),  # both in one bar: either trade is stopped first
        ([100, 101, 102, 105], [100, 99, 99, 97], BUY, 2),  # a level is touched when it is reached
        ([100, 101, 98.5, 101], [100, 98, 98.5, 99], SELL, 1),
    ],
)
def test_which_trade_reaches_its_target_first(highs: list[float], lows: list[float], said: int, end: int) -> None:
    found = label(series([100, 100, 100, 100], highs, lows), BARRIER)
    assert (found.targets[0], found.ends[0]) == (said, end)


def test_a_label_that_is_decided_early_needs_no_whole_horizon() -> None:
    found = label(series([100, 100, 100], [100, 103, 100], [100, 100, 100]), BARRIER)
    assert (found.targets.tolist(), found.ends[0]) == ([BUY, UNKNOWN, UNKNOWN], 1)


def test_a_wide_stop_lets_both_trades_win_and_a_narrow_one_neither() -> None:
    bars = series([100, 100, 100, 100], [100, 101, 101, 103], [100, 97.5, 99, 99])
    assert (label(bars, BARRIER).targets[0], label(bars, BARRIER).ends[0]) == (SELL, 1)
    for stop, end in ((0.1, 3), (0.005, 1)):
        found = label(bars, BARRIER.model_copy(update={"stop_threshold": stop}))
        assert (found.targets[0], found.ends[0]) == (HOLD, end)


def trade_outcome(bars: Bars, bar: int, side: int, target: float, stop: float, horizon: int) -> tuple[str, int]:
    """How one trade ends, and at which bar: won, lost, open, or unknown."""
    price = bars.close[bar]
    for later in range(bar + 1, bar + horizon + 1):
        if later >= len(bars.close):
            return "unknown", later
        best, worst = (bars.high[later], bars.low[later]) if side > 0 else (bars.low[later], bars.high[later])
        if side * worst <= side * price * (1 - side * stop):
            return "lost", later
        if side * best >= side * price * (1 + side * target):
            return "won", later
    return "open", bar + horizon


@given(st.integers(2, 80), st.integers(1, 12), st.floats(0.3, 2.0), st.floats(0.3, 3.0), st.integers(0, 1000))
def test_triple_barriers_against_two_trades_followed_one_by_one(count: int, horizon: int, width: float, stop: float, seed: int) -> None:
    bars = walk(count, seed)
    settings = Labels(source="triple_barrier", horizon=horizon, threshold=width, stop_threshold=stop, volatility_window=3)
    found = label(bars, settings)
    widths = thresholds(bars.close, settings)
    for bar in range(count):
        if np.isnan(widths[bar]):
            assert not found.known[bar]
            continue
        trades = {side: trade_outcome(bars, bar, side, widths[bar], widths[bar] * (stop / width), horizon) for side in (1, -1)}
        if any(how == "unknown" for how, _ in trades.values()):
            assert not found.known[bar]
            continue
        won = [side for side, (how, _) in trades.items() if how == "won"]
        assert found.targets[bar] == (HOLD if len(won) != 1 else BUY if won == [1] else SELL)
        assert found.ends[bar] == max(end for _, end in trades.values())


# ---------------------------------------------------------------- zigzag

ZIGZAG = Labels(source="zigzag", reversal=0.05)


def test_a_leg_is_known_when_it_has_turned() -> None:
    closes = [100.0, 98.0, 102.0, 108.0, 110.0, 107.0, 104.0, 100.0, 101.0, 106.0]
    found = label(series(closes), ZIGZAG)
    # 98 is the low confirmed by 108 (bar 3); 110 the high confirmed by 104 (bar 6); 100 the low confirmed by 106 (bar 9)
    assert found.targets.tolist() == [HOLD, BUY, BUY, HOLD, SELL, SELL, HOLD, UNKNOWN, UNKNOWN, UNKNOWN]
    assert found.ends.tolist() == [3, 6, 6, 6, 9, 9, 9, 10, 10, 10]


def turning_points(close: np.ndarray, reversal: float) -> list[tuple[int, int]]:
    """Pairs of a turning point and the bar that confirms it, found by looking back from each bar."""
    found: list[tuple[int, int]] = []
    side = 0
    for bar in range(len(close)):
        since = found[-1][0] if found else 0
        part = close[since : bar + 1]
        high, low = since + int(part.argmax()), since + int(part.argmin())
        if side >= 0 and close[bar] <= close[high] * (1 - reversal):
            found.append((high, bar))
            side = -1
        elif side <= 0 and close[bar] >= close[low] * (1 + reversal):
            found.append((low, bar))
            side = 1
    return found


@given(st.integers(2, 200), st.floats(0.001, 0.02), st.integers(0, 1000))
def test_zigzag_against_turning_points_found_by_looking_back(count: int, reversal: float, seed: int) -> None:
    bars = walk(count, seed)
    found = label(bars, Labels(source="zigzag", reversal=reversal))
    points = turning_points(bars.close, reversal)
    for bar in range(count):
        coming = next(((point, confirmed) for point, confirmed in points if point > bar), None)
        if coming is None:
            assert not found.known[bar]
            continue
        rest = bars.close[coming[0]] / bars.close[bar] - 1
        assert found.targets[bar] == (BUY if rest >= reversal else SELL if rest <= -reversal else HOLD)
        assert found.ends[bar] == coming[1]


# ---------------------------------------------------------------- none looks further than it says

SOURCES = {
    "forward_return": Labels(horizon=5, volatility_window=3),
    "triple_barrier": Labels(source="triple_barrier", horizon=8, threshold=1.0, volatility_window=3),
    "zigzag": Labels(source="zigzag", reversal=0.004),
}


@pytest.mark.parametrize("source", [*SOURCES, "returns"])
@pytest.mark.parametrize("seed", range(8))
def test_a_label_looks_no_further_than_it_says_and_as_far(source: str, seed: int) -> None:
    """With the bars up to its end it is what it is with all; with one fewer it is not known."""
    bars = walk(70, seed)

    def labels(until: int) -> Labelled:
        return label(cut(bars, 0, until), SOURCES.get(source, Labels(horizon=5)), returns=source == "returns")

    whole = labels(70)
    assert whole.known.sum() > 20
    for bar in np.flatnonzero(whole.known):
        end = whole.ends[bar]
        part = labels(end + 1)
        assert part.known[bar]
        assert (part.targets[bar], part.ends[bar]) == (whole.targets[bar], end)
        assert not labels(end).known[bar]
