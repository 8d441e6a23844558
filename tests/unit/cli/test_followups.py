"""`ktrdr backtest report`, `check-lookahead` and `check-warmup`: what is submitted, what is said at the end, and where it cannot be."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import pytest

from ktrdr_zmq.errors import NoCapableWorker, Refused
from ktrdr_zmq.jobs import Failure, JobState
from tests.unit.cli.conftest import Ktrdr
from tests.unit.cli.fake import EQUITY, MODEL, PAGE, TRADES, FakeClient, backtested, job, looked, reported, trained, warmed

INPUTS = {"data": "ef" * 32, "model": MODEL.digest}


def backtest(number: int = 0xBBBB, **changes: Any) -> Any:
    return job(number, **{"kind": "backtesting", "artifacts": [TRADES, EQUITY], "inputs": INPUTS, **changes})


@pytest.fixture
def tested(fake: FakeClient) -> FakeClient:
    """A training, a backtest of its model, and workers that make reports."""
    fake.put(job(0xAAAA), trained())
    fake.put(backtest(), backtested())
    fake.answer, fake.products = reported(), [PAGE]
    return fake


def test_the_page_of_the_last_backtest_is_fetched(ktrdr: Ktrdr, tested: FakeClient, tmp_path: Path) -> None:
    ran = ktrdr("backtest", "report", "-o", "page.html")
    assert ran.code == 0, ran.err
    assert (tmp_path / "page.html").read_text() == PAGE.digest
    assert f"The page is {tmp_path / 'page.html'}" in ran.out
    assert "5.1 MB" in ran.out
    (request,) = tested.requests
    assert (request.kind, request.name, request.device) == ("report", "mine", "cpu")
    assert request.inputs == {"trades": TRADES.digest, "equity": EQUITY.digest, "data": "ef" * 32}
    assert request.body["backtest"]["job"]["id"] == backtest().id
    assert request.body["backtest"]["result"] == backtested()
    assert request.body["training"]["job"]["id"] == job(0xAAAA).id
    assert request.body["training"]["result"] == trained()


def test_json_quiet_and_the_usual_name(ktrdr: Ktrdr, tested: FakeClient, tmp_path: Path) -> None:
    document = ktrdr("backtest", "report", "last", "--json").json
    target = tmp_path / f"report-{backtest().id[:8]}.html"
    assert (document["schema"], document["state"], document["path"]) == (1, "done", str(target))
    assert document["result"]["report_digest"] == PAGE.digest
    assert ktrdr("backtest", "report", backtest().id, "-q").out.strip() == str(target)


def test_a_training_that_is_gone_leaves_the_report_without_one(ktrdr: Ktrdr, tested: FakeClient) -> None:
    tested.infos[0] = job(0xAAAA, artifacts=[])
    assert ktrdr("backtest", "report", "-q").code == 0
    assert "training" not in tested.requests[0].body


def test_what_else_can_be_said(ktrdr: Ktrdr, tested: FakeClient) -> None:
    ran = ktrdr("backtest", "report", "--name", "q3", "--label", "team=fx", "--priority", "3", "--queue", "--timeout", "60", "--detach")
    assert ran.code == 0
    (request,) = tested.requests
    assert (request.name, request.labels, request.priority, request.queue, request.run_timeout) == ("q3", {"team": "fx"}, 3, True, 60.0)
    assert "jobs watch" in ran.out


@pytest.mark.parametrize(
    "change,said",
    [
        ({"kind": "training"}, "is no backtest: its kind is training"),
        ({"state": JobState.FAILED, "reason": "HANDLER_ERROR"}, "has no result: it is failed"),
        ({"state": JobState.CANCELLED, "reason": "CANCELLED"}, "has no result: it is cancelled"),
        ({"artifacts": []}, "has no trades and no equity any more"),
        ({"artifacts": [TRADES]}, "has no equity any more"),
    ],
)
def test_a_job_that_cannot_have_a_report(ktrdr: Ktrdr, tested: FakeClient, change: dict[str, Any], said: str) -> None:
    tested.put(backtest(0xCCCC, **change), backtested())
    ran = ktrdr("backtest", "report", "cccc")
    assert ran.code == 2
    assert said in ran.err
    assert tested.requests == []


def test_there_is_no_backtest(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(0xAAAA), trained())
    for words in (("backtest", "report"), ("backtest", "report", "dddd")):
        ran = ktrdr(*words)
        assert ran.code == 2
        assert "There is no job" in ran.err


def test_a_result_that_is_not_kept_any_more(ktrdr: Ktrdr, tested: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dropped(ref: str) -> bytes:
        raise Refused(f"The result of job {ref[:8]} is not kept any more.", code="DROPPED")

    monkeypatch.setattr(tested, "fetch_result", dropped)
    ran = ktrdr("backtest", "report")
    assert ran.code == 3
    assert "not kept any more" in ran.err


def test_nobody_makes_reports(ktrdr: Ktrdr, tested: FakeClient) -> None:
    tested.refusals = [NoCapableWorker("No workers available for report. Start a worker that offers report.")]
    ran = ktrdr("backtest", "report")
    assert ran.code == 3
    assert "Start a worker that offers report." in ran.err


def test_places_that_cannot_be_written_to_are_told_before_anything_is_done(ktrdr: Ktrdr, tested: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for target, said in (("folder", "is a folder"), ("nowhere/page.html", "does not exist"), ("/proc/page.html", "page.html|written to")):
        ran = ktrdr("backtest", "report", "-o", target)
        assert ran.code == 2, ran.err
        assert any(words in ran.err for words in said.split("|"))
    assert tested.requests == [] or tested.requests[-1].kind == "report"
    assert list(tmp_path.glob("**/*.html")) == []


def test_a_failed_report_leaves_an_older_page_alone(ktrdr: Ktrdr, tested: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("older")
    tested.ends, tested.failure = JobState.FAILED, Failure("DATA", "The equity curve is not the one of this backtest.")
    ran = ktrdr("backtest", "report", "-o", "page.html")
    assert ran.code == 1
    assert "not the one of this backtest" in ran.err
    assert (tmp_path / "page.html").read_text() == "older"


def test_a_running_backtest_is_waited_for(ktrdr: Ktrdr, tested: FakeClient) -> None:
    tested.plays = True
    tested.put(backtest(0xCCCC, state=JobState.RUNNING, reason="ACCEPTED", fraction=0.2), backtested())
    ran = ktrdr("backtest", "report", "cccc")
    assert ran.code == 0, ran.err
    assert "is running; waiting for it" in ran.err


def test_the_page_is_opened_if_asked_for(ktrdr: Ktrdr, tested: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda uri: bool(opened.append(uri)))
    ran = ktrdr("backtest", "report", "-o", "page.html", "--open")
    assert ran.code == 0
    assert opened == [(tmp_path / "page.html").as_uri()]
    assert "No browser could be opened here." in ran.err


def test_the_result_of_a_report_is_shown_like_any_other(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(0xDDDD, kind="report", artifacts=[PAGE]), reported(warnings=["No bars."]))
    ran = ktrdr("jobs", "result", "dddd")
    assert "Report: mine on EURUSD 1h" in ran.out
    assert "Note: No bars." in ran.out


# ---------------------------------------------------------------- checks

CHANGE = {
    "step": "feature", "name": "1h_momentum_low", "first": "2017-06-01T10:00:00Z", "cut_after": "2017-06-01T10:00:00Z", "whole": 0.25,
    "part": 0.5, "size": 0.25, "cuts": 7,
}  # fmt: skip


def test_a_clean_model(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(0xAAAA), trained())
    fake.answer = looked()
    ran = ktrdr("backtest", "check-lookahead", "-m", "last", "--samples", "7", "--seed", "3", "--label", "a=b")
    assert ran.code == 0, ran.err
    assert "clean: nothing up to a cut depends on what comes after it" in ran.out
    assert "after 50 of 6,194 bars" in ran.out
    (request,) = fake.requests
    assert (request.kind, request.name, request.labels) == ("check-lookahead", "mine", {"data": "EURUSD_1h.csv built-in", "a": "b"})
    assert (request.body["samples"], request.body["seed"], request.body["symbol"]) == (7, 3, "EURUSD")
    assert set(request.body) == {"schema", "symbol", "timeframe", "data", "samples", "seed"}
    assert request.inputs["model"] == MODEL.digest


def test_a_look_ahead_is_exit_code_1_and_says_where_it_begins(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(0xAAAA), trained())
    fake.answer = looked(CHANGE, {**CHANGE, "step": "output", "name": "BUY", "whole": None, "size": None})
    ran = ktrdr("backtest", "check-lookahead")
    assert ran.code == 1
    assert "LOOK-AHEAD: the feature 1h_momentum_low of 2017-06-01T10:00:00Z changes from 0.25 to 0.5" in ran.out
    assert "when the bars after 2017-06-01T10:00:00Z are taken away" in ran.out
    ran = ktrdr("backtest", "check-lookahead", "--json")
    assert ran.code == 1
    assert ran.json["state"] == "done"
    assert ran.json["result"]["clean"] is False


def test_the_history_that_a_model_needs(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(0xAAAA), trained())
    fake.answer = warmed()
    ran = ktrdr("backtest", "check-warmup", "--symbol", "EURUSD")
    assert ran.code == 0, ran.err
    assert "108 bars; the strategy asks for 30: too few" in ran.out
    assert "27 bars before the first value" in ran.out
    assert "3.00 %" in ran.out
    assert fake.requests[0].body["samples"] == 200
    assert max(map(len, ran.out.splitlines())) <= 100
    fake.answer = warmed(recommended=None, enough=None, warnings=["Even 432 bars do not settle it."])
    assert "Note: Even 432 bars do not settle it." in ktrdr("backtest", "check-warmup").out
    assert ktrdr("backtest", "check-warmup", "-q").out.strip() == fake.infos[-1].id


@pytest.mark.parametrize("check", ["check-lookahead", "check-warmup"])
def test_checks_that_cannot_be_done(ktrdr: Ktrdr, fake: FakeClient, check: str) -> None:
    assert ktrdr("backtest", check).code == 2  # there is no model
    fake.put(job(0xAAAA), trained())
    for words, said in (
        (("--samples", "0"), "--samples"),
        (("--seed", "-1"), "--seed"),
        (("--timeframe", "1d"), "decides on bars of 1h"),
        (("--symbol", "NOSUCH"), "NOSUCH"),
        (("-m", " "), "names no model"),
        (("-m", "other"), "no model"),
    ):
        ran = ktrdr("backtest", check, *words)
        assert ran.code == 2, words
        assert said in ran.err
    assert fake.requests == []
    assert ktrdr("backtest", check, "--dry-run").code == 0
    assert ktrdr("backtest", check, "--detach").code == 0
    assert len(fake.requests) == 1
