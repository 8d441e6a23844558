"""The adapter: what the catalogue promises is what TA-Lib gives, nothing looks ahead, nothing is silently ignored."""

from __future__ import annotations

import numpy as np
import pytest
import talib

from ktrdr_worker.trading.bars import DataError, cut
from ktrdr_worker.trading.indicators import FUNCTIONS, compute, source_of
from ktrdr_zmq.strategy.catalogue import CATALOGUE, SOURCES
from ktrdr_zmq.strategy.schema import IndicatorUse
from tests.unit.trading.made import walk


def use(kind: str, source: str = "close", **parameters: float) -> IndicatorUse:
    known = CATALOGUE[kind]
    values = {name: parameters.get(name, parameter.default) for name, parameter in known.parameters.items()}
    assert parameters.keys() <= values.keys()
    return IndicatorUse(f"my_{kind}", kind, source if known.sourced else "", values)


VARIANTS = [
    *(use(kind) for kind in CATALOGUE),
    use("sma", "hl2", period=3), use("ema", "volume", period=2), use("rsi", "open", period=5), use("macd", fast=3, slow=7, signal=1),
    use("bbands", "ohlc4", period=5, deviations=1.5), use("atr", period=2), use("adx", period=5),
    use("stochastic", period=5, k_smooth=1, d_smooth=4),
]  # fmt: skip


def test_every_indicator_of_the_catalogue_can_be_computed() -> None:
    assert FUNCTIONS.keys() == CATALOGUE.keys()


@pytest.mark.parametrize("item", VARIANTS, ids=str)
def test_warm_up_and_outputs_are_what_the_catalogue_says(item: IndicatorUse) -> None:
    bars = walk(200)
    outputs = compute(item, bars)
    assert tuple(outputs) == CATALOGUE[item.type].outputs
    for values in outputs.values():
        assert np.isnan(values[: item.warmup]).all()
        assert np.isfinite(values[item.warmup :]).all()
    raw = FUNCTIONS[item.type](bars, np.ascontiguousarray(source_of(bars, item.source or "close")), item.parameters)
    first = max(int(np.flatnonzero(np.isfinite(values))[0]) for values in raw)
    assert first == item.warmup, "the slowest output decides"


@pytest.mark.parametrize("item", VARIANTS, ids=str)
def test_nothing_up_to_a_bar_depends_on_what_comes_after_it(item: IndicatorUse) -> None:
    bars = walk(150, seed=4)
    whole = compute(item, bars)
    for end in (item.warmup + 1, 80, 149):
        for name, values in compute(item, cut(bars, 0, end)).items():
            np.testing.assert_array_equal(values, whole[name][:end])


@pytest.mark.parametrize("item", VARIANTS, ids=str)
def test_too_few_bars_are_an_error(item: IndicatorUse) -> None:
    with pytest.raises(DataError, match=f"my_{item.type} needs more than {item.warmup} bars"):
        compute(item, walk(item.warmup))
    compute(item, walk(item.warmup + 1))


def test_indicators_against_their_definitions() -> None:
    """A second implementation of each, as the textbooks write it."""
    bars = walk(120, seed=9)
    close, high, low = bars.close, bars.high, bars.low

    def ema(values: np.ndarray, period: int) -> np.ndarray:
        out = np.full(len(values), np.nan)
        start = int(np.flatnonzero(np.isfinite(values))[0]) + period - 1
        out[start] = values[start - period + 1 : start + 1].mean()
        for t in range(start + 1, len(values)):
            out[t] = out[t - 1] + 2.0 / (period + 1) * (values[t] - out[t - 1])
        return out

    def wilder(values: np.ndarray, period: int, start: int) -> np.ndarray:
        out = np.full(len(values), np.nan)
        out[start] = values[start - period + 1 : start + 1].mean()
        for t in range(start + 1, len(values)):
            out[t] = (out[t - 1] * (period - 1) + values[t]) / period
        return out

    def sma(values: np.ndarray, period: int) -> np.ndarray:
        out = np.full(len(values), np.nan)
        for t in range(period - 1, len(values)):
            out[t] = values[t - period + 1 : t + 1].mean()
        return out

    steps = np.diff(close, prepend=np.nan)
    gain, loss = np.where(steps > 0, steps, 0.0), np.where(steps < 0, -steps, 0.0)
    up, down = wilder(gain, 14, 14), wilder(loss, 14, 14)
    true_range = np.maximum(high[1:] - low[1:], np.maximum(np.abs(high[1:] - close[:-1]), np.abs(low[1:] - close[:-1])))
    atr = wilder(np.concatenate(([np.nan], true_range)), 14, 14)
    middle = sma(close, 20)
    deviation = np.array([np.nan] * 19 + [close[t - 19 : t + 1].std() for t in range(19, 120)])
    fast_k = np.array(
        [np.nan] * 13
        + [100 * (close[t] - low[t - 13 : t + 1].min()) / (high[t - 13 : t + 1].max() - low[t - 13 : t + 1].min()) for t in range(13, 120)]
    )
    k = np.concatenate((np.full(13, np.nan), sma(fast_k[13:], 3)))
    expected = {
        ("sma", "sma"): sma(close, 20),
        ("ema", "ema"): ema(close, 20),
        ("rsi", "rsi"): 100.0 - 100.0 / (1.0 + up / down),
        ("atr", "atr"): atr,
        ("atr", "relative"): atr / close,
        ("bbands", "upper"): middle + 2 * deviation,
        ("bbands", "percent_b"): (close - middle + 2 * deviation) / (4 * deviation),
        ("bbands", "width"): 4 * deviation / middle,
        ("stochastic", "k"): k,
        ("stochastic", "d"): np.concatenate((np.full(15, np.nan), sma(k[15:], 3))),
    }
    for (kind, output), values in expected.items():
        item = use(kind)
        np.testing.assert_allclose(compute(item, bars)[output][item.warmup :], values[item.warmup :], rtol=1e-7, err_msg=f"{kind}.{output}")
    macd = compute(use("macd"), bars)
    np.testing.assert_allclose(macd["histogram"][33:], (macd["macd"] - macd["signal"])[33:], rtol=1e-12)


def test_directional_movement_against_talib_called_directly() -> None:
    bars = walk(120, seed=2)
    found = compute(use("adx", period=7), bars)
    for output, function in (("adx", talib.ADX), ("plus_di", talib.PLUS_DI), ("minus_di", talib.MINUS_DI)):
        np.testing.assert_array_equal(found[output][13:], function(bars.high, bars.low, bars.close, timeperiod=7)[13:])


def test_sources_are_prices_or_their_means() -> None:
    bars = walk(5)
    for source in SOURCES:
        assert source_of(bars, source).shape == (5,)
    np.testing.assert_allclose(source_of(bars, "hlc3"), (bars.high + bars.low + bars.close) / 3)
    with pytest.raises(ValueError, match="no source"):
        source_of(bars, "typical")


def test_prices_that_do_not_move_have_no_place_in_a_band() -> None:
    bars = walk(60)
    flat = bars._replace(close=np.ones(60))
    with pytest.raises(DataError, match=r"my_bbands.percent_b has no value at bar 19 of EURUSD 1h"):
        compute(use("bbands"), flat)
