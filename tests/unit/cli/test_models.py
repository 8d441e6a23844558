"""`ktrdr models` and `ktrdr backtest`: what is submitted, how refusals are met, and what is shown at the end."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from ktrdr_cli.backtest import bps
from ktrdr_cli.submitting import overrides
from ktrdr_zmq.errors import NoCapableWorker, Refused, UsageError
from ktrdr_zmq.jobs import Failure, JobState
from tests.unit.cli.conftest import Ktrdr
from tests.unit.cli.fake import FakeClient, backtested, job, trained

TRAIN = ("models", "train", "--strategy", "neuro_mean_reversion", "--symbol", "EURUSD", "--timeframe", "1d")


def test_train_ends_with_a_table_beside_the_baseline(ktrdr: Ktrdr, fake: FakeClient) -> None:
    ran = ktrdr(*TRAIN)
    assert ran.code == 0, ran.err
    assert "balanced accuracy  42.63 %   33.33 %" in ran.out
    assert "backtest run -m" in ran.out
    assert "Note: Take care." in ran.out
    assert "epoch 4 of 5" in ran.err or "80%" in ran.err
    assert "100%" in ran.err
    assert max(map(len, ran.out.splitlines())) <= 80


def test_train_json_is_one_object(ktrdr: Ktrdr, fake: FakeClient) -> None:
    document = ktrdr(*TRAIN, "--json").json
    assert (document["schema"], document["state"], document["worker_id"], document["tag"], document["attempt"]) == (
        1,
        "done",
        "trainer",
        "cpu",
        1,
    )
    assert document["result"]["model_digest"] == "ab" * 32
    assert len(document["job_id"]) == 32


def test_what_train_submits(ktrdr: Ktrdr, fake: FakeClient) -> None:
    ktrdr(
        *TRAIN, "--set", "training.epochs=5", "--start", "2017-02-01", "--end", "2017-11-30", "--name", "mine", "--label", "team=fx",
        "--priority", "3", "--device", "gpu", "--gpu-wait", "7.5", "--queue", "--timeout", "60", "--threads", "2",
    )  # fmt: skip
    (request,) = fake.requests
    assert request.kind == "training"
    assert request.body["overrides"] == {"training.epochs": 5, "training_data.timeframes": {"mode": "single", "timeframe": "1d"}}
    assert (request.body["symbols"], request.body["timeframes"], request.body["timeframe"]) == (["EURUSD"], ["1d"], "1d")
    assert request.body["start"].startswith("2017-02-01")
    assert (request.name, request.labels, request.priority, request.device) == (
        "mine", {"data": "EURUSD_1h.csv built-in", "team": "fx"}, 3, "gpu",
    )  # fmt: skip
    assert (request.gpu_wait, request.queue, request.run_timeout, request.threads) == (7.5, True, 60.0, 2)


def test_detach(ktrdr: Ktrdr, fake: FakeClient) -> None:
    ran = ktrdr(*TRAIN, "--detach")
    assert ran.code == 0
    assert "ktrdr jobs watch" in ran.out
    assert ktrdr(*TRAIN, "-d", "-q").out.strip() == fake.infos[-1].id
    assert ktrdr(*TRAIN, "-d", "--json").json["result"] is None


def test_dry_run_submits_nothing(ktrdr: Ktrdr, fake: FakeClient) -> None:
    ran = ktrdr(*TRAIN, "--dry-run")
    assert ran.code == 0
    assert "nothing was submitted" in ran.out
    document = ktrdr(*TRAIN, "--dry-run", "--json").json
    assert document["kind"] == "training"
    assert len(document["inputs"]["data"]["digest"]) == 64
    assert fake.requests == []


@pytest.mark.parametrize("said", [("--symbol", "EURUSD,SP500"), ("--symbol", "EURUSD", "--symbol", "SP500")])
def test_several_symbols_make_one_training(ktrdr: Ktrdr, fake: FakeClient, said: tuple[str, ...]) -> None:
    ktrdr("models", "train", "--strategy", "neuro_mean_reversion", "--timeframe", "1d", *said)
    (request,) = fake.requests
    assert request.body["symbols"] == ["EURUSD", "SP500"]
    assert [one["filename"] for one in request.body["data"]] == ["EURUSD_1h.csv", "SP500_1d.csv"]
    assert {name: path.name for name, path in request.inputs.items()} == {"data": "EURUSD_1h.csv", "data.SP500": "SP500_1d.csv"}
    assert request.body["overrides"]["training_data.symbols"] == {"mode": "multi_symbol", "list": ["EURUSD", "SP500"]}


def test_a_timeframe_chooses_the_base_of_several_and_no_other(ktrdr: Ktrdr, fake: FakeClient) -> None:
    train = ("models", "train", "--strategy", "multi_timeframe_trend", "--timeframe")
    ktrdr(*train, "4h")
    assert (fake.requests[0].body["timeframe"], fake.requests[0].body["timeframes"]) == ("4h", ["1h", "4h", "1d"])
    ran = ktrdr(*train, "15m")
    assert ran.code == 2
    assert "reads bars of 1h, 4h, 1d" in ran.err
    assert "--set 'training_data.timeframes.list=[15m, 1d]'" in ran.err


@pytest.mark.parametrize(
    "more",
    [
        ("--strategy", "no_such"),
        ("--symbol", "EURUSD"),
        ("--symbol", "A,,B"),
        ("--timeframe", "7x"),
        ("--start", "yesterday-ish"),
        ("--set", "training.epochz=5"),
        ("--set", "training.epochs=[5"),
        ("--set", "training"),
        ("--label", "=x"),
        ("--data-dir", "/nowhere"),
        ("--start", "2018-01-01", "--end", "2017-01-01"),
    ],
)
def test_mistakes_are_told_without_a_broker(ktrdr: Ktrdr, fake: FakeClient, more: tuple[str, ...]) -> None:
    ran = ktrdr(*TRAIN, *more)
    assert ran.code == 2
    assert ran.err.strip()
    assert fake.addresses == []


def test_bars_that_are_nowhere(ktrdr: Ktrdr, fake: FakeClient) -> None:
    """The cluster is asked for them; a dry run does without it where no broker answers."""
    ran = ktrdr(*TRAIN, "--symbol", "NOSUCH")
    assert ran.code == 2
    assert "among the imported ones" in ran.err
    assert fake.requests == []


def test_nobody_can_do_it(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.refusals = [NoCapableWorker("No training workers available. Start GPU or CPU training workers.")]
    ran = ktrdr(*TRAIN)
    assert ran.code == 3
    assert "No training workers available. Start GPU or CPU training workers." in ran.err


def test_a_refusal_that_passes_is_waited_out_and_told(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.refusals = [Refused("The queue is full.", retryable=True, retry_after=3.0)]
    ran = ktrdr(*TRAIN)
    assert ran.code == 0
    assert "The queue is full. Trying again in 3 s" in ran.err
    fake.refusals = [Refused("The queue is full.", retryable=True, retry_after=3.0)]
    assert ktrdr(*TRAIN, "--no-wait").code == 3


@pytest.mark.parametrize("state, code", [(JobState.FAILED, 1), (JobState.CANCELLED, 5), (JobState.TIMED_OUT, 6)])
def test_a_training_that_does_not_succeed(ktrdr: Ktrdr, fake: FakeClient, state: JobState, code: int) -> None:
    fake.ends = state
    fake.failure = Failure("ValueError", "There are only 3 bars.")
    ran = ktrdr(*TRAIN, "--json")
    assert (ran.code, ran.out) == (code, "")
    assert json.loads(ran.err)["code"].startswith("JOB_")


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_detaches_and_says_how_to_come_back(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.on_submit = lambda: os.kill(os.getpid(), signal.SIGINT)
    ran = ktrdr(*TRAIN)
    assert ran.code == 130
    assert f"ktrdr jobs watch {fake.infos[-1].id[:8]}" in ran.err
    assert "goes on" in ran.err


def test_list_show_compare_rm(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(0x11110000 << 96), trained())
    fake.put(job(0x22220000 << 96), trained(symbols=["SP500"]))
    ran = ktrdr("models", "list")
    assert ran.out.index("mine@2") < ran.out.index("mine@1")
    assert "42.63 %" in ran.out
    assert [model["version"] for model in ktrdr("models", "list", "--json").json["models"]] == [2, 1]
    assert "rsi.low" in ktrdr("models", "show").out
    for ref in ("mine", "mine@2", "last", f"{0x22220000 << 96:032x}"):
        assert ktrdr("models", "show", ref, "--json").json["result"]["symbols"] == ["SP500"], ref
    ran = ktrdr("models", "compare", "mine@1", "mine@2")
    assert "cannot be compared directly" in ran.out
    assert "42.63 %*" in ran.out
    assert ktrdr("models", "rm", "mine@1").code == 0
    assert fake.calls[-1] == ("rm", {"refs": [f"{0x11110000 << 96:032x}"]})


RETURNS = {"output_format": "regression", "samples": 50, "mse": 1.234e-6, "mae": 0.0009, "r2": -0.01, "ic": 0.05, "rank_ic": None}


def test_models_of_returns_have_figures_of_their_own(ktrdr: Ktrdr, fake: FakeClient) -> None:
    scores = {name: {**RETURNS, "directional_accuracy": 0.51} for name in ("train", "validation", "test", "baseline")}
    fake.put(job(1), trained(output_format="regression", classes=[], majority_class="", gap=None, **scores))
    fake.put(
        job(2),
        trained(output_format="regression", classes=[], majority_class="", gap=None, **{**scores, "test": {**scores["test"], "r2": 0.02}}),
    )
    shown = ktrdr("models", "show", "mine@1").out
    assert "the mean return of the training part" in shown
    assert "1.23e-06" in shown
    assert "51.00 %" in shown
    assert "0.020*" in ktrdr("models", "compare", "mine@1", "mine@2").out
    listed = ktrdr("models", "list")
    assert "R2" in listed.out
    fake.put(job(3), trained())
    ran = ktrdr("models", "compare", "mine@1", "mine@3")
    assert ran.code == 2
    assert "no figure in common" in ran.err


@pytest.mark.parametrize(
    "changes,said",
    [
        ({}, "its results are equal"),
        ({"digest": "56" * 32}, "its results are NOT equal"),
        ({"fingerprint": {"torch": "2.14"}, "threads": 2}, "with another threads, torch: that its weights are equal is not claimed"),
    ],
)
def test_compare_says_whether_the_same_training_came_to_the_same(
    ktrdr: Ktrdr, fake: FakeClient, changes: dict[str, Any], said: str
) -> None:
    fake.put(job(1), trained())
    fake.put(job(2), trained(**changes))
    assert said in " ".join(ktrdr("models", "compare", "mine@1", "mine@2").out.split())
    fake.put(job(3), trained(config_digest="78" * 32))
    assert "same training" not in ktrdr("models", "compare", "mine@1", "mine@3").out


def test_models_that_are_none(ktrdr: Ktrdr, fake: FakeClient) -> None:
    assert ktrdr("models", "show", "last").code == 2
    fake.put(job(1, state=JobState.RUNNING))
    ran = ktrdr("models", "show", "last")
    assert ran.code == 2
    assert "still runs" in ran.err
    fake.put(job(2, state=JobState.FAILED))
    assert ktrdr("models", "show", "last").code == 2
    assert ktrdr("models", "show", "mine@0").code == 2
    assert "no trained model" in ktrdr("models", "list").out


# ---------------------------------------------------------------------------------------------------------------- backtest


@pytest.fixture
def model(fake: FakeClient) -> FakeClient:
    fake.put(job(1), trained())
    fake.answer = backtested()
    return fake


def test_backtest_of_the_last_model(ktrdr: Ktrdr, model: FakeClient) -> None:
    ran = ktrdr("backtest", "run")
    assert ran.code == 0, ran.err
    assert "IN-SAMPLE" not in ran.out
    assert "101,954.40" in ran.out
    assert "1.23 %" in ran.out
    assert "sortino ratio" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100
    (request,) = model.requests
    assert request.inputs["model"] == "ab" * 32
    assert (request.body["symbol"], request.body["timeframe"], request.body["capital"]) == ("EURUSD", "1h", 100_000.0)


def test_in_sample_is_shown(ktrdr: Ktrdr, model: FakeClient) -> None:
    model.answer = backtested(in_sample=True)
    assert ktrdr("backtest", "run").out.count("IN-SAMPLE") == 3
    assert ktrdr("backtest", "run", "--json").json["result"]["in_sample"] is True


def test_costs_as_points_and_as_fractions(ktrdr: Ktrdr, model: FakeClient) -> None:
    ktrdr("backtest", "run", "--commission", "0.001", "--slippage-bps", "2", "--capital", "5000")
    body = model.requests[0].body
    assert (body["commission_bps"], body["slippage_bps"], body["capital"]) == (10.0, 2.0, 5000.0)
    assert ktrdr("backtest", "run", "--commission", "0.001", "--commission-bps", "2").code == 2
    ran = ktrdr("backtest", "run", "--commission", "10")
    assert ran.code == 2
    assert "--commission-bps" in ran.err
    assert ktrdr("backtest", "run", "--capital", "0").code == 2
    assert bps("slippage", None, None) is None


def test_backtest_without_a_model(ktrdr: Ktrdr, fake: FakeClient) -> None:
    ran = ktrdr("backtest", "run", "-m", "last")
    assert ran.code == 2
    assert "ktrdr models train" in ran.err


def test_backtest_of_a_training_that_waits_shows_how_it_gets_on(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1, state=JobState.QUEUED, fraction=0.0), trained())
    fake.put(job(2, state=JobState.FAILED))
    fake.plays = True
    ran = ktrdr("backtest", "run", "--dry-run")
    assert ran.code == 0, ran.err
    assert "waits in the queue" in ran.err
    assert "The job waits for a free slot." in ran.err
    assert "training mine:  80%" in ran.err
    assert "nothing was submitted" in ran.out


def test_an_empty_model_is_refused(ktrdr: Ktrdr, model: FakeClient) -> None:
    ran = ktrdr("backtest", "run", "-m", "")
    assert ran.code == 2
    assert "--model" in ran.err
    assert model.addresses == []


def test_backtest_dry_run_and_strategy_check(ktrdr: Ktrdr, model: FakeClient) -> None:
    assert ktrdr("backtest", "run", "--dry-run", "--json").json["kind"] == "backtesting"
    assert ktrdr("backtest", "run", "--strategy", "trend_follower").code == 2
    assert model.requests == []


@pytest.mark.parametrize(
    "text, value",
    [
        ("5", 5), ("1e-3", 0.001), ("0.5", 0.5), ("true", True), ("yes", "yes"), ("null", None), ("adam", "adam"), ("[8, 4]", [8, 4]),
        ("{a: 1}", {"a": 1}), ('"5"', "5"), ("2017-01-01", "2017-01-01"), ("a=b", "a=b"), ("", None),
    ],
)  # fmt: skip
def test_values_of_set_are_json_or_yaml(text: str, value: Any) -> None:
    assert overrides([f"k.x={text}"]) == {"k.x": value}


@pytest.mark.parametrize("text", ["[1", "NaN", ".nan", "Infinity", "{a"])
def test_values_of_set_that_are_none(text: str) -> None:
    if text == "NaN" or text == "Infinity":  # plain words in YAML
        assert overrides([f"k={text}"]) == {"k": text}
    else:
        with pytest.raises(UsageError, match="--set k="):
            overrides([f"k={text}"])
