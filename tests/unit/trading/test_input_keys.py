"""Every key of training_data, indicators, fuzzy_sets and nn_inputs has its effect on what a network reads; those of the other sections
are in test_keys.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel

from ktrdr_worker.trading.bars import DataError, load
from ktrdr_worker.trading.features import build
from ktrdr_worker.trading.frames import frames_of
from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.recipes import training
from ktrdr_zmq.samples import find_sample
from ktrdr_zmq.strategy import parse_strategy
from ktrdr_zmq.strategy.parsing import SECTIONS, TOP
from ktrdr_zmq.strategy.schema import FuzzyInput, RawInput, Timeframes, TrainingData

TEXT = """\
name: keys
version: "3.0"
description: For this test.
training_data:
  symbols: {mode: single, symbol: EURUSD}
  timeframes: {mode: multi_timeframe, list: [4h, 1h, 1d], base_timeframe: 4h}
indicators:
  rsi_5: {type: rsi, period: 5}
  mean: {type: ema, period: 4}
fuzzy_sets:
  momentum:
    indicator: rsi_5
    low: [0, 25, 40]
    high: {type: gaussian, parameters: [70, 10]}
nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
  - {raw_indicator: mean, timeframes: [4h, 1d], normalization: zscore}
"""
SINGLE = TEXT.replace("{mode: multi_timeframe, list: [4h, 1h, 1d], base_timeframe: 4h}", "{mode: single, timeframe: 4h}").replace(
    "[4h, 1d]", "[4h]"
)


def outcome(text: str, overrides: dict[str, Any]) -> tuple[Any, ...]:
    """What a job submits, and what the network would read of the sample's bars."""
    request = training(text, overrides=overrides)
    strategy = parse_strategy(text, "x", overrides)
    sample = find_sample("EURUSD", "1h")
    assert sample is not None
    source = load(sample.path, "x", "EURUSD", "1h", "1h").bars
    made = frames_of(source, strategy.timeframes, strategy.base, [], "x")
    built = build(strategy, made)
    names = [(feature.id, feature.normalization) for feature in strategy.features]
    return (
        request.body["symbols"], request.name, {name: str(path) for name, path in request.inputs.items()}, strategy.description, names,
        built.warmup, len(made.bars.opens), np.nan_to_num(built.values).tobytes(),
    )  # fmt: skip


SEVERAL = {"training_data.symbols": {"mode": "multi_symbol", "list": ["EURUSD", "SP500"]}, "training_data.timeframes.list": ["1d"],
    "training_data.timeframes.base_timeframe": "1d", "nn_inputs.1.timeframes": ["1d"]}  # fmt: skip
