"""Indicators equal to TA-Lib called directly, and to a second implementation where TA-Lib has none or is young, on both samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import talib

from ktrdr_worker.trading.bars import Bars, cut, load
from ktrdr_worker.trading.indicators import compute, source_of
from ktrdr_zmq.samples import SAMPLES
from ktrdr_zmq.strategy.catalogue import CATALOGUE
from ktrdr_zmq.strategy.schema import IndicatorUse
from tests.oracles.textbook import TEXTBOOK, Table
from tests.unit.trading.uses import ask_talib, direct, drawn, use

pytestmark = pytest.mark.oracle

SAMPLE = {f"{sample.symbol}_{sample.timeframe}": sample for sample in SAMPLES}
PLAIN_LOOPS = 1500
"""Bars that the second implementations are compared on: they are slow."""


@pytest.fixture(scope="module", params=SAMPLE)
def bars(request: pytest.FixtureRequest) -> Bars:
    sample = SAMPLE[request.param]
    return load(sample.path, sample.path.name, sample.symbol, sample.timeframe, sample.timeframe).bars


def variants(kind: str) -> list[IndicatorUse]:
    """With default and with random parameters."""
    if kind == "stochastic_rsi":  # whose range must hold bars at which the price moves
        return [use(kind), use(kind, period=5, range=9, d_smooth=2, average="wma"), use(kind, "hl2", period=20, range=30, d_smooth=1)]
    return [use(kind), drawn(kind, 11, longest=30), drawn(kind, 12, longest=60), drawn(kind, 13)]


def same(found: np.ndarray, expected: np.ndarray, item: IndicatorUse, name: str) -> None:
    """Equal to about nine digits of the greatest value around: a difference of prices has no more than the prices leave it."""
    mine, theirs = found[item.warmup :], np.asarray(expected, dtype=np.float64)[item.warmup :]
    loose = 1e3 if item.type == "relative_volatility" else 1.0  # deviations of two bars, which TA-Lib takes from running sums of squares
    tolerance = 1e-9 * loose * max(1e-12, float(np.abs(mine).max()))
    np.testing.assert_allclose(mine, theirs, rtol=1e-8 * loose, atol=tolerance, err_msg=f"{item}.{name}")


def test_every_output_has_an_oracle() -> None:
    for kind, known in CATALOGUE.items():
        named = {name for one in direct(kind) for name in one.outputs}
        if not set(known.outputs) <= named and kind != "sar_extended":
            assert kind in TEXTBOOK, f"{kind}: {set(known.outputs) - named}"


@pytest.mark.parametrize("kind", [kind for kind in CATALOGUE if direct(kind)])
def test_equal_to_talib_called_directly(kind: str, bars: Bars) -> None:
    for item in variants(kind):
        found = compute(item, bars)
        if kind == "sar_extended":
            found["signed"] = found["value"] * found["direction"]
        for one in direct(kind):
            for name, expected in ask_talib(one, item, bars).items():
                same(found[name], expected, item, name)


@pytest.mark.parametrize("kind", TEXTBOOK)
def test_equal_to_a_second_implementation(kind: str, bars: Bars) -> None:
    bars = cut(bars, 0, PLAIN_LOOPS)
    for item in variants(kind):
        columns = (bars.open, bars.high, bars.low, bars.close, bars.volume, source_of(bars, item.source or "close"), bars.sessions)
        expected = TEXTBOOK[kind](Table(*map(pd.Series, columns)), **item.parameters)
        found = compute(item, bars)
        assert expected.keys() == found.keys() or not expected
        assert expected or item != use(kind)
        for name, values in expected.items():
            same(found[name], values, item, name)


def test_fixed_and_composed_functions_say_the_same_as_those_left_out(bars: Bars) -> None:
    """What the list of functions without an own name promises."""
    close, high, low = bars.close, bars.high, bars.low
    roc = compute(use("roc", period=7), bars)["roc"]
    same(roc / 100 + 1, talib.ROCR(close, 7), use("roc", period=7), "ROCR")
    same(roc + 100, talib.ROCR100(close, 7), use("roc", period=7), "ROCR100")
    item = use("stochastic", period=9, k_smooth=1, d_smooth=4)
    for name, values in zip("kd", talib.STOCHF(high, low, close, 9, 4), strict=True):
        same(compute(item, bars)[name], values, item, name)
    for name, values in zip(("macd", "signal", "histogram"), talib.MACD(close, 5, 11, 4), strict=True):
        same(compute(use("macd", fast=5, slow=11, signal=4), bars)[name], values, use("macd", fast=5, slow=11, signal=4), name)
    for source, function in (("ohlc4", talib.AVGPRICE), ("hl2", talib.MEDPRICE), ("hlc3", talib.TYPPRICE), ("hlcc4", talib.WCLPRICE)):
        columns = (bars.open, high, low, close) if source == "ohlc4" else (high, low) if source == "hl2" else (high, low, close)
        same(compute(use("price", source), bars)["price"], function(*columns), use("price"), source)
