"""The two jobs from body to result, without the framework: what they compute, what they refuse, what they leave."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from ktrdr_worker.handler import JobError, JobInterrupted
from ktrdr_worker.jobs.backtesting import handler as backtesting
from ktrdr_worker.jobs.training import handler as training
from ktrdr_worker.trading import bundle, tables
from ktrdr_worker.trading.bars import MINUTE, DataError, cut, load, moment, reading, stamp, text
from ktrdr_worker.trading.decisions import decide, separate
from ktrdr_worker.trading.features import build, scale
from ktrdr_worker.trading.inference import predict
from ktrdr_worker.trading.learning import Diverged, learn
from ktrdr_worker.trading.training import train
from ktrdr_zmq import payload
from ktrdr_zmq.errors import NewerSchema
from ktrdr_zmq.results import EQUITY_COLUMNS, TRADE_COLUMNS, BacktestResult, ClassificationMetrics, RegressionMetrics, TrainingResult
from ktrdr_zmq.samples import find_sample
from ktrdr_zmq.strategy import StrategyInvalid, find_strategy, parse_strategy
from ktrdr_zmq.strategy.schema import Decisions, Filters
from tests.unit.trading.made import alone, apart, span

pytestmark = pytest.mark.timeout(120)

SAMPLE = find_sample("EURUSD", "1h")
assert SAMPLE is not None
FAST = {"training.epochs": 3, "model.architecture.hidden_layers": [8]}


class Context:
    """A `JobContext` that keeps what it is given."""

    job_id = "0" * 32
    attempt = 1
    device = "cpu"
    threads = 1

    def __init__(self, folder: Path, **inputs: bytes | Path) -> None:
        self.work_dir = folder
        self.cache_dir = folder / "kept"
        self.inputs: Mapping[str, Path] = {}
        self.input_digests: Mapping[str, str] = {}
        self.artifacts: dict[str, bytes] = {}
        self.reported: list[tuple[float, str]] = []
        self.stop_after = 2.0
        self.checkpoint: Mapping[str, bytes] | None = None
        for name, content in inputs.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            path = folder / name
            path.write_bytes(data)
            self.inputs = {**self.inputs, name: path}
            self.input_digests = {**self.input_digests, name: hashlib.sha256(data).hexdigest()}

    @property
    def cancelled(self) -> bool:
        return bool(self.reported) and self.reported[-1][0] >= self.stop_after

    def check_cancelled(self) -> None:
        if self.cancelled:
            raise JobInterrupted

    def progress(self, fraction: float, *, stage: str = "", text: str = "", metrics: Mapping[str, float] | None = None) -> None:
        self.reported.append((fraction, stage))

    def add_artifact(self, name: str, source: Path | bytes, media_type: str = "") -> str:
        self.artifacts[name] = source if isinstance(source, bytes) else source.read_bytes()
        return hashlib.sha256(self.artifacts[name]).hexdigest()

    def save_checkpoint(self, files: Mapping[str, bytes]) -> None:
        self.checkpoint = files

    def load_checkpoint(self) -> Mapping[str, bytes] | None:
        return self.checkpoint


FILE = {"symbol": "EURUSD", "timeframe": "1h", "filename": "EURUSD_1h.csv", "origin": "built-in"}


def body(**changes: Any) -> dict[str, Any]:
    made = {
        "schema": 1, "start": None, "end": None, "overrides": dict(FAST), "data": [FILE],
        "strategy": find_strategy("neuro_mean_reversion")[0], "strategy_name": "neuro_mean_reversion",
    }  # fmt: skip
    return {**made, **changes}


def test_body(**changes: Any) -> dict[str, Any]:
    made = body(overrides={}, symbol="EURUSD", timeframe="1h", capital=100_000.0, commission_bps=None, slippage_bps=None)
    return {**{key: value for key, value in made.items() if not key.startswith("strategy")}, **changes}


test_body.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    """A small model and its result."""
    assert SAMPLE is not None
    context = Context(tmp_path_factory.mktemp("train"), data=SAMPLE.path)
    result = training.run(body(), context)
    return result, context.artifacts["model"]


# ---------------------------------------------------------------- training


def test_a_training_returns_what_the_schema_says(trained: tuple[dict[str, Any], bytes]) -> None:
    result, model = trained
    document = TrainingResult.from_dict(payload.unpack(payload.pack(result)))
    assert document.model_digest == hashlib.sha256(model).hexdigest()
    assert document.epochs_run == len(document.history.epoch) == 3
    assert 1 <= document.best_epoch <= 3
    assert document.test.samples == document.test_part.samples == sum(map(sum, document.test.confusion))
    assert document.baseline.samples == document.test.samples
    assert document.majority_class == document.classes[int(np.argmax(document.train_part.class_counts))]
    parts = (document.train_part, document.validation_part, document.test_part)
    for earlier, later in zip(parts, parts[1:], strict=False):
        assert earlier.last <= earlier.label_end < later.first, "no label looks into the next part"
    assert document.parameters == 11 * 8 + 8 + 8 * 3 + 3
    assert document.data[0].digest == hashlib.sha256(SAMPLE.path.read_bytes()).hexdigest()  # type: ignore[union-attr]
    json.dumps(result, allow_nan=False)


def test_the_same_job_gives_the_same_model_bit_for_bit(trained: tuple[dict[str, Any], bytes], tmp_path: Path) -> None:
    torch.manual_seed(99)  # whatever happened before in the process
    torch.rand(7)
    again = Context(tmp_path, data=SAMPLE.path)  # type: ignore[union-attr]
    result = training.run(body(), again)
    assert again.artifacts["model"] == trained[1]
    assert result["history"] == trained[0]["history"]
    other = Context(tmp_path, data=SAMPLE.path)  # type: ignore[union-attr]
    training.run(body(overrides={**FAST, "training.seed": 1}), other)
    assert other.artifacts["model"] != trained[1]


def test_progress_only_grows_and_ends_at_one(tmp_path: Path) -> None:
    context = Context(tmp_path, data=SAMPLE.path)  # type: ignore[union-attr]
    training.run(body(), context)
    shares = [share for share, _ in context.reported]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_cancelled_training_stops_at_the_next_epoch(tmp_path: Path) -> None:
    context = Context(tmp_path, data=SAMPLE.path)  # type: ignore[union-attr]
    context.stop_after = 0.3
    with pytest.raises(JobInterrupted):
        training.run(body(), context)
    assert context.artifacts == {}


LONG = {**FAST, "training.epochs": 12, "model.architecture.dropout": 0.3, "training.optimizer": "adamw", "training.scheduler": "cosine"}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_training_that_is_interrupted_again_and_again_ends_with_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    """Each attempt in a process whose random generators are anywhere; dropout, order and optimizer go on as if nothing had been."""
    overrides = {**LONG, "training.optimizer": optimizer}
    whole = Context(tmp_path, data=SAMPLE.path)  # type: ignore[union-attr]
    expected = training.run(body(overrides=overrides), whole)
    context = Context(tmp_path, data=SAMPLE.path)  # type: ignore[union-attr]
    for attempt, stop_after in enumerate((0.1, 0.3, 0.31, 0.6, 0.9)):
        torch.manual_seed(attempt)
        context.reported, context.stop_after = [], stop_after
        with pytest.raises(JobInterrupted):
            training.run(body(overrides=overrides), context)
    epochs = bundle.tensors.describe(context.checkpoint["training"], "checkpoint", 1)["history"]["epoch"]  # type: ignore[index]
    assert 9 <= len(epochs) < 12, "the last attempt had gone on from the one before"
    context.reported, context.stop_after = [], 2.0
    result = training.run(body(overrides=overrides), context)
    assert min(share for share, stage in context.reported if stage == "training") > 0.7
    assert context.artifacts["model"] == whole.artifacts["model"]
    assert {key: value for key, value in result.items() if key != "duration_s"} == {
        key: value for key, value in expected.items() if key != "duration_s"
    }


def test_a_checkpoint_of_another_job_or_a_damaged_one(tmp_path: Path) -> None:
    context = Context(tmp_path, data=SAMPLE.path)  # type: ignore[union-attr]
    context.stop_after = 0.3
    with pytest.raises(JobInterrupted):
        training.run(body(), context)
    other = Context(tmp_path, data=SAMPLE.path)  # type: ignore[union-attr]
    other.checkpoint = context.checkpoint
    training.run(body(overrides={**FAST, "training.seed": 5}), other)
    fresh = Context(tmp_path, data=SAMPLE.path)  # type: ignore[union-attr]
    training.run(body(overrides={**FAST, "training.seed": 5}), fresh)
    assert other.artifacts == fresh.artifacts, "what is of another job is not taken up"
    other.checkpoint = {"training": context.checkpoint["training"][:500]}  # type: ignore[index]
    with pytest.raises(bundle.tensors.FileError, match="damaged"):
        training.run(body(), other)


def test_a_planted_edge_is_found_and_shuffled_labels_are_not() -> None:
    """The next move follows the last one in the planted series; in the shuffled one nothing can be known."""
    from ktrdr_zmq.strategy.schema import Model, Training

    chance = np.random.default_rng(8)
    rows = chance.normal(size=(3000, 4))
    classes = np.where(rows[:, 1] > 0.4, 2, np.where(rows[:, 1] < -0.4, 0, 1)).astype(np.int64)
    settings = Training(epochs=8, learning_rate=0.01)

    def accuracy(labels: np.ndarray) -> float:
        found = learn(apart(rows[:2000], labels[:2000]), apart(rows[2000:], labels[2000:]), Model(), settings, "cpu", lambda *_: None)
        return max(found.history.validation_accuracy)

    assert accuracy(classes) > 0.9
    assert accuracy(chance.permutation(classes)) < 0.45


def test_early_stopping_keeps_the_weights_of_the_best_epoch() -> None:
    strategy = parse_strategy(
        *find_strategy("neuro_mean_reversion"),
        {"training.early_stopping.patience": 2, "training.learning_rate": 0.05, "training.epochs": 40},
    )
    bars = load(SAMPLE.path, "x", "EURUSD", "1h", "1h").bars  # type: ignore[union-attr]
    outcome = train(strategy, [span(bars, 0, 2000)], "cpu", lambda *_: None)
    history = outcome.learned.history
    assert outcome.learned.stopped_early
    assert len(history.epoch) == outcome.learned.best_epoch + 2
    assert outcome.scores[1].accuracy == pytest.approx(history.validation_accuracy[outcome.learned.best_epoch - 1])


@pytest.mark.parametrize(
    "changes,said",
    [
        ({"overrides": {**FAST, "training_data.timeframes.timeframe": "1w"}}, "needs more than 30 bars|Too few bars"),
        ({"start": "2017-12-20T00:00:00+00:00"}, "Too few bars"),
        ({"start": "2018-06-01T00:00:00+00:00"}, "no bars of EURUSD 1h between"),
        ({"overrides": {"training.labels.threshold": 100.0}}, "All labels of the training part are the same"),
        ({"strategy": 5}, "body is not what"),
        ({"data": [{}]}, "body is not what"),
        ({"data": [FILE, FILE]}, "names 2 files for EURUSD"),
        ({"start": "garbage"}, "is no moment"),
        ({"end": "3000-01-01"}, "outside the years"),
        ({"capital": float("nan")}, "capital must be between"),
        ({"slippage_bps": 20000.0}, "slippage_bps must be between 0 and 1000"),
    ],
)
def test_a_training_that_cannot_be_done_says_why(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((JobError, DataError), match=said):
        training.run(body(**changes), Context(tmp_path, data=SAMPLE.path))  # type: ignore[union-attr]


def test_a_loss_that_is_no_number_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="in epoch 1"):
        overrides = {
            **FAST,
            "training.learning_rate": 10.0,
            "training.optimizer": "sgd",
            "training.weight_decay": 10.0,
            "training.epochs": 60,
        }
        training.run(body(overrides=overrides), Context(tmp_path, data=SAMPLE.path))  # type: ignore[union-attr]


# ---------------------------------------------------------------- models


def test_a_model_is_read_as_it_was_written(trained: tuple[dict[str, Any], bytes]) -> None:
    model = bundle.load(trained[1])
    assert bundle.dump(model.network, model.description) == trained[1]
    assert moment(model.description.seen.until) == moment(trained[0]["validation_part"]["label_end"]) + 60 * MINUTE
    bars = load(SAMPLE.path, "x", "EURUSD", "1h", "1h").bars  # type: ignore[union-attr]
    probabilities, warmup = predict(model, alone(bars))
    assert np.isnan(probabilities[:warmup]).all()
    np.testing.assert_allclose(probabilities[warmup:].sum(axis=1), 1.0)
    features = build(model.strategy, alone(bars))
    one = torch.from_numpy(scale(features.values[[500]], model.scalings))
    np.testing.assert_allclose(torch.softmax(model.network(one).double(), 1).detach().numpy()[0], probabilities[500], rtol=1e-5)


def changed(model: bytes, **changes: Any) -> bytes:
    """The model with another description."""
    size = struct.unpack("<Q", model[:8])[0]
    header = json.loads(model[8 : 8 + size])
    description = {**json.loads(header["__metadata__"]["ktrdr"]), **changes}
    header["__metadata__"]["ktrdr"] = json.dumps({key: value for key, value in description.items() if value is not None})
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + model[8 + size :]


def test_models_that_are_none(trained: tuple[dict[str, Any], bytes]) -> None:
    good = trained[1]
    for octets in (b"", b"short", b"\xff" * 100, good[:200], b"\x80\x04pickle" * 20, struct.pack("<Q", 2) + b"{}"):
        with pytest.raises(bundle.BundleError):
            bundle.load(octets)
    with pytest.raises(NewerSchema, match="schema 2"):
        bundle.load(changed(good, schema=2))
    with pytest.raises(bundle.BundleError, match="features or classes"):
        bundle.load(changed(good, feature_ids=["a"]))
    with pytest.raises(bundle.BundleError, match="not complete"):
        bundle.load(changed(good, seen=None))
    with pytest.raises(bundle.BundleError, match="scaling"):
        bundle.load(changed(good, scaling=[[0.0, 1.0]]))
    with pytest.raises(bundle.BundleError, match="not the one that it was trained with"):
        bundle.load(changed(good, overrides=list({**FAST, "model.architecture.hidden_layers": [9]}.items())))
    with pytest.raises(bundle.BundleError, match="scaling"):
        bundle.load(changed(good, scaling=[[0.0, 0.0]] * 11))
    for seen in ({"since": "2017-01-01", "until": "NaT"}, {"since": "2017-02-01", "until": "2017-01-01"}):
        with pytest.raises(bundle.BundleError, match="which bars it has learned from"):
            bundle.load(changed(good, seen={"data": {"EURUSD": ""}, **seen}))
    with pytest.raises(StrategyInvalid, match="part of the trained model"):
        bundle.load(good, {"indicators.momentum_14.period": 7})
    with pytest.raises(StrategyInvalid, match="risk.stop"):
        bundle.load(good, {"risk.stop": 1})


# ---------------------------------------------------------------- backtesting


def run_test(folder: Path, model: bytes, **changes: Any) -> tuple[BacktestResult, Context]:
    context = Context(folder, data=SAMPLE.path, model=model)  # type: ignore[union-attr]
    return BacktestResult.from_dict(payload.unpack(payload.pack(backtesting.run(test_body(**changes), context)))), context


def rows(octets: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(octets.decode())))


def test_a_backtest_trades_what_the_model_never_saw(trained: tuple[dict[str, Any], bytes], tmp_path: Path) -> None:
    result, context = run_test(tmp_path, trained[1], overrides={"decisions.confidence_threshold": 0.0})
    assert not result.in_sample
    assert result.window.first > trained[0]["validation_part"]["label_end"]
    assert result.window.seen_bars == 0
    trades, equity = rows(context.artifacts["trades"]), rows(context.artifacts["equity"])
    assert tuple(trades[0]) == TRADE_COLUMNS
    assert tuple(equity[0]) == EQUITY_COLUMNS
    assert len(trades) == result.metrics.trades > 5
    assert len(equity) == result.window.bars
    assert sum(float(row["pnl"]) for row in trades) == pytest.approx(result.metrics.equity_final - 100_000, abs=1e-6)
    assert float(equity[-1]["equity"]) == result.metrics.equity_final
    assert (result.commission_bps, result.slippage_bps) == (pytest.approx(0.5), pytest.approx(0.5))
    by_time = {row["timestamp"]: row for row in rows(SAMPLE.path.read_bytes())}  # type: ignore[union-attr]
    for trade in trades:
        side = 1 if trade["side"] == "long" else -1
        assert float(trade["entry_price"]) == pytest.approx(float(by_time[trade["entry_time"]]["open"]) * (1 + side * 5e-5), rel=1e-12)


def test_bars_that_the_model_has_seen_are_flagged(trained: tuple[dict[str, Any], bytes], tmp_path: Path) -> None:
    result, _ = run_test(tmp_path, trained[1], start="2017-03-01T00:00:00+00:00", end="2017-04-01T00:00:00+00:00")
    assert result.in_sample
    assert result.window.seen_bars == result.window.bars
    assert result.window.chosen
    assert any(line.startswith("IN-SAMPLE") for line in result.warnings)


@pytest.mark.parametrize("symbol", ["EUR_USD", "eur/usd", "EURUSD=X", "SOMETHING"])
def test_the_same_bars_under_another_name_are_known(trained: tuple[dict[str, Any], bytes], tmp_path: Path, symbol: str) -> None:
    """By the symbol without its decoration, or by the file's digest."""
    result, _ = run_test(tmp_path, trained[1], symbol=symbol)
    assert result.window.first > trained[0]["validation_part"]["label_end"]
    assert run_test(tmp_path, trained[1], symbol=symbol, start="2017-03-01T00:00:00+00:00")[0].in_sample


