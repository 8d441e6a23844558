"""Every built-in strategy trains and backtests through real processes; one strategy on several symbols, one timeframe for another."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from ktrdr_zmq.samples import find_sample
from ktrdr_zmq.strategy import find_strategy, list_strategies, parse_strategy
from tests.e2e.house import House

pytestmark = [pytest.mark.e2e, pytest.mark.science, pytest.mark.slow, pytest.mark.timeout(300)]

BRIEF = ("--set", "training.epochs=3")


@pytest.fixture
def staffed(house: House) -> House:
    house.broker()
    house.worker("all", "--slots", "cpu=2", kinds="training,backtesting")
    return house


def test_every_built_in_strategy_trains_and_backtests_on_the_sample_bars(staffed: House) -> None:
    names = [info.name for info in list_strategies() if info.origin == "built-in"]
    assert {"neuro_mean_reversion", "trend_follower", "multi_timeframe_trend", "return_forecast"} <= set(names)
    shown = {one["strategy"]: one for one in staffed.cli_json("strategies", "validate", *names)["strategies"]}
    assert all(shown[name]["valid"] for name in names)
    for name in names:
        strategy = parse_strategy(*find_strategy(name))
        trained = staffed.cli_json("models", "train", "--strategy", name, *BRIEF)["result"]
        assert (trained["symbols"], trained["timeframes"], trained["timeframe"]) == (
            list(strategy.symbols), list(strategy.timeframes), strategy.base,
        )  # fmt: skip
        assert trained["feature_ids"] == strategy.feature_ids
        threshold = "return_threshold" if strategy.regression else "confidence_threshold"
        tested = staffed.cli_json("backtest", "run", "-m", name, "--set", f"decisions.{threshold}=0")["result"]
        assert (tested["symbol"], tested["timeframes"], tested["in_sample"]) == (strategy.symbols[0], list(strategy.timeframes), False)
        assert tested["metrics"]["trades"] > 0, name
        assert tested["window"]["first"] > trained["validation_part"]["label_end"]


def second_symbol(folder: Path) -> None:
    """Bars of another pair at the same time: the sample's, upside down."""
    sample = find_sample("EURUSD", "1h")
    assert sample is not None
    head, *rows = sample.path.read_text().splitlines()
    turned = []
    for row in rows:
        time, opening, high, low, close, *more = row.split(",")
        prices = (f"{1 / float(price):.6f}" for price in (opening, low, high, close))
        turned.append(",".join([time, *prices, *more]))
    (folder / "USDCHF_1h.csv").write_text("\n".join([head, *turned]) + "\n")


def test_one_model_of_two_symbols_and_a_backtest_of_each(staffed: House, tmp_path: Path) -> None:
    folder = tmp_path / "bars"
    folder.mkdir()
    second_symbol(folder)
    own = ("--data-dir", str(folder))
    wanted = ("--symbol", "EURUSD,USDCHF", "--timeframe", "4h")
    trained = staffed.cli_json("models", "train", "--strategy", "multi_timeframe_trend", *wanted, *own, *BRIEF)["result"]
    assert (trained["symbols"], trained["timeframe"], trained["timeframes"]) == (["EURUSD", "USDCHF"], "4h", ["1h", "4h", "1d"])
    assert trained["overrides"]["training_data.symbols"] == {"mode": "multi_symbol", "list": ["EURUSD", "USDCHF"]}
    assert trained["overrides"]["training_data.timeframes.base_timeframe"] == "4h"
    assert [(one["symbol"], one["origin"]) for one in trained["data"]] == [("EURUSD", "built-in"), ("USDCHF", "data-dir")]
    assert trained["test_part"]["by_symbol"]["EURUSD"] == trained["test_part"]["by_symbol"]["USDCHF"] > 100
    hours = dt.timedelta(hours=4)
    label_over = dt.datetime.fromisoformat(trained["validation_part"]["label_end"]) + hours
    for asked, symbol in (((), "EURUSD"), (("--symbol", "USDCHF"), "USDCHF")):
        tested = staffed.cli_json("backtest", "run", *own, *asked)["result"]
        assert (tested["symbol"], tested["data"]["symbol"], tested["in_sample"]) == (symbol, symbol, False)
        assert dt.datetime.fromisoformat(tested["window"]["first"]) >= label_over
    seen = staffed.cli_json("backtest", "run", *own, "--symbol", "USDCHF", "--start", "2017-03-01", "--end", "2017-04-01")["result"]
    assert seen["in_sample"]
    refused = staffed.cli("backtest", "run", *own, "--symbol", "EURUSD,USDCHF")
    assert (refused.returncode, "A backtest is of one symbol" in refused.stderr) == (2, True)
    other = staffed.cli("backtest", "run", *own, "--timeframe", "1h")
    assert (other.returncode, "The model decides on bars of 4h, not of 1h" in other.stderr) == (2, True)