KEYS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("name", TEXT, {}, {"name": "other"}),
    ("description", TEXT, {}, {"description": "Something else."}),
    ("training_data.symbols.mode", TEXT, {}, SEVERAL),
    ("training_data.symbols.list", TEXT, SEVERAL, {**SEVERAL, "training_data.symbols.list": ["SP500", "EURUSD"]}),
    ("training_data.symbols.symbol", SINGLE, {"training_data.timeframes.timeframe": "1d", "nn_inputs.1.timeframes": "all"},
     {"training_data.timeframes.timeframe": "1d", "nn_inputs.1.timeframes": "all", "training_data.symbols.symbol": "SP500"}),
    ("training_data.timeframes.mode", SINGLE, {"nn_inputs.1.timeframes": "all"},
     {"nn_inputs.1.timeframes": "all", "training_data.timeframes": {"mode": "multi_timeframe", "list": ["4h", "1d"]}}),
    ("training_data.timeframes.timeframe", SINGLE, {"nn_inputs.1.timeframes": "all"},
     {"nn_inputs.1.timeframes": "all", "training_data.timeframes.timeframe": "1h"}),
    ("training_data.timeframes.list", TEXT, {}, {"training_data.timeframes.list": ["4h", "1d"]}),
    ("training_data.timeframes.list", TEXT, {}, {"training_data.timeframes.list": ["1h", "4h", "1d"]}),
    ("training_data.timeframes.base_timeframe", TEXT, {}, {"training_data.timeframes.base_timeframe": "1h"}),
    ("training_data.history_required", TEXT, {}, {"training_data.history_required": 300}),
    ("indicators.rsi_5.type", TEXT, {}, {"indicators.rsi_5": {"type": "sma", "period": 5}}),
    ("indicators.rsi_5.period", TEXT, {}, {"indicators.rsi_5.period": 6}),
    ("indicators.mean.source", TEXT, {}, {"indicators.mean.source": "high"}),
    ("fuzzy_sets.momentum.indicator", TEXT, {}, {"fuzzy_sets.momentum.indicator": "mean", "indicators.rsi_5": {"type": "sma"},
     "nn_inputs.1.raw_indicator": "rsi_5"}),
    ("fuzzy_sets.momentum.low", TEXT, {}, {"fuzzy_sets.momentum.low": [0, 25, 41]}),
    ("fuzzy_sets.momentum.high.type", TEXT, {}, {"fuzzy_sets.momentum.high": {"type": "sigmoid", "parameters": [70, 0.2]}}),
    ("fuzzy_sets.momentum.high.parameters", TEXT, {}, {"fuzzy_sets.momentum.high.parameters": [70, 11]}),
    ("nn_inputs[].fuzzy_set", TEXT, {"fuzzy_sets.other": {"indicator": "rsi_5", "mid": [30, 50, 70]}, "nn_inputs.1": {"fuzzy_set": "other"},
     "indicators": {"rsi_5": {"type": "rsi", "period": 5}}},
     {"fuzzy_sets.other": {"indicator": "rsi_5", "mid": [30, 50, 70]}, "nn_inputs.1": {"fuzzy_set": "momentum"},
      "nn_inputs.0": {"fuzzy_set": "other"}, "indicators": {"rsi_5": {"type": "rsi", "period": 5}}}),
    ("nn_inputs[].raw_indicator", TEXT, {}, {"nn_inputs.1.raw_indicator": "rsi_5", "fuzzy_sets.momentum.indicator": "mean"}),
    ("nn_inputs[].timeframes", TEXT, {}, {"nn_inputs.0.timeframes": ["1h", "4h"]}),
    ("nn_inputs[].timeframes", TEXT, {}, {"nn_inputs.1.timeframes": ["1d", "4h"]}),
    ("nn_inputs[].normalization", TEXT, {}, {"nn_inputs.1.normalization": "minmax"}),
]  # fmt: skip


@pytest.mark.parametrize("key,text,one,other", KEYS, ids=[key for key, *_ in KEYS])
def test_another_value_of_a_key_gives_another_outcome(key: str, text: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    assert outcome(text, one) == outcome(text, one)
    assert outcome(text, one) != outcome(text, other)


def test_history_that_is_required_must_be_there() -> None:
    with pytest.raises(DataError, match="needs more than 9000 bars of 4h"):
        outcome(TEXT, {"training_data.history_required": 9000})


def test_the_version_is_the_only_one_there_is() -> None:
    with pytest.raises(UsageError, match=r'must be "3.0"'):
        outcome(TEXT, {"version": "3.1"})


def keys(kind: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
    """Every key of a section that is no section itself, with its description."""
    for name, field in kind.model_fields.items():
        inner = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type) and issubclass(one, BaseModel)]
        yield from (pair for one in inner for pair in keys(one, f"{path}.{name}"))
        if not inner:
            yield f"{path}.{name}", field.description or ""


def test_no_key_is_without_a_test_of_its_effect() -> None:
    """A new key of the schema belongs into the table above, or into those of test_keys.py."""
    schema = {key for key, _ in (*keys(TrainingData, "training_data"), *keys(FuzzyInput, "nn_inputs[]"), *keys(RawInput, "nn_inputs[]"))}
    assert schema == {key for key, *_ in KEYS if key.startswith(("training_data", "nn_inputs"))}


def test_no_key_is_without_a_line_in_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "strategies.md").read_text(encoding="utf-8")
    kinds = {**SECTIONS, "nn_inputs[]": FuzzyInput, "nn_inputs[] ": RawInput}
    found = [pair for name, kind in kinds.items() for pair in keys(kind, name.strip())]
    assert len(found) > 40
    for key, description in found:
        assert description, f"{key} has no description"
        assert f"| `{key}` |" in page, f"{key} is not in docs/strategies.md"
        assert description in page, f"the description of {key} is not in docs/strategies.md"
    for section in TOP:
        assert f"\n## {section}\n" in page or f"| `{section}` |" in page, f"{section} is not in docs/strategies.md"


def test_what_the_base_is_if_it_is_not_said() -> None:
    assert Timeframes(mode="multi_timeframe", list=["1d", "1h", "4h"]).base == "1h"
