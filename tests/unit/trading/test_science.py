"""Features, labels, splits and scores: against definitions, against other implementations, and against looking ahead."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_worker.trading.bars import Bars, DataError, cut
from ktrdr_worker.trading.features import Scaling, build, fit_scaling, scale
from ktrdr_worker.trading.scores import baseline, classification, ranks, score
from ktrdr_worker.trading.splits import Split, pooled
from ktrdr_zmq.results import REGRESSION_METRICS, ClassificationMetrics, RegressionMetrics
from ktrdr_zmq.strategy import find_strategy, parse_strategy
from tests.unit.trading.made import alone, walk

BUILT_IN = ["neuro_mean_reversion", "trend_follower", "return_forecast"]


# ---------------------------------------------------------------- features


@pytest.mark.parametrize("name", BUILT_IN)
def test_features_have_names_and_values_and_look_at_no_later_bar(name: str) -> None:
    strategy = parse_strategy(*find_strategy(name))
    bars = walk(400, seed=5, timeframe=strategy.base)
    whole = build(strategy, alone(bars))
    assert whole.ids == strategy.feature_ids
    assert whole.values.shape == (400, len(whole.ids))
    assert whole.warmup == max(strategy.warmup(strategy.base), strategy.data.history_required)
    assert np.isnan(whole.values[: whole.warmup]).all()
    assert np.isfinite(whole.values[whole.warmup :]).all()
    for end in (whole.warmup + 1, 350, 399):
        np.testing.assert_array_equal(build(strategy, alone(cut(bars, 0, end))).values, whole.values[:end])


def test_too_few_bars_for_the_strategy_are_an_error() -> None:
    strategy = parse_strategy(*find_strategy("neuro_mean_reversion"), {"training_data.history_required": 100})
    with pytest.raises(DataError, match="needs more than 100 bars"):
        build(strategy, alone(walk(100)))


def test_scaling_is_fitted_to_the_rows_that_it_is_given() -> None:
    strategy = parse_strategy(*find_strategy("neuro_mean_reversion"))
    rows = build(strategy, alone(walk(400))).values[150:300]
    scalings = fit_scaling(strategy, rows)
    assert scalings[0] == Scaling(0.0, 1.0)
    raw = scale(rows, scalings)[:, -1]
    assert raw.dtype == np.float32
    assert (abs(raw.mean()), raw.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    low_high = parse_strategy(*find_strategy("neuro_mean_reversion"), {"nn_inputs.4.normalization": "minmax"})
    scaled = scale(rows, fit_scaling(low_high, rows))[:, -1]
    assert (scaled.min(), scaled.max()) == (0.0, 1.0)


def test_an_input_that_never_varies_cannot_be_scaled() -> None:
    strategy = parse_strategy(*find_strategy("neuro_mean_reversion"))
    with pytest.raises(DataError, match=r"volatility.close has the same value"):
        fit_scaling(strategy, np.full((10, 11), 0.3))


# ---------------------------------------------------------------- splits


def split_bars(bars: np.ndarray, ends: np.ndarray, embargo: int, window: int) -> Split:
    """Bars of one symbol by their numbers: a label is over when the bar after its last begins."""
    return pooled(bars, ends + 1, bars - window + 1, (0.6, 0.2, 0.2), lambda boundary: boundary - embargo)


@given(st.integers(0, 300), st.integers(1, 30), st.integers(0, 20), st.integers(1, 12), st.integers(0, 10_000))
def test_no_label_reaches_into_the_next_part_or_its_embargo_and_no_window_into_the_one_before(
    count: int, horizon: int, embargo: int, window: int, seed: int
) -> None:
    """Against a split written sample by sample; nothing is left out without need."""
    chance = np.random.default_rng(seed)
    bars = np.flatnonzero(chance.random(count * 2) < 0.7)
    ends = bars + chance.integers(0, horizon + 1, len(bars))
    split = split_bars(bars, ends, embargo, window)
    n = len(bars)
    borders = [0, round(n * 0.6), round(n * 0.8), n]
    for number, part in enumerate(split):
        begin, end = borders[number], borders[number + 1]
        whole = [i for i in range(begin, end) if all(bar >= bars[begin] for bar in range(bars[i] - window + 1, bars[i] + 1))]
        expected = [i for i in whole if end >= n or ends[i] < bars[end] - embargo]
        assert part.rows.tolist() == expected
        assert (part.purged, part.skipped) == (len(whole) - len(expected), end - begin - len(whole))


@pytest.mark.parametrize(
    "moments, over, begins, shares",
    [
        ([1, 2], [2, 2], [1, 2], (0.6, 0.2, 0.2)),
        ([1, 2], [2, 3], [1, 3], (0.6, 0.2, 0.2)),
        ([1, 2], [2], [1, 2], (0.6, 0.2, 0.2)),
        ([[1], [2]], [[2], [3]], [[1], [2]], (0.6, 0.2, 0.2)),
        ([1, 2], [2, 3], [1, 2], (0.6, 0.2, 0.3)),
        ([1, 2], [2, 3], [1, 2], (0.8, 0.2, 0.0)),
    ],
)
def test_splits_that_make_no_sense(moments: list[int], over: list[int], begins: list[int], shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"must|needed"):
        pooled(np.array(moments), np.array(over), np.array(begins), shares, lambda boundary: boundary)


# ---------------------------------------------------------------- scores


def test_scores_by_hand() -> None:
    true = np.array([0, 0, 1, 2, 2, 2])
    probabilities = np.eye(3)[[0, 1, 1, 2, 2, 0]] * 0.8 + 0.1 * (1 - np.eye(3)[[0, 1, 1, 2, 2, 0]])
    found = classification(true, probabilities)
    assert found.confusion == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.balanced_accuracy == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)
    assert found.macro_f1 == pytest.approx((2 / 4 + 2 / 3 + 4 / 5) / 3)
    assert found.log_loss == pytest.approx(-(4 * math.log(0.8) + 2 * math.log(0.1)) / 6)
    # Gorodkin's formula from the confusion matrix: c s - sum p t over the root of (s^2 - sum p^2)(s^2 - sum t^2)
    assert found.mcc == pytest.approx((4 * 6 - (2 * 2 + 2 * 1 + 2 * 3)) / math.sqrt((36 - 12) * (36 - 14)))


def test_the_baseline_always_says_the_most_frequent_class_of_the_training_part() -> None:
    found = baseline(np.array([0, 1, 1, 2]), np.array([1, 1, 1, 0]))
    assert isinstance(found, ClassificationMetrics)
    assert found.accuracy == 0.5
    assert found.balanced_accuracy == pytest.approx(1 / 3)
    assert found.mcc is None


def test_scores_of_returns_by_hand() -> None:
    true, said, train = np.array([0.01, -0.02, 0.0, 0.03], dtype=np.float32), np.array([0.02, 0.01, 0.01, 0.02]), np.array([0.0, 0.01])
    found = score(true, said, train)
    assert isinstance(found, RegressionMetrics)
    errors = [0.01, 0.03, 0.01, -0.01]
    assert found.samples == 4
    assert found.mse == pytest.approx(sum(e * e for e in errors) / 4, rel=1e-6)
    assert found.mae == pytest.approx(0.015, rel=1e-6)
    assert found.r2 == pytest.approx(1 - 0.0012 / (0.005**2 + 0.025**2 + 0.005**2 + 0.025**2), rel=1e-6), "against the training part's mean"
    assert found.directional_accuracy == pytest.approx(2 / 3), "a return of 0 has no direction"
    assert found.ic == pytest.approx(np.corrcoef(true, said)[0, 1])
    assert ranks(said).tolist() == [3.5, 1.5, 1.5, 3.5]
    assert found.rank_ic == pytest.approx(np.corrcoef([3, 1, 2, 4], [3.5, 1.5, 1.5, 3.5])[0, 1])


def test_the_baseline_of_returns_always_says_the_mean_of_the_training_part() -> None:
    found = baseline(np.array([0.01, -0.02], dtype=np.float32), np.array([0.0, 0.02], dtype=np.float32))
    assert isinstance(found, RegressionMetrics)
    assert found.mse == pytest.approx((0.0**2 + 0.03**2) / 2)
    assert (found.r2, found.ic, found.rank_ic) == (0.0, None, None)


def test_what_is_undefined_of_returns_is_none() -> None:
    found = score(np.zeros(3, dtype=np.float32), np.ones(3), np.zeros(2))
    undefined = {name for name, value in found.items() if value is None}
    assert undefined == {name for name, metric in REGRESSION_METRICS.items() if metric.undefined}
    assert list(found) == list(REGRESSION_METRICS)


@pytest.mark.parametrize("said", [np.zeros(0), np.zeros(2)])
def test_scores_need_as_many_returns_as_there_are_samples(said: np.ndarray) -> None:
    with pytest.raises(ValueError, match="as many true returns"):
        score(np.zeros(len(said) // 2, dtype=np.float32), said, np.zeros(1))


def test_bars_are_cut_and_not_changed() -> None:
    part = cut(walk(10), 2, 5)
    assert isinstance(part, Bars)
    assert part.close.tolist() == walk(10).close[2:5].tolist()