def test_another_symbol_at_the_time_of_the_training_is_said(trained: tuple[dict[str, Any], bytes], tmp_path: Path) -> None:
    text = SAMPLE.path.read_text().replace("143539993.3", "1")  # type: ignore[union-attr]
    context = Context(tmp_path, data=text.encode(), model=trained[1])
    result = backtesting.run(test_body(symbol="GBPUSD"), context)
    assert not result["in_sample"]
    assert any("learned from EURUSD" in line for line in result["warnings"])


@pytest.mark.parametrize("stage,share", [("bars", 0.05), ("inference", 0.25), ("backtest", 0.6), ("trades", 0.7), ("equity", 0.75)])
def test_a_cancelled_backtest_stops_at_its_next_step(
    trained: tuple[dict[str, Any], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, share: float
) -> None:
    monkeypatch.setattr(tables, "PIECE", 50)

    class Stopped(Context):
        def progress(self, fraction: float, **said: Any) -> None:
            super().progress(fraction, **said)
            self.stop_after = 0.0 if said["stage"] == stage else 2.0

    context = Stopped(tmp_path, data=SAMPLE.path, model=trained[1])  # type: ignore[union-attr]
    with pytest.raises(JobInterrupted):
        backtesting.run(test_body(), context)
    assert context.reported[-1] == (pytest.approx(share, abs=0.02), stage)
    assert "equity" not in context.artifacts


def test_long_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load(SAMPLE.path, "x", "EURUSD", "1h", "1h")  # type: ignore[union-attr]
    shares: list[float] = []
    monkeypatch.setattr(text, "PIECE", 500)
    monkeypatch.setattr(reading, "PIECE", 500)
    pieces = load(SAMPLE.path, "x", "EURUSD", "1h", "1h", shares.append)  # type: ignore[union-attr]
    for one, other in zip(whole.bars, pieces.bars, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(shares) > 10
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1
    lines = SAMPLE.path.read_text().splitlines()  # type: ignore[union-attr]
    for wrong, said in (
        (lines[3000].rpartition(",")[0] + ",many", "row 3001: the volume 'many' is not a number"),
        ("2017-13-01," + lines[3000].partition(",")[2], "row 3001: '2017-13-01' is no date"),
    ):
        (tmp_path / "bad.csv").write_text("\n".join([*lines[:3000], wrong, *lines[3001:]]))
        with pytest.raises(DataError, match=said):
            load(tmp_path / "bad.csv", "bad.csv", "EURUSD", "1h", "1h")


def test_long_tables_are_written_in_pieces(trained: tuple[dict[str, Any], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, context = run_test(tmp_path, trained[1])
    monkeypatch.setattr(tables, "PIECE", 7)
    pieces, other = run_test(tmp_path, trained[1])
    assert other.artifacts == context.artifacts
    assert pieces.digest == whole.digest
    shares = [share for share, stage in other.reported if stage == "equity"]
    assert len(shares) == -(-whole.window.bars // 7)
    assert shares == sorted(shares)


def test_the_digest_is_that_of_the_outcome_and_of_nothing_else(trained: tuple[dict[str, Any], bytes], tmp_path: Path) -> None:
    result, _ = run_test(tmp_path, trained[1])
    again, _ = run_test(tmp_path, trained[1])
    assert (again.digest, again.outcome_digest()) == (result.digest, result.digest)
    assert again.duration_s != result.duration_s
    elsewhere = msgspec.structs.replace(result, device="cuda:0", duration_s=9.0, fingerprint={"torch": "9"}, digest="")
    assert elsewhere.sealed().digest == result.digest
    assert run_test(tmp_path, trained[1], commission_bps=0.6)[0].digest != result.digest
    for change in ({"signals": {}}, {"conventions": {}}, {"artifacts": {**result.artifacts, "trades": "00" * 32}}):
        assert msgspec.structs.replace(result, **change).outcome_digest() != result.digest
    nudged = msgspec.structs.replace(result.metrics, total_return=math.nextafter(result.metrics.total_return, 9.0))
    assert msgspec.structs.replace(result, metrics=nudged).outcome_digest() != result.digest, "the last bit counts"


def test_a_training_has_a_digest_too(trained: tuple[dict[str, Any], bytes]) -> None:
    document = TrainingResult.from_dict(trained[0])
    assert document.digest == document.outcome_digest()


def test_a_job_without_its_inputs(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="without the input 'data'"):
        training.run(body(), Context(tmp_path, other=b""))
    with pytest.raises(JobError, match="without the input 'model'"):
        backtesting.run(test_body(), Context(tmp_path, data=b""))


def test_costs_come_from_the_command_before_the_strategy_before_the_symbol(trained: tuple[dict[str, Any], bytes], tmp_path: Path) -> None:
    strategy = {"decisions.cost_model.commission_bps": 3.0}
    assert run_test(tmp_path, trained[1], overrides=strategy)[0].commission_bps == pytest.approx(3.0)
    assert run_test(tmp_path, trained[1], overrides=strategy, commission_bps=0.0)[0].commission_bps == 0.0


@pytest.mark.parametrize(
    "changes,said",
    [
        ({"timeframe": "4h"}, "decides on bars of 1h, not of 4h"),
        ({"end": "2017-01-02T00:00:00+00:00"}, "the first 30 bars of EURUSD 1h are warm-up"),
        ({"start": "2019-01-01T00:00:00+00:00"}, "no bars of EURUSD 1h between"),
    ],
)
def test_a_backtest_that_cannot_be_done_says_why(
    trained: tuple[dict[str, Any], bytes], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises((JobError, DataError), match=said):
        run_test(tmp_path, trained[1], **changes)


def test_without_bars_after_the_training_there_is_nothing_to_test_on(trained: tuple[dict[str, Any], bytes], tmp_path: Path) -> None:
    lines = SAMPLE.path.read_text().splitlines()[:1000]  # type: ignore[union-attr]
    context = Context(tmp_path, data="\n".join(lines).encode(), model=trained[1])
    with pytest.raises(DataError, match="has learned from all bars"):
        backtesting.run(test_body(), context)


# ---------------------------------------------------------------- returns, and networks that read windows

OTHER: dict[str, dict[str, Any]] = {
    "gru": {"model": {"type": "gru", "architecture": {"hidden_size": 4, "sequence_length": 12}}, "training.epochs": 2},
    "lstm of returns": {
        "model": {"type": "lstm", "architecture": {"hidden_size": 4, "sequence_length": 12, "num_layers": 2}},
        "decisions": {"output_format": "regression", "return_threshold": 0.0002, "filters": {"min_signal_separation": 1}},
        "training": {"epochs": 2, "loss": "huber", "labels": {"horizon": 6}},
    },
}


@pytest.fixture(scope="module", params=OTHER)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, TrainingResult, bytes]:
    """A model of another kind."""
    context = Context(tmp_path_factory.mktemp("other"), data=SAMPLE.path)  # type: ignore[union-attr]
    result = training.run(body(overrides=OTHER[request.param]), context)
    return request.param, TrainingResult.from_dict(payload.unpack(payload.pack(result))), context.artifacts["model"]


def test_models_of_every_kind_are_read_as_they_were_written_and_traded(other: tuple[str, TrainingResult, bytes], tmp_path: Path) -> None:
    name, result, octets = other
    model = bundle.load(octets)
    assert bundle.dump(model.network, model.description) == octets
    assert (result.sequence_length, result.model_type) == (12, name[:4].strip())
    for part, before in ((result.validation_part, result.train_part), (result.test_part, result.validation_part)):
        assert part.skipped == 11, "the windows of the first samples would begin before the part"
        assert part.first > before.label_end
    bars = load(SAMPLE.path, "x", "EURUSD", "1h", "1h").bars  # type: ignore[union-attr]
    said, warmup = predict(model, alone(bars))
    features = build(model.strategy, alone(bars))
    assert warmup == features.warmup + 11
    assert np.isnan(said[:warmup]).all()
    window = torch.from_numpy(scale(features.values[489:501], model.scalings))[None]
    one = model.network(window).double().detach()
    expected = one.squeeze().numpy() if result.output_format == "regression" else torch.softmax(one, 1).numpy()[0]
    np.testing.assert_allclose(said[500], expected, rtol=1e-4)
    tested, _ = run_test(tmp_path, octets)
    assert tested.window.bars > 500
    assert not tested.in_sample


def test_a_regression_is_scored_beside_the_mean_of_its_training_part(other: tuple[str, TrainingResult, bytes]) -> None:
    _, result, octets = other
    if result.output_format != "regression":
        assert isinstance(result.baseline, ClassificationMetrics)
        return
    assert (result.classes, result.majority_class, result.test_part.class_counts) == ([], "", [])
    test, base = result.test, result.baseline
    assert isinstance(test, RegressionMetrics)
    assert isinstance(base, RegressionMetrics)
    assert base.r2 is not None
    assert abs(base.r2) < 1e-9
    assert test.samples == base.samples == result.test_part.samples
    bars = load(SAMPLE.path, "x", "EURUSD", "1h", "1h").bars  # type: ignore[union-attr]
    said, _ = predict(bundle.load(octets), alone(bars))
    first = next(bar for bar in range(len(bars.opens)) if stamp(bars.opens[bar]) == result.test_part.first)
    chosen = slice(first, first + test.samples)
    true = bars.close[first + 6 : first + 6 + test.samples] / bars.close[chosen] - 1
    assert test.mse == pytest.approx(((said[chosen] - true) ** 2).mean(), rel=1e-4)
    assert test.ic == pytest.approx(np.corrcoef(said[chosen], true)[0, 1], rel=1e-3)
    assert np.mean(np.abs(said[chosen])) < 0.01, "returns, and not deviations"


def test_too_few_bars_for_one_window_are_an_error(other: tuple[str, TrainingResult, bytes]) -> None:
    bars = load(SAMPLE.path, "x", "EURUSD", "1h", "1h").bars  # type: ignore[union-attr]
    model = bundle.load(other[2])
    warmup = build(model.strategy, alone(cut(bars, 0, 500))).warmup
    with pytest.raises(DataError, match="reads 12 bars at a time; only 11 have features"):
        predict(model, alone(cut(bars, 0, warmup + 11)))
    assert len(predict(model, alone(cut(bars, 0, warmup + 12)))[0]) == warmup + 12


def test_the_output_of_a_model_cannot_be_changed(trained: tuple[dict[str, Any], bytes]) -> None:
    for overrides, said in (
        ({"decisions.output_format": "regression"}, "decisions.output_format: is part of the trained model"),
        ({"decisions.return_threshold": 0.01}, "has an effect only with decisions.output_format: regression"),
    ):
        with pytest.raises(StrategyInvalid, match=said):
            bundle.load(trained[1], overrides)


# ---------------------------------------------------------------- decisions


def test_decisions_of_returns_by_hand() -> None:
    returns = np.array([np.nan, 0.003, 0.002, -0.002, -0.0021, 0.0])
    assert decide(returns, Decisions(output_format="regression", return_threshold=0.002)).tolist() == [0, 1, 0, 0, -1, 0]
    assert decide(returns, Decisions(output_format="regression")).tolist() == [0, 1, 1, -1, -1, 0]


def test_decisions_by_hand() -> None:
    sure, unsure, none = [0.1, 0.1, 0.8], [0.3, 0.3, 0.4], [np.nan] * 3
    probabilities = np.array([none, sure, unsure, [0.8, 0.1, 0.1], [0.2, 0.6, 0.2]])
    assert decide(probabilities, Decisions(confidence_threshold=0.5)).tolist() == [0, 1, 0, -1, 0]
    assert decide(probabilities, Decisions()).tolist() == [0, 1, 1, -1, 0]
    assert decide(probabilities, Decisions(filters=Filters(min_signal_separation=2))).tolist() == [0, 1, 0, 0, 0]


def test_a_signal_that_was_passed_over_starts_no_new_pause() -> None:
    assert separate(np.array([1, 1, 1, 1, 1], dtype=np.int8), 1).tolist() == [1, 0, 1, 0, 1]
