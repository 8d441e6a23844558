"""Mistakes on the command line: the words, and what is said. All exit with 2, submit nothing and write nothing."""

from __future__ import annotations

from typing import NamedTuple


class InParameters(NamedTuple):
    """One mistake: ``ktrdr`` with these words says this."""

    words: str


TRAIN = "models train --strategy neuro_mean_reversion "
PARAMETERS = [
    InParameters("models train"),
    InParameters("models trian"),
    InParameters("models train --strategy neuro_mean_reversio"),
    InParameters("models train --strategy ./none.yaml"),
    InParameters(TRAIN + "--symbol NOSUCH"),
    InParameters(TRAIN + "--symbol EUR/USD"),
    InParameters(TRAIN + "--symbol EURUSD,EURUSD"),
    InParameters(TRAIN + "--timeframe 7x"),
    InParameters(TRAIN + "--timeframe 15m"),
    InParameters("models train --strategy multi_timeframe_trend --timeframe 1w"),
    InParameters(TRAIN + "--start 30.06.2017"),
    InParameters(TRAIN + "--start 2017-06-31"),
    InParameters(TRAIN + "--start 2017-06-30 --end 2017-05-01"),
    InParameters(TRAIN + "--end 3017-01-01"),
    InParameters(TRAIN + "--data-dir ./nowhere"),
    InParameters(TRAIN + "--set training.epochs"),
    InParameters(TRAIN + "--set training.epochz=5"),
    InParameters(TRAIN + "--set training.epochs=many"),
    InParameters(TRAIN + "--set training.epochs=[5"),
    InParameters(TRAIN + "--set nn_inputs.9.timeframes=all"),
    InParameters(TRAIN + "--set a..b=1"),
    InParameters(TRAIN + "--name last"),
    InParameters(TRAIN + "--label team"),
    InParameters(TRAIN + "--device tpu"),
    InParameters(TRAIN + "--priority high"),
    InParameters(TRAIN + "--threads 0"),
    InParameters(TRAIN + "--epochs 5"),
    InParameters("backtest run --symbol EURUSD,SP500"),
    InParameters("backtest run --timeframe 1d"),
    InParameters("backtest run --capital 0"),
    InParameters("backtest run --commission 5"),
    InParameters("backtest run --commission 0.001 --commission-bps 10"),
    InParameters("backtest run --slippage-bps 20000"),
    InParameters("backtest run --strategy trend_follower"),
    InParameters("backtest run --set training.epochs=5"),
    InParameters("backtest run --set risk.stop_los=0.1"),
    InParameters("backtest run --model nobody"),
    InParameters("backtest run --model neuro_mean_reversion@0"),
    InParameters("jobs result last --trades ./nowhere/trades.csv"),
    InParameters("jobs result last --equity equity.xlsx"),
    InParameters("strategies copy neuro_mean_reversion mine.yaml"),
    InParameters("data list --data-dir ./nowhere"),
]
