"""The grammar: what is accepted, and a table of mistakes, each with the place and the words that a person gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.strategy import Strategy, StrategyInvalid, check_overrides, find_strategy, list_strategies, parse_strategy, placement

GOOD = """\
name: small
version: "3.0"
training_data:
  symbols: {mode: single, symbol: EURUSD}
  timeframes: {mode: single, timeframe: 1h}
indicators:
  rsi_14: {type: rsi, period: 14}
  adx_14: {type: adx}
  macd: {type: macd, fast: 5, slow: 9}
  bands: {type: bbands}
fuzzy_sets:
  momentum:
    indicator: rsi_14
    low: [0, 25, 40]
    high: {type: gaussian, parameters: [70, 10]}
  strength:
    indicator: adx_14.plus_di
    strong: [20, 35, 100, 100]
nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
  - {fuzzy_set: strength, timeframes: [1h]}
  - {raw_indicator: macd, normalization: zscore}
  - {raw_indicator: bands.width, normalization: minmax}
model: {type: mlp, architecture: {hidden_layers: [8]}}
decisions: {confidence_threshold: 0.4}
risk: {stop_loss: 0.01}
training: {epochs: 3}
"""


def problems(text: str, **overrides: object) -> list[str]:
    with pytest.raises(StrategyInvalid) as caught:
        parse_strategy(text, "my.yaml", overrides)
    return [str(problem) for problem in caught.value.problems]


def test_a_strategy_becomes_features_in_the_order_of_the_file() -> None:
    parsed = parse_strategy(GOOD, "my.yaml")
    assert parsed.feature_ids == ["1h_momentum_low", "1h_momentum_high", "1h_strength_strong", "1h_macd", "1h_bands.width"]
    assert [feature.normalization for feature in parsed.features] == [None, None, None, "zscore", "minmax"]
    assert (parsed.symbols, parsed.timeframes, parsed.base, parsed.training.epochs) == (("EURUSD",), ("1h",), "1h", 3)
    assert parsed.indicators["adx_14"].parameters == {"period": 14}
    assert parsed.warmup("1h") == 27  # ADX with its default period


SEVERAL = GOOD.replace("{mode: single, timeframe: 1h}", "{mode: multi_timeframe, list: [1d, 1h, 4h], base_timeframe: 1h}").replace(
    "timeframes: [1h]", "timeframes: [4h, 1d]"
)


def test_several_timeframes_become_features_input_by_input_timeframe_by_timeframe_label_by_label() -> None:
    parsed = parse_strategy(SEVERAL, "my.yaml")
    assert (parsed.timeframes, parsed.base) == (("1d", "1h", "4h"), "1h")
    assert parsed.feature_ids == [
        "1d_momentum_low", "1d_momentum_high", "1h_momentum_low", "1h_momentum_high", "4h_momentum_low", "4h_momentum_high",
        "4h_strength_strong", "1d_strength_strong", "1d_macd", "1h_macd", "4h_macd", "1d_bands.width", "1h_bands.width", "4h_bands.width",
    ]  # fmt: skip
    assert {name: parsed.warmup(name) for name in parsed.timeframes} == {"1h": 19, "4h": 27, "1d": 27}, "ADX is computed on two of them"
    assert parse_strategy(SEVERAL.replace(", base_timeframe: 1h", ""), "my.yaml").base == "1h", "the shortest"
    assert parse_strategy(SEVERAL.replace("base_timeframe: 1h", "base_timeframe: 4h"), "my.yaml").base == "4h"


def test_an_input_may_be_there_once_for_each_timeframe() -> None:
    line = "  - {raw_indicator: macd, normalization: zscore}\n"
    split = line.replace("macd,", "macd, timeframes: [1h],") + line.replace("macd,", "macd, timeframes: [4h],").replace("zscore", "minmax")
    features = parse_strategy(SEVERAL.replace(line, split), "my.yaml").features
    assert [(one.id, one.normalization) for one in features if "macd" in one.id] == [("1h_macd", "zscore"), ("4h_macd", "minmax")]
    assert any(
        "nn_inputs[3]: is the same input as nn_inputs[2] on 4h" in p for p in problems(SEVERAL.replace(line, split.replace("1h", "4h")))
    )


def test_a_timeframe_that_no_input_reads_is_a_mistake_but_for_the_base() -> None:
    text = SEVERAL.replace("[1d, 1h, 4h]", "[1d, 1h, 4h, 1w]")
    parse_strategy(text, "my.yaml")
    narrow = {f"nn_inputs.{index}.timeframes": ["4h", "1d"] for index in (0, 2, 3)}
    assert problems(text, **narrow) == [
        "my.yaml:5: training_data.timeframes.list[3]: 1w is not used: no entry of nn_inputs is computed on it"
    ]


def test_a_strategy_for_several_symbols() -> None:
    text = GOOD.replace("{mode: single, symbol: EURUSD}", "{mode: multi_symbol, list: [EURUSD, GBPUSD]}")
    assert parse_strategy(text, "my.yaml").symbols == ("EURUSD", "GBPUSD")


def test_where_the_file_names_no_timeframe_features_wait_for_the_command() -> None:
    text = GOOD.replace("  timeframes: {mode: single, timeframe: 1h}\n", "")
    assert "neither the file nor the command names a timeframe" in problems(text)[0]
    parsed = parse_strategy(text.replace("timeframes: [1h]", "timeframes: all"), "my.yaml")
    assert (parsed.timeframes, parsed.base, parsed.features) == ((), "", ())
    placed = parse_strategy(text, "my.yaml", {"training_data.timeframes": {"timeframe": "1h"}})
    assert placed.features == parse_strategy(GOOD, "my.yaml").features


@pytest.mark.parametrize(
    "text,symbols,timeframe,expected",
    [
        (GOOD, [], None, {}),
        (GOOD, ["EURUSD"], "1h", {}),
        (GOOD, ["SP500"], None, {"training_data.symbols": {"mode": "single", "symbol": "SP500"}}),
        (GOOD, ["A", "B"], None, {"training_data.symbols": {"mode": "multi_symbol", "list": ["A", "B"]}}),
        (GOOD, [], "4h", {"training_data.timeframes": {"mode": "single", "timeframe": "4h"}}),
        (SEVERAL, [], "4h", {"training_data.timeframes.base_timeframe": "4h"}),
        (SEVERAL, [], "1h", {}),
    ],
)
def test_what_a_command_says_about_symbols_and_timeframe_becomes_values_of_the_strategy(
    text: str, symbols: list[str], timeframe: str | None, expected: dict[str, object]
) -> None:
    assert placement(text, "my.yaml", {}, symbols, timeframe) == expected
    parsed = parse_strategy(text.replace("timeframes: [1h]", "timeframes: all"), "my.yaml", expected)
    assert parsed.symbols == (tuple(symbols) or ("EURUSD",))
    assert parsed.base == (timeframe or "1h")


def test_a_timeframe_that_a_strategy_with_several_does_not_read_is_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match="reads bars of 1d, 1h, 4h; .* 15m is none of them") as caught:
        placement(SEVERAL, "my.yaml", {}, [], "15m")
    assert "training_data.timeframes.list=[15m" in caught.value.hint
    more = {"training_data.timeframes.list": ["15m", "1h", "4h", "1d"]}
    assert placement(SEVERAL, "my.yaml", more, [], "15m") == {"training_data.timeframes.base_timeframe": "15m"}


MISTAKES = [
    ("name: small", "name: 4 words here", "my.yaml:1: name: must be a name"),
    ('version: "3.0"', "version: 3.0", 'my.yaml:2: version: must be "3.0" (in quotes)'),
    ('version: "3.0"', 'version: "2.0"', 'version: must be "3.0"'),
    ("symbol: EURUSD", "symbol: [EURUSD]", "my.yaml:4: training_data.symbols.symbol: must be text"),
    ("mode: single, symbol", "mode: multi_symbol, symbol", "training_data.symbols.symbol: has no effect with mode: multi_symbol"),
    ("mode: single, symbol", "mode: all, symbol", "training_data.symbols.mode: must be 'single' or 'multi_symbol', not 'all'"),
    ("{mode: single, symbol: EURUSD}", "{mode: single, list: [EURUSD]}", "my.yaml:4: training_data.symbols.list: has no effect"),
    ("{mode: single, symbol: EURUSD}", "{mode: single}", "training_data.symbols.symbol: is missing: mode: single needs it"),
    ("{mode: single, symbol: EURUSD}", "{mode: multi_symbol}", "training_data.symbols.list: is missing: mode: multi_symbol needs it"),
    ("{mode: single, symbol: EURUSD}", "{mode: multi_symbol, list: []}", "training_data.symbols.list: must not be empty"),
    ("{mode: single, symbol: EURUSD}", "{mode: multi_symbol, list: EURUSD}", "training_data.symbols.list: must be a list, not 'EURUSD'"),
    ("{mode: single, symbol: EURUSD}", "{mode: multi_symbol, list: 5}", "training_data.symbols.list: must be a list, not 5"),
    ("{mode: single, symbol: EURUSD}", "{mode: multi_symbol, list: [A B]}", "training_data.symbols.list[0]: "),
    ("{mode: single, symbol: EURUSD}", "{mode: multi_symbol, list: [A, B, A]}", "training_data.symbols.list: names 'A' twice"),
    ("timeframe: 1h}", "timeframe: 1h, base_timeframe: 1h}", "training_data.timeframes.base_timeframe: has no effect with mode: single"),
    ("single, timeframe: 1h", "multi_timeframe, list: [1h, 2h]", "my.yaml:5: training_data.timeframes.list[1]: there is no timeframe '2h'"),
    ("single, timeframe: 1h", "multi_timeframe, list: [1h, 4h], base_timeframe: 1d", "must be one of list (1h, 4h), not '1d'"),
    ("single, timeframe: 1h", "multi_timeframe, list: [1h, 1h]", "training_data.timeframes.list: names '1h' twice"),
    ("timeframe: 1h}", "timeframe: 2h}", "training_data.timeframes.timeframe: there is no timeframe '2h'"),
    ("type: rsi", "type: rsy", "my.yaml:7: indicators.rsi_14.type: there is no indicator 'rsy'; did you mean rsi?"),
    ("type: rsi", "type: STOCH", "indicators.rsi_14.type: there is no indicator 'STOCH'; did you mean stochastic?"),
    ("type: rsi", "type: bollinger", "indicators.rsi_14.type: there is no indicator 'bollinger'; did you mean bbands?"),
    ("fast: 5, slow: 9", "average: smma", "indicators.macd.average: must be one of sma, ema, wma, dema, tema, trima,"),
    ("fast: 5, slow: 9", "average: 5", "indicators.macd.average: must be one of sma, ema,"),
    ("type: macd, fast: 5, slow: 9", "type: sar, acceleration: 0.3", "indicators.macd.acceleration: must be below maximum, which is 0.2"),
    ("type: macd, fast: 5, slow: 9", "type: correlation, against: clsoe", "indicators.macd.against: must be one of open, high, low,"),
    ("type: macd, fast: 5, slow: 9", "type: t3, volume_factor: 1.5", "indicators.macd.volume_factor: must be between 0 and 1, not 1.5"),
    ("period: 14}", "perod: 14}", "indicators.rsi_14.perod: rsi has no such parameter; did you mean period?"),
    ("period: 14}", "period: 14.5}", "indicators.rsi_14.period: must be a whole number, not 14.5"),
    ("period: 14}", "period: 1}", "indicators.rsi_14.period: must be between 2 and 5000, not 1"),
    ("period: 14}", "period: yes}", "indicators.rsi_14.period: must be a number, not 'yes'"),
    ("period: 14}", "period: true}", "indicators.rsi_14.period: must be a number, not True"),
    ("period: 14}", "source: clse}", "indicators.rsi_14.source: there is no source 'clse'; did you mean close?"),
    ("{type: adx}", "{type: adx, source: close}", "indicators.adx_14.source: adx has no such parameter"),
    ("{type: adx}", "adx", "indicators.adx_14: must hold type: and parameters"),
    ("{type: adx}", "{}", "indicators.adx_14.type: type is missing"),
    ("fast: 5, slow: 9", "fast: 9, slow: 5", "indicators.macd.fast: must be below slow, which is 5"),
    ("rsi_14: {type", "rsi-14: {type", "indicators.rsi-14: is no id"),
    ("indicator: rsi_14\n", "indicator: rsi_15\n", "my.yaml:13: fuzzy_sets.momentum.indicator: there is no indicator 'rsi_15'; did"),
    ("indicator: rsi_14\n", "indicator: bands\n", "fuzzy_sets.momentum.indicator: bands has several outputs; say which: bands.upper"),
    ("adx_14.plus_di", "adx_14.plus", "fuzzy_sets.strength.indicator: adx has no output 'plus'; did you mean plus_di?"),
    ("[0, 25, 40]", "[0, 25]", "my.yaml:14: fuzzy_sets.momentum.low: must be 3 corners (triangle) or 4 (trapezoid), not 2"),
    ("[0, 25, 40]", "[0, 45, 40]", "fuzzy_sets.momentum.low: corners must not fall: 0, 45, 40"),
    ("[0, 25, 40]", "[5, 5, 5]", "fuzzy_sets.momentum.low: all corners are the same"),
    ("[0, 25, 40]", "[0, x, 40]", "fuzzy_sets.momentum.low: must hold numbers only"),
    ("[0, 25, 40]", "[0, .nan, 40]", "fuzzy_sets.momentum.low: must hold numbers only"),
    ("[0, 25, 40]", "low", "fuzzy_sets.momentum.low: must be a list of corners"),
    ("type: gaussian", "type: gausian", "fuzzy_sets.momentum.high.type: there is no membership function 'gausian'; did you mean gaussian?"),
    ("parameters: [70, 10]", "parameters: [70]", "fuzzy_sets.momentum.high.parameters: gaussian takes a list of 2 numbers"),
    ("parameters: [70, 10]", "parameters: [70, 0]", "fuzzy_sets.momentum.high: the sigma of a gaussian must be above 0"),
    ("gaussian, parameters: [70, 10]", "bell, parameters: [10, 2]", "high.parameters: bell takes a list of 3 numbers: [width, slope,"),
    ("gaussian, parameters: [70, 10]", "bell, parameters: [0, 2, 70]", "momentum.high: the width of a bell must be above 0, not 0"),
    ("gaussian, parameters: [70, 10]", "bell, parameters: [10, -2, 70]", "momentum.high: the slope of a bell must be above 0, not -2"),
    ("gaussian, parameters: [70, 10]", "sigmoid, parameters: [70, 0]", "momentum.high: the slope of a sigmoid must not be 0"),
    ("gaussian, parameters: [70, 10]", "sigmoid, parameters: 70", "high.parameters: sigmoid takes a list of 2 numbers: [center, slope]"),
    ("gaussian, parameters: [70, 10]", "sigmoid, parameters: [70, x]", "momentum.high: must hold numbers only"),
    ("parameters: [70, 10]", "params: [70, 10]", "fuzzy_sets.momentum.high.params: unknown key; did you mean parameters?"),
    ("fuzzy_set: momentum", "fuzzy_set: momentun", "nn_inputs[0].fuzzy_set: there is no fuzzy set 'momentun'; did you mean momentum?"),
    ("timeframes: [1h]", "timeframes: [4h]", "my.yaml:21: nn_inputs[1].timeframes: must be all, or a list of some of the strategy's"),
    ("timeframes: [1h]", "timeframes: []", "my.yaml:21: nn_inputs[1].timeframes: must be all, or a list of some"),
    ("timeframes: [1h]", "timeframes: [1h, 1h]", "my.yaml:21: nn_inputs[1].timeframes: names a timeframe twice: 1h, 1h"),
    ("normalization: zscore", "normalization: log", "nn_inputs[2].normalization: must be 'minmax' or 'zscore', not 'log'"),
    (", normalization: zscore", "", "nn_inputs[2].normalization: is missing"),
    ("{raw_indicator: macd, normalization: zscore}", "{fuzzy_set: momentum}", "nn_inputs[2]: is the same input as nn_inputs[0]"),
    ("{raw_indicator: macd, normalization: zscore}", "macd", "nn_inputs[2]: must hold either fuzzy_set: or raw_indicator:"),
    ("{raw_indicator: bands.width,", "{raw_indicator: macd.macd,", "nn_inputs[3]: is the same input as nn_inputs[2]"),
    ("  - {raw_indicator: bands.width, normalization: minmax}\n", "", "my.yaml:10: indicators.bands: is not used"),
    ("  - {fuzzy_set: strength, timeframes: [1h]}\n", "", "fuzzy_sets.strength: is not used"),
    ("type: rsi", "type: [rsi]", "indicators.rsi_14.type: there is no indicator ['rsi']"),
    ("period: 14}", "source: [1]}", "indicators.rsi_14.source: there is no source"),
    ("period: 14}", "period: 1" + "0" * 400 + "}", "indicators.rsi_14.period: must be a number, not 1000"),
    ("[0, 25, 40]", "[0, 25, 1" + "0" * 400 + "]", "fuzzy_sets.momentum.low: must hold numbers only"),
    ("epochs: 3", "epochs: 1" + "0" * 400, "training.epochs: must be at most 5000"),
    ("epochs: 3", "epochs: 3, labels: {scale: fraction, volatility_window: 5}",
     "training.labels.volatility_window: has an effect only with training.labels.scale: volatility, which is fraction here"),
    ("name: small", "1: a\n'1': b\nname: small", "1: is there twice"),
    ("name: small", "%YAML 1.1\n---\nname: small", "has a directive"),
    ("name: small", "name: !!bool foo", "is no valid YAML"),
    ("type: mlp", "type: cnn", "model.type: must be 'mlp', 'lstm' or 'gru', not 'cnn'"),
    ("type: mlp", "type: lstm", "model.architecture.hidden_layers: has an effect only with model.type: mlp, which is lstm here"),
    ("hidden_layers: [8]", "sequence_length: 9",
     "my.yaml:24: model.architecture.sequence_length: has an effect only with model.type: lstm or gru, which is mlp here"),
    ("confidence_threshold: 0.4", "output_format: regression, confidence_threshold: 0.4",
     "decisions.confidence_threshold: has an effect only with decisions.output_format: classification, which is regression here"),
    ("confidence_threshold: 0.4", "return_threshold: 0.001", "decisions.return_threshold: has an effect only with decisions.output_format"),
    ("epochs: 3", "epochs: 3, loss: mse", "training.loss: mse has an effect only with decisions.output_format: regression"),
    ("epochs: 3", "loss: focal, label_smoothing: 0.1",
     "training.label_smoothing: has an effect only with training.loss: auto or cross_entropy"),
    ("epochs: 3", "scheduler_every: 5", "training.scheduler_every: has an effect only with training.scheduler: step, which is none here"),
    ("hidden_layers: [8]", "hidden_layers: []", "model.architecture.hidden_layers: must not be empty"),
    ("hidden_layers: [8]", "hidden_layers: [0]", "model.architecture.hidden_layers[0]: must be at least 1, not 0"),
    ("hidden_layers: [8]", "hiden_layers: [8]", "model.architecture.hiden_layers: unknown key"),
    ("confidence_threshold: 0.4", "confidence_threshold: 1.0", "decisions.confidence_threshold: must be below 1, not 1"),
    ("confidence_threshold: 0.4", "confidence: 0.4", "decisions.confidence: unknown key"),
    ("stop_loss: 0.01", "stop_loss: -1", "risk.stop_loss: must be at least 0, not -1"),
    ("stop_loss: 0.01", "stop_loss: .inf", "risk.stop_loss: "),
    ("stop_loss: 0.01", "stop_loss: one percent", "risk.stop_loss: must be a number, not 'one percent'"),
    ("epochs: 3", "epochs: 0", "training.epochs: must be at least 1, not 0"),
    ("epochs: 3", "epochs: 2.5", "training.epochs: must be a whole number, not 2.5"),
    ("epochs: 3", "epochs: 3, early_stopping: 5", "training.early_stopping: must hold keys"),
    ("epochs: 3", "epochs: 3, data_split: {train: 0.9}", "training.data_split: train, validation and test must have the sum 1, not 1.2"),
    ("epochs: 3", "epochs: 3, labels: {source: zigzags}", "training.labels.source: must be 'forward_return', 'triple_barrier' or 'zigzag'"),
    ("epochs: 3", "labels: {source: zigzag, horizon: 5}",
     "training.labels.horizon: has an effect only with training.labels.source: forward_return or triple_barrier, which is zigzag here"),
    ("training: {epochs: 3}", "trainning: {epochs: 3}", "my.yaml:27: trainning: unknown section; did you mean training?"),
    ("training: {epochs: 3}", "training: 3", "training: must hold keys"),
    ("training: {epochs: 3}", "training: {epochs: 3}\ntraining: {}", "my.yaml:28: is no valid YAML: found duplicate key"),
    ("training: {epochs: 3}", "training: {epochs: 3", "is no valid YAML"),
    ("nn_inputs:", "inputs:", "inputs: unknown section; did you mean nn_inputs?"),
    ("indicators:", "indicatorz:", "indicators: is missing"),
]  # fmt: skip


@pytest.mark.parametrize("right,wrong,said", MISTAKES)
def test_every_mistake_names_its_place(right: str, wrong: str, said: str) -> None:
    assert right in GOOD
    found = problems(GOOD.replace(right, wrong, 1))
    assert any(said in line for line in found), found


def test_all_mistakes_are_shown_at_once() -> None:
    text = GOOD
    for right, wrong in (
        ("name: small", "name: 4 words"), ("type: rsi", "type: rsy"), ("[0, 25, 40]", "[0, 25]"), ("stop_loss: 0.01", "stop_loss: -1"),
        ("epochs: 3", "epochs: 0"),
    ):  # fmt: skip
        text = text.replace(right, wrong, 1)
    assert len(problems(text)) == 5


@pytest.mark.parametrize("text", ["", "   \n", "- a", "just words", "\t", "a: &x [*x]", "!!python/object:os.system x", "a: " + "[" * 500])
def test_what_is_no_strategy_at_all(text: str) -> None:
    assert problems(text)


def test_a_bomb_of_references_is_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    assert any("too large" in line for line in problems(bomb))
    assert any("characters" in line for line in problems("# " + "x" * 300_000))


def test_yaml_1_2_keeps_words_words_and_numbers_numbers() -> None:
    parsed = parse_strategy(GOOD.replace("symbol: EURUSD", "symbol: ON").replace("stop_loss: 0.01", "stop_loss: 1e-3"), "my.yaml")
    assert parsed.symbols == ("ON",)
    assert parsed.risk.stop_loss == 0.001


def test_an_indicator_says_how_many_bars_it_needs_and_whether_more_would_change_it() -> None:
    with_sma = parse_strategy(GOOD.replace("fast: 5, slow: 9", "fast: 5, slow: 9, average: sma"), "my.yaml").indicators
    with_tema = parse_strategy(GOOD.replace("fast: 5, slow: 9", "fast: 5, slow: 9, average: tema"), "my.yaml").indicators
    assert (with_sma["macd"].warmup, with_sma["macd"].unstable) == (16, False)
    assert (with_tema["macd"].warmup, with_tema["macd"].unstable) == (48, True)
    assert (with_sma["adx_14"].unstable, with_sma["bands"].unstable) == (True, False)


def test_overrides_reach_any_key_and_make_keys() -> None:
    overrides = {"training.epochs": 5, "training.labels.horizon": 3, "indicators.rsi_14.period": 7, "nn_inputs.2.normalization": "minmax"}
    parsed = parse_strategy(GOOD, "my.yaml", overrides)
    assert (parsed.training.epochs, parsed.training.labels.horizon) == (5, 3)
    assert parsed.indicators["rsi_14"].parameters == {"period": 7}
    assert parsed.plain != parse_strategy(GOOD, "my.yaml").plain


@pytest.mark.parametrize(
    "key,value,said",
    [
        ("training.epochz", 5, "--set training.epochz: training.epochz: unknown key; did you mean epochs?"),
        ("training.epochs", "five", "--set training.epochs: training.epochs: must be a whole number, not 'five'"),
        ("name.x", 1, "--set name.x: name.x: name has no keys"),
        ("nn_inputs.9", 1, "nn_inputs is a list of 4"),
        ("a..b", 1, "is no key path"),
        ("nonsense", 1, "nonsense: unknown section"),
        ("²", 1, "²: unknown section"),
        ("9" * 600, 1, "is no key path"),
        ("indicators", {1: {"type": "rsi"}}, "indicators.1: is no id"),
    ],
)
def test_overrides_that_cannot_be(key: str, value: object, said: str) -> None:
    found = problems(GOOD, **{key: value})
    assert any(said in line for line in found), found


def test_the_built_in_strategies_are_valid() -> None:
    found = {info.name: info for info in list_strategies()}
    assert found.keys() >= {"neuro_mean_reversion", "trend_follower", "multi_timeframe_trend"}
    for info in found.values():
        assert info.error == ""
        assert info.description
        parsed = parse_strategy(*find_strategy(info.name))
        assert isinstance(parsed, Strategy)
        assert parsed.name == info.name


def test_ones_own_come_before_the_built_in_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = tmp_path / "here" / "strategies", tmp_path / "other"
    folder.mkdir(parents=True)
    other.mkdir()
    (other / "trend_follower.yaml").write_text(GOOD)
    (other / "small.yaml").write_text(GOOD.replace("epochs: 3", "epochs: 9"))
    (folder / "small.yaml").write_text(GOOD)
    (folder / "broken.yaml").write_text("name: [")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("KTRDR_STRATEGIES", str(other))
    assert parse_strategy(*find_strategy("small")).training.epochs == 3
    assert find_strategy("trend_follower")[1] == str(other / "trend_follower.yaml")
    assert find_strategy(str(other / "small.yaml"))[0].count("epochs: 9") == 1
    listed = {info.name: info for info in list_strategies()}
    assert (listed["small"].origin, listed["trend_follower"].origin, listed["neuro_mean_reversion"].origin) == (
        "./strategies", "KTRDR_STRATEGIES", "built-in",
    )  # fmt: skip
    assert "1 problem" in listed["broken"].error


def test_a_strategy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean trend_follower"):
        find_strategy("trend_folower")
    with pytest.raises(UsageError, match="no strategy file"):
        find_strategy(os.path.join(tmp_path, "none.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(UsageError, match="cannot be read"):
        find_strategy(str(tmp_path / "latin.yaml"))


@given(st.text(max_size=200))
def test_any_text_is_either_a_strategy_or_a_list_of_problems(text: str) -> None:
    with pytest.raises(StrategyInvalid) as caught:
        parse_strategy(text, "any.yaml")
    assert caught.value.problems


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
PATHS = st.sampled_from([
    "name", "version", "description", "training_data", "training_data.symbols", "indicators", "indicators.rsi_14.type",
    "indicators.rsi_14", "indicators.rsi_14.period",
    "fuzzy_sets", "fuzzy_sets.momentum", "fuzzy_sets.momentum.low", "fuzzy_sets.momentum.indicator", "nn_inputs", "nn_inputs.0", "model",
    "nn_inputs.0.fuzzy_set", "model.architecture.hidden_layers", "decisions", "risk.stop_loss",
    "training.labels", "training.early_stopping",
])  # fmt: skip


@given(PATHS, VALUES)
def test_any_value_anywhere_is_accepted_or_explained(path: str, value: object) -> None:
    try:
        parse_strategy(GOOD, "any.yaml", {path: value})
    except StrategyInvalid as error:
        assert all(problem.message for problem in error.problems)


@given(st.text(max_size=12), VALUES)
def test_any_key_path_is_accepted_or_explained(path: str, value: object) -> None:
    try:
        parse_strategy(GOOD, "any.yaml", {path: value})
    except StrategyInvalid as error:
        assert all(problem.message for problem in error.problems)


def test_what_a_caller_gives_stays_his() -> None:
    overrides = {"training": {"epochs": 5}, "training.epochs": 6}
    assert parse_strategy(GOOD, "my.yaml", overrides).training.epochs == 6
    assert overrides == {"training": {"epochs": 5}, "training.epochs": 6}


@pytest.mark.parametrize(
    "key,value,said",
    [
        ("training.epochs", 5, "is part of the trained model"),
        ("risk.stop_los", 0.1, "risk.stop_los: unknown key; did you mean stop_loss?"),
        ("risk.stop_loss", -1, "risk.stop_loss: must be at least 0"),
        ("decisions", 5, "decisions: must hold keys"),
    ],
)
def test_what_a_backtest_cannot_set(key: str, value: object, said: str) -> None:
    with pytest.raises(StrategyInvalid) as caught:
        check_overrides({key: value})
    assert said in str(caught.value)
    check_overrides({"risk.stop_loss": 0.1, "decisions.filters.min_signal_separation": 3})
