"""`ktrdr jobs`, `workers`, `status` and the switches of the broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ktrdr_cli.texts import REASONS, end_line
from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.jobs import Failure, JobState
from ktrdr_zmq.views import AttemptInfo
from tests.unit.cli.conftest import Ktrdr
from tests.unit.cli.fake import AT, CRASH, MODEL, TRADES, FakeClient, backtested, job, trained, worker


def test_list(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1, kind="echo", name="first"))
    fake.put(job(2, name="second", state=JobState.RUNNING, fraction=0.42))
    ran = ktrdr("jobs", "list", "--state", "done", "--state", "running", "--label", "a=b", "--since", "7d", "--limit", "5")
    assert "running 42%" in ran.out
    assert ran.out.index("second") < ran.out.index("first")
    assert max(map(len, ran.out.splitlines())) <= 80
    _, filters = fake.calls[0]
    assert (filters["states"], filters["labels"], filters["limit"]) == (("done", "running"), {"a": "b"}, 5)
    assert filters["since"] > 0
    assert [found["name"] for found in ktrdr("jobs", "list", "--json").json["jobs"]] == ["second", "first"]


def test_an_empty_list_says_so(ktrdr: Ktrdr) -> None:
    assert ktrdr("jobs", "list").out == "There are no jobs.\n"


def test_show_tells_the_story_of_every_attempt(ktrdr: Ktrdr, fake: FakeClient) -> None:
    attempts = [
        AttemptInfo(1, "one", "gpu", AT, AT, "CRASHED", CRASH),
        AttemptInfo(2, "two", "cpu", AT, AT, "WORKER_LOST", None),
        AttemptInfo(3, "three", "cpu", AT, None, "", None),
    ]
    fake.put(job(7, state=JobState.RUNNING, crashes=1, losses=1, attempts=attempts, fraction=0.3, stage="training"))
    ran = ktrdr("jobs", "show")
    for word in (
        "SIGSEGV",
        "one (gpu)",
        ": its process died",
        "two (cpu)",
        "the worker was lost",
        "not ended",
        "3 attempts",
        "segmentation",
    ):
        assert word in ran.out, word
    shown = ktrdr("jobs", "show", f"{7:032x}", "--json").json
    assert [(attempt["worker_id"], attempt["reason"]) for attempt in shown["attempts"]][:2] == [("one", "CRASHED"), ("two", "WORKER_LOST")]
    assert shown["schema"] == 1


def test_show_prints_the_remote_traceback(ktrdr: Ktrdr, fake: FakeClient) -> None:
    failure = Failure("ValueError", "the handler's own mistake", traceback="the remote stack\nline two\n")
    fake.put(job(7, state=JobState.FAILED, reason="HANDLER_ERROR", failure=failure, attempts=[]))
    assert "the remote stack" in ktrdr("jobs", "show").out


def test_a_name_cannot_steer_the_terminal(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1, name="\x1b[2Jgone"))
    assert "\x1b" not in ktrdr("jobs", "list").out
    assert "\x1b" not in ktrdr("jobs", "show").out


def test_explain(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1, state=JobState.QUEUED))
    ran = ktrdr("jobs", "explain", "last")
    assert "waits for a free slot" in ran.out
    assert "all cpu slots are taken" in ran.out
    assert ktrdr("jobs", "explain", "--json").json["workers"][1] == {"worker_id": "other", "reason": ""}


def test_logs(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1))
    fake.log = b"about to fail\nand \xff failed\n"
    assert ktrdr("jobs", "logs").out == "about to fail\nand \ufffd failed\n"
    assert ktrdr("jobs", "logs", "-f").out == "about to fail\nand \ufffd failed\n"
    assert ktrdr("jobs", "logs", "--json").json["log"] == "about to fail\nand \ufffd failed\n"
    lines = [json.loads(line) for line in ktrdr("jobs", "logs", "-f", "--json").out.splitlines()]
    assert "".join(line["text"] for line in lines).startswith("about to fail")


def test_the_log_of_a_job_that_printed_nothing(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1))
    ran = ktrdr("jobs", "logs")
    assert (ran.code, ran.out, ran.err) == (0, "", "Job 00000000 has printed nothing.\n")
    assert ktrdr("jobs", "logs", "--json").json["log"] == ""


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("reason", REASONS)
def test_no_code_is_shown_to_people(ktrdr: Ktrdr, fake: FakeClient, state: JobState, reason: str) -> None:
    fake.put(job(1, state=state, reason=reason, attempts=[]))
    words = [ktrdr("jobs", "show").out, end_line(fake.infos[0])]
    assert not any(code in text for code in (*REASONS, "timed_out", "done:") for text in words)


def test_result_and_its_files(ktrdr: Ktrdr, fake: FakeClient, tmp_path: Path) -> None:
    fake.put(job(1, kind="backtesting", artifacts=[TRADES, MODEL]), backtested())
    ran = ktrdr("jobs", "result", "--save", "out")
    assert ran.code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.zip", "trades.csv"]
    assert "101,954.40" in ran.out
    assert ktrdr("jobs", "result", "--json").json["result"]["metrics"]["trades"] == 3


def test_tables_of_a_backtest_go_into_files(ktrdr: Ktrdr, fake: FakeClient, tmp_path: Path) -> None:
    equity = type(TRADES)("equity", "ee" * 32, 17, "text/csv")
    fake.put(job(1, kind="backtesting", artifacts=[TRADES, equity, MODEL]), backtested())
    ran = ktrdr("jobs", "result", "--trades", "t.csv", "--equity", "e.csv", "--json")
    assert ran.json["saved"] == ["t.csv", "e.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.csv", "t.csv"]
    assert (tmp_path / "t.csv").read_bytes() != (tmp_path / "e.csv").read_bytes()


@pytest.mark.parametrize(
    "options,said",
    [
        (("--trades", "t.parquet"), "the table is CSV, not .parquet"),
        (("--equity", "nowhere/e.csv"), "there is no folder nowhere"),
        (("--equity", "e.csv"), "has no artifact 'equity'; it has: trades"),
    ],
)
def test_tables_that_cannot_be_had(ktrdr: Ktrdr, fake: FakeClient, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    fake.put(job(1, kind="backtesting", artifacts=[TRADES]), backtested())
    ran = ktrdr("jobs", "result", *options)
    assert ran.code == 2
    assert said in ran.err
    assert list(tmp_path.iterdir()) == []


def test_the_result_of_a_kind_without_a_schema(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1, kind="echo"), {"schema": 1, "said": "hello", "nan": float("nan")})
    assert "hello" in ktrdr("jobs", "result").out
    assert ktrdr("jobs", "result", "--json").json["result"]["nan"] is None


def test_the_result_of_a_job_that_runs(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1, state=JobState.RUNNING))
    ran = ktrdr("jobs", "result")
    assert ran.code == 2
    assert "jobs watch" in ran.err


def test_wait_gives_the_worst(ktrdr: Ktrdr, fake: FakeClient) -> None:
    states = {1: JobState.DONE, 2: JobState.CANCELLED, 3: JobState.TIMED_OUT, 4: JobState.FAILED}
    for number, state in states.items():
        fake.put(job(number, state=state))
    ids = {number: f"{number:032x}" for number in states}
    assert ktrdr("jobs", "wait", ids[1]).code == 0
    assert ktrdr("jobs", "wait", ids[1], ids[2]).code == 5
    assert ktrdr("jobs", "wait", ids[2], ids[3]).code == 6
    ran = ktrdr("jobs", "wait", *ids.values(), "--json")
    assert ran.code == 1
    assert [info["state"] for info in ran.json["jobs"]] == ["done", "cancelled", "timed_out", "failed"]


def test_wait_gives_up(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1, state=JobState.RUNNING))
    ran = ktrdr("jobs", "wait", "last", "--timeout", "0.05")
    assert ran.code == 6
    assert "they go on" in ran.err


def test_watch_prints_json_lines_and_ends_at_100_percent(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1))
    lines = [json.loads(line) for line in ktrdr("jobs", "watch", "--json").out.splitlines()]
    assert (lines[-1]["event"], lines[-1]["state"], lines[-1]["fraction"]) == ("state", "done", 1.0)
    ran = ktrdr("jobs", "watch")
    assert "100%" in ran.err
    assert "done after 12 s on trainer (cpu)" in ran.out


def test_watch_of_a_failed_job_says_why(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1, state=JobState.FAILED, failure=Failure("ValueError", "No such column.")))
    ran = ktrdr("jobs", "watch")
    assert ran.code == 1
    assert "No such column." in ran.out


def test_cancel_retry_priority_prune(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.put(job(1))
    assert "stopping" in ktrdr("jobs", "cancel", "last", "--grace", "3").out
    assert fake.calls[-1] == ("cancel", {"refs": ("last",), "grace": 3.0})
    assert "new run" in ktrdr("jobs", "retry", "last").out
    assert "last checkpoint" in ktrdr("jobs", "resume", "last").out
    assert ktrdr("jobs", "priority", "last", "--to", "7", "--json").json["changed"] == 1
    assert fake.calls[-1] == ("priority", {"refs": ["last"], "priority": 7})
    assert ktrdr("jobs", "prune", "--older-than", "2h").code == 0
    assert fake.calls[-1][1]["before"] > 10**15
    assert ktrdr("jobs", "prune", "--older-than", "soon").code == 2


def test_workers(ktrdr: Ktrdr, fake: FakeClient) -> None:
    fake.crew = [worker("a"), worker("b", gpu=True, gpu_type="simulated", gpu_count=1, simulated_gpu=True, draining=True)]
    ran = ktrdr("workers", "list")
    assert "simulated" in ran.out
    assert "live, draining" in ran.out
    assert [one["gpu"] for one in ktrdr("workers", "list", "--json").json["workers"]] == [False, True]
    assert "its jobs run on the CPU" in ktrdr("workers", "show", "b").out
    ran = ktrdr("workers", "show", "c")
    assert ran.code == 2
    assert "a, b" in ran.err


def test_drain_and_undrain(ktrdr: Ktrdr, fake: FakeClient) -> None:
    said = ktrdr("workers", "drain", "trainer", "--stop").out
    assert "undrain trainer" in said
    assert "1 job still runs there" in said
    assert fake.calls[-1] == ("drain", {"worker_id": "trainer", "stop": True, "leave": False})
    assert ktrdr("workers", "undrain", "trainer").code == 0


def test_status(ktrdr: Ktrdr) -> None:
    ran = ktrdr("status")
    for word in ("paused", "2 running, 3 waiting", "9.0 GB free", "4 done", "trainer"):
        assert word in ran.out, word
    document = ktrdr("status", "--json").json
    assert document["worker_list"][0]["worker_id"] == "trainer"
    assert document["disk"]["artifacts"] == 2


def test_pause_and_unpause(ktrdr: Ktrdr, fake: FakeClient) -> None:
    assert ktrdr("broker", "pause", "--json").json["paused"] is True
    assert ktrdr("broker", "unpause", "--json").json["paused"] is False
    assert [action for action, _ in fake.calls] == ["pause", "unpause"]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", ".."])
def test_a_file_of_a_job_cannot_leave_the_folder(ktrdr: Ktrdr, fake: FakeClient, tmp_path: Path, name: str) -> None:
    artifact = type(MODEL)(name, "ab" * 32, 1, "text/csv")
    fake.put(job(1, artifacts=[artifact]), trained())
    assert ktrdr("jobs", "result", "--save", "in/side").code == 0
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} <= {tmp_path / "in" / "side"}


def test_usage_errors_are_usage_errors() -> None:
    assert UsageError.exit_code == 2
