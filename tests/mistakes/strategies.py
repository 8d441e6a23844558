"""Mistakes in a strategy's file: what of a good one is written otherwise, and what is said of it."""

from __future__ import annotations

from typing import NamedTuple

MINE = """\
name: mine
version: "3.0"
training_data:
  symbols: {mode: single, symbol: EURUSD}
  timeframes: {mode: multi_timeframe, list: [1h, 1d], base_timeframe: 1h}
  history_required: 30
indicators:
  rsi_14: {type: rsi, period: 14}
  bands: {type: bbands, period: 20, deviations: 2.0}
  macd: {type: macd, fast: 12, slow: 26, signal: 9}
fuzzy_sets:
  momentum:
    indicator: rsi_14
    low: [0, 0, 25, 40]
    high: {type: gaussian, parameters: [75, 8]}
nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
  - {raw_indicator: bands.width, timeframes: [1h], normalization: zscore}
  - {raw_indicator: macd.histogram, timeframes: [1h], normalization: minmax}
model:
  type: mlp
  architecture: {hidden_layers: [16], activation: relu}
decisions:
  confidence_threshold: 0.4
risk:
  stop_loss: 0.01
training:
  epochs: 30
  early_stopping: {patience: 5}
  labels: {source: forward_return, horizon: 24, threshold: 0.5}
  data_split: {train: 0.6, validation: 0.2, test: 0.2}
"""


class InStrategy(NamedTuple):
    """One mistake: ``right`` is written as ``wrong``; ``said`` is the line that names it, and the only one."""

    right: str
    wrong: str


STRATEGIES = [
    InStrategy("name: mine", "name: 4 words here"),
    InStrategy('version: "3.0"', "version: 3.0"),
    InStrategy("training:\n", "trainning:\n"),
    InStrategy("risk:\n  stop_loss: 0.01", "risk: none"),
    InStrategy("mode: single, symbol: EURUSD", "mode: single, list: [EURUSD]"),
    InStrategy("mode: single, symbol: EURUSD", "mode: multi_symbol"),
    InStrategy("mode: single, symbol: EURUSD", "mode: multi_symbol, list: [EURUSD, EURUSD]"),
    InStrategy("symbol: EURUSD", "symbol: EUR/USD"),
    InStrategy("list: [1h, 1d]", "list: [1h, 2d]"),
    InStrategy("base_timeframe: 1h", "base_timeframe: 4h"),
    InStrategy("momentum, timeframes: all", "momentum, timeframes: [1h]"),
    InStrategy("momentum, timeframes: all", "momentum, timeframes: [1h, 1h]"),
    InStrategy("history_required: 30", "history_required: -1"),
    InStrategy("type: rsi,", "type: rsy,"),
    InStrategy("period: 14}", "perod: 14}"),
    InStrategy("period: 14}", "period: 14.5}"),
    InStrategy("period: 14}", "period: 1}"),
    InStrategy("period: 14}", "period: fourteen}"),
    InStrategy("period: 14}", "period: 14, source: clse}"),
    InStrategy("fast: 12, slow: 26", "fast: 26, slow: 12"),
    InStrategy("  macd: {", "  spare: {type: atr}\n  macd: {"),
    InStrategy("indicator: rsi_14", "indicator: rsi_15"),
    InStrategy("indicator: rsi_14", "indicator: rsi_14.signal"),
    InStrategy("indicator: rsi_14", "indicator: bands"),
    InStrategy("[0, 0, 25, 40]", "[0, 25]"),
    InStrategy("[0, 0, 25, 40]", "[0, 40, 25, 0]"),
    InStrategy("[0, 0, 25, 40]", "[0, 0, low, 40]"),
    InStrategy("type: gaussian", "type: gausian"),
    InStrategy("parameters: [75, 8]", "parameters: [75]"),
    InStrategy("parameters: [75, 8]", "parameters: [75, 0]"),
    InStrategy("nn_inputs:", "  spare:\n    indicator: rsi_14\n    middle: [30, 50, 70]\nnn_inputs:"),
    InStrategy("fuzzy_set: momentum", "fuzzy_set: momentun"),
    InStrategy("{fuzzy_set: momentum, timeframes: all}", "{timeframes: all}"),
    InStrategy("bands.width, timeframes: [1h]", "bands.width, timeframes: [4h]"),
    InStrategy("bands.width, timeframes: [1h]", "macd.histogram, timeframes: [1h]"),
    InStrategy(", normalization: zscore", ""),
    InStrategy("normalization: minmax", "normalization: log"),
    InStrategy("type: mlp", "type: mpl"),
    InStrategy("hidden_layers: [16]", "hidden_layers: []"),
    InStrategy("hidden_layers: [16]", "hidden_layers: [16], hidden_size: 32"),
    InStrategy("confidence_threshold: 0.4", "confidence_threshold: 40"),
    InStrategy("confidence_threshold: 0.4", "confidence: 0.4"),
    InStrategy("stop_loss: 0.01", "stop_loss: 1 %"),
    InStrategy("epochs: 30", "epochs: 2.5"),
    InStrategy("epochs: 30", "epochs: 30\n  epochs: 40"),
    InStrategy("{patience: 5}", "5"),
    InStrategy("source: forward_return", "source: forward"),
    InStrategy("threshold: 0.5}", "threshold: 0.5, scale: fraction, volatility_window: 20}"),
    InStrategy("test: 0.2}", "test: 0.3}"),
    InStrategy("  data_split: {", "  data_split: {{"),
    InStrategy("\n  data_split", "\n\tdata_split"),
]
