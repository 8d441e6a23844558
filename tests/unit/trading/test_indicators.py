"""Indicators: the catalogue is what TA-Lib and the functions say, nothing looks ahead, nothing undefined passes for a number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st
from talib import abstract

from ktrdr_worker.trading.bars import Bars, DataError, cut
from ktrdr_worker.trading.features import build
from ktrdr_worker.trading.indicators import DEFINITIONS, FUNCTIONS, Prices, compute, prices_of, source_of
from ktrdr_zmq.strategy import parse_strategy
from ktrdr_zmq.strategy.catalogue import CATALOGUE, LEFT_OUT, meant_by
from ktrdr_zmq.strategy.indicator import AVERAGES, SOURCES
from ktrdr_zmq.strategy.schema import IndicatorUse
from tests.unit.trading.made import alone, walk
from tests.unit.trading.uses import direct, drawn, lookback, use

VARIANTS = {kind: (use(kind), drawn(kind, 1), drawn(kind, 2)) for kind in CATALOGUE}
NO_INDICATORS = ("Pattern Recognition", "Math Operators", "Math Transform")


# ---------------------------------------------------------------- the catalogue


def test_the_catalogue_is_what_the_functions_say() -> None:
    assert CATALOGUE == DEFINITIONS
    assert list(CATALOGUE) == list(DEFINITIONS)
    script = Path(__file__).parents[3] / "docs" / "make_catalogue.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_entry_makes_sense() -> None:
    for name, known in CATALOGUE.items():
        assert known.meaning.endswith("."), name
        assert known.outputs, name
        assert len(set(known.outputs)) == len(known.outputs), name
        for parameter in known.parameters.values():
            if parameter.choices:
                assert parameter.default in parameter.choices, name
            else:
                assert parameter.low <= float(parameter.default) <= parameter.high, name
        defaults = {key: parameter.default for key, parameter in known.parameters.items()}
        assert all(float(defaults[smaller]) < float(defaults[larger]) for smaller, larger in known.ordered), name
    others = [other.lower() for known in CATALOGUE.values() for other in (*known.also, *known.talib)]
    assert len(others) == len(set(others)), "another name means one indicator"
    assert not {other for known in CATALOGUE.values() for other in known.also} & CATALOGUE.keys()
    assert (meant_by("stoch"), meant_by("BBANDS"), meant_by("bollinger"), meant_by("nonsense")) == ("stochastic", "bbands", "bbands", None)


def test_every_function_of_talib_is_behind_an_indicator_or_left_out_with_a_reason() -> None:
    wanted = {name for group, names in talib.get_function_groups().items() if group not in NO_INDICATORS for name in names}
    behind = {name for known in CATALOGUE.values() for name in known.talib}
    assert behind | LEFT_OUT.keys() == wanted
    assert not behind & LEFT_OUT.keys()


@pytest.mark.parametrize("kind", [kind for kind in CATALOGUE if direct(kind)])
def test_the_warm_up_is_talibs_lookback(kind: str) -> None:
    for seed in range(60):
        item = drawn(kind, seed, longest=40)
        assert item.warmup == max(lookback(one, item.parameters) for one in direct(kind)), item


def test_the_defaults_are_talibs_but_for_these() -> None:
    found = {}
    for kind, known in CATALOGUE.items():
        for one in direct(kind):
            theirs = abstract.Function(one.function).parameters
            for name, ours in one.parameters.items():
                default = known.parameters[ours].default
                if not name.endswith("matype") and theirs[name] != default:
                    found[f"{kind}.{ours}"] = (theirs[name], default)
    assert found == {
        **dict.fromkeys([f"{kind}.period" for kind in ("sma", "ema", "wma", "dema", "tema", "trima", "zlema", "vwma")], (30, 20)),
        "donchian.period": (14, 20), "rma.period": (30, 14), "kama.period": (30, 10), "trix.period": (30, 15), "cci.period": (14, 20),
        "stochastic.period": (5, 14), "stochastic_rsi.range": (5, 14), "returns.period": (10, 1),
        "stddev.period": (5, 20), "variance.period": (5, 20), "beta.period": (5, 30),
    }  # fmt: skip


def test_an_average_is_as_late_as_talib_says() -> None:
    for average in AVERAGES:
        for period in range(2, 60):
            item = use("apo", fast=2, slow=period + 1, average=average)
            assert item.warmup == lookback(direct("apo")[0], item.parameters)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("kind", CATALOGUE)
def test_warm_up_and_outputs_are_what_the_catalogue_says(kind: str) -> None:
    bars = walk(400)
    for item in VARIANTS[kind]:
        outputs = compute(item, bars)
        assert tuple(outputs) == CATALOGUE[kind].outputs
        for values in outputs.values():
            assert np.isnan(values[: item.warmup]).all(), item
            assert np.isfinite(values[item.warmup :]).all(), item
        if kind not in ("fractal", "ht_trendmode"):  # of whole numbers, which TA-Lib begins with zeros
            with np.errstate(divide="ignore", invalid="ignore"):
                raw = FUNCTIONS[kind](prices_of(bars, item.source or "close"), **item.parameters)
            first = max(int(np.flatnonzero(np.isfinite(values))[0]) for values in (raw if isinstance(raw, tuple) else (raw,)))
            assert first == item.warmup, f"{item}: the slowest output decides"


def looks_ahead(item: IndicatorUse, bars: Bars) -> bool:
    """Whether a value changes when the bars after it are taken away."""
    whole = compute(item, bars)
    ends = [item.warmup + 1, *range(item.warmup + 2, len(bars.opens), max(1, (len(bars.opens) - item.warmup) // 12)), len(bars.opens) - 1]
    return any(
        not np.array_equal(values, whole[name][:end], equal_nan=True)
        for end in ends
        for name, values in compute(item, cut(bars, 0, end)).items()
    )


@pytest.mark.parametrize("kind", CATALOGUE)
def test_nothing_up_to_a_bar_depends_on_what_comes_after_it(kind: str) -> None:
    for item in VARIANTS[kind]:
        assert not looks_ahead(item, walk(260, seed=4)), item


@given(st.sampled_from(sorted(CATALOGUE)), st.integers(0, 10**6), st.integers(1, 60))
def test_whatever_the_parameters_and_the_bars_nothing_looks_ahead(kind: str, seed: int, after: int) -> None:
    item, bars = drawn(kind, seed), walk(260, seed=seed)
    try:
        whole = compute(item, bars)
    except DataError:  # a range of two bars in which nothing moves
        return
    for name, values in compute(item, cut(bars, 0, 260 - after)).items():
        np.testing.assert_array_equal(values, whole[name][: 260 - after])


@pytest.mark.parametrize("kind", CATALOGUE)
def test_an_indicator_that_peeks_one_bar_ahead_is_found_out(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FUNCTIONS[kind]

    def peeking(x: Prices, **parameters: object) -> tuple[np.ndarray, ...]:
        given = honest(x, **parameters)
        outputs = given if isinstance(given, tuple) else (given,)
        return tuple(np.append(values[1:], values[-1:]) for values in outputs)

    monkeypatch.setitem(FUNCTIONS, kind, peeking)
    assert looks_ahead(use(kind), walk(260, seed=4))


@pytest.mark.parametrize("kind", CATALOGUE)
def test_every_parameter_and_the_source_have_an_effect(kind: str) -> None:
    bars = walk(400, seed=8)
    item = use(kind)
    before = compute(item, bars)
    others = {name: _another(kind, name) for name in item.parameters}
    variants = [use(kind, **{name: value}) for name, value in others.items()]
    if CATALOGUE[kind].sourced:
        variants += [use(kind, source) for source in SOURCES if source != "close" and source != item.parameters.get("against")]
    for variant in variants:
        after = compute(variant, bars)
        assert any(not np.array_equal(before[name], after[name], equal_nan=True) for name in before), variant


def _another(kind: str, name: str) -> float | str:
    parameter = CATALOGUE[kind].parameters[name]
    if parameter.choices:
        return next(word for word in parameter.choices if word != parameter.default and word != "close" and word != "volume")
    if parameter.whole:
        return int(parameter.default) + 1
    return float(parameter.default) + min(0.1, (parameter.high - float(parameter.default)) / 2) or float(parameter.default) / 2


@pytest.mark.parametrize("kind", CATALOGUE)
def test_unstable_is_what_more_history_changes(kind: str) -> None:
    bars, skipped = walk(400, seed=6), 37
    for item in VARIANTS[kind]:
        whole, late = compute(item, bars), compute(item, cut(bars, skipped, 400))
        same = all(
            np.allclose(values[item.warmup :], whole[name][skipped + item.warmup :], rtol=1e-7, atol=1e-9) for name, values in late.items()
        )
        if kind == "vwap" and item.parameters["period"]:
            assert same, item
        elif item != use("connors_rsi"):  # whose memory is shorter than the ranks that it waits for
            assert same is not item.unstable, item


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize("kind", CATALOGUE)
def test_too_few_bars_are_an_error(kind: str) -> None:
    item = drawn(kind, 3)
    with pytest.raises(DataError, match=f"my_{item.type} needs more than {item.warmup} bars of 1h; there are {item.warmup}"):
        compute(item, walk(item.warmup))
    compute(item, walk(item.warmup + 1))


FLAT_HAS_A_VALUE = {
    "price", "sma", "ema", "rma", "wma", "dema", "tema", "t3", "trima", "kama", "hma", "zlema", "alma", "vwma", "vwap", "mama",
    "ht_trendline", "midpoint", "acceleration_bands", "ichimoku", "supertrend", "sar", "sar_extended", "chandelier_exit",
    "macd", "apo", "ppo", "momentum", "roc", "returns", "log_return", "trix", "coppock", "kst", "ao", "ac", "bop", "qstick", "elder_ray",
    "forecast_oscillator", "dpo", "directional_movement", "aroon", "fractal", "heikin_ashi", "atr", "true_range", "average_range",
    "realized_volatility", "ulcer_index", "drawdown", "obv", "ad", "chaikin_oscillator", "cmf", "force_index", "market_facilitation",
    "ease_of_movement", "nvi", "pvi", "pvt", "williams_ad", "pvo", "relative_volume", "amihud", "ht_dcperiod", "ht_dcphase", "ht_phasor",
    "ht_sine", "ht_trendmode", "stddev", "variance", "mean_deviation", "linear_regression", "percentile", "percent_rank",
}  # fmt: skip
"""Averages, differences and distances: on prices that do not move they have a value. All others divide by a movement."""


@pytest.mark.parametrize("kind", CATALOGUE)
@pytest.mark.parametrize("stretch", ["always", "at the end"])
def test_prices_that_do_not_move_are_an_error_where_a_movement_is_divided_by(kind: str, stretch: str) -> None:
    bars = walk(420)
    still = np.full(420, 1.05123)
    if stretch == "at the end":
        quiet = np.arange(420) >= 250
        bars = bars._replace(**{name: np.where(quiet, still, getattr(bars, name)) for name in ("open", "high", "low", "close")})
        remembers = {
            "rsi", "cmo", "tsi", "smi", "adx", "adxr", "dx", "mass_index", "relative_volatility", "stc", "connors_rsi",
            "chaikin_volatility", "keltner",
        }  # fmt: skip
        expected = FLAT_HAS_A_VALUE | remembers
    else:
        bars = bars._replace(open=still, high=still, low=still, close=still)
        expected = FLAT_HAS_A_VALUE
    if kind in expected:
        compute(use(kind), bars)
    else:
        with pytest.raises(
            DataError, match=rf"my_{kind}\.\w+ has no value at bar \d+ of EURUSD 1h: the \w+( or volumes)? before it do not move"
        ):
            compute(use(kind), bars)


NEED_VOLUME = [kind for kind, known in CATALOGUE.items() if known.volume]


@pytest.mark.parametrize(
    "item", [*map(use, NEED_VOLUME), use("sma", "volume"), use("correlation", against="volume"), use("price", "volume")], ids=str
)
def test_without_volume_what_needs_it_is_an_error_and_not_zero(item: IndicatorUse) -> None:
    bars = walk(300)
    with pytest.raises(DataError, match=f"my_{item.type} needs volume, and EURUSD 1h has none: that of every bar is 0"):
        compute(item, bars._replace(volume=np.zeros(300)))


def test_the_others_need_no_volume() -> None:
    bars = walk(300)
    for kind in CATALOGUE.keys() - set(NEED_VOLUME) - {"correlation"}:
        compute(use(kind), bars._replace(volume=np.zeros(300)))


@pytest.mark.parametrize("kind", ["cmf", "mfi", "vwma", "market_facilitation", "relative_volume", "ease_of_movement", "amihud"])
def test_a_stretch_without_volume_is_an_error_where_it_is_divided_by(kind: str) -> None:
    bars = walk(200)
    volume = np.where((np.arange(200) >= 100) & (np.arange(200) < 150), 0.0, bars.volume)
    with pytest.raises(
        DataError, match=rf"my_{kind}\.{kind} has no value at bar 1\d\d of EURUSD 1h: the prices or volumes before it do not move"
    ):
        compute(use(kind), bars._replace(volume=volume))


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_a_nan_among_the_bars_is_an_error(column: str) -> None:
    bars = walk(60)
    values = getattr(bars, column).copy()
    values[30] = np.nan
    with pytest.raises(DataError, match=f"The {column} of bar 30 of EURUSD 1h is nan"):
        compute(use("sma"), bars._replace(**{column: values}))


def test_the_bars_themselves_are_left_alone() -> None:
    bars = walk(300)
    before = [np.array(column) for column in bars[2:]]
    for kind in CATALOGUE:
        for values in compute(use(kind), bars).values():
            values[:] = 0.0
    for column, copy in zip(bars[2:], before, strict=True):
        np.testing.assert_array_equal(column, copy)


def test_every_output_of_every_indicator_can_be_a_feature() -> None:
    """From the file that a person writes to the matrix that a network reads."""
    data = "training_data: {timeframes: {mode: single, timeframe: 1h}}"
    lines = ["name: all", 'version: "3.0"', data, "indicators:", *(f"  my_{kind}: {{type: {kind}}}" for kind in CATALOGUE), "nn_inputs:"]
    names = [f"my_{kind}.{output}" for kind, known in CATALOGUE.items() for output in known.outputs]
    strategy = parse_strategy("\n".join([*lines, *(f"  - {{raw_indicator: {name}, normalization: zscore}}" for name in names)]), "all.yaml")
    bars = walk(300, seed=2)
    features = build(strategy, alone(bars))
    assert features.ids == [f"1h_{name}" for name in names]
    assert features.warmup == max(item.warmup for item in strategy.indicators.values())
    for index, name in enumerate(names):
        kind, _, output = name.removeprefix("my_").partition(".")
        np.testing.assert_array_equal(features.values[features.warmup :, index], compute(use(kind), bars)[output][features.warmup :])


def test_sources_are_prices_or_their_means() -> None:
    bars = walk(5)
    for source in SOURCES:
        assert source_of(bars, source).shape == (5,)
    np.testing.assert_allclose(source_of(bars, "hlc3"), (bars.high + bars.low + bars.close) / 3)
    np.testing.assert_allclose(source_of(bars, "hlcc4"), (bars.high + bars.low + bars.close + bars.close) / 4)
    with pytest.raises(ValueError, match="no source"):
        source_of(bars, "typical")
