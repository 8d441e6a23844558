"""``ktrdr data`` with a client that has no broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ktrdr_zmq.errors import BrokerUnreachable
from ktrdr_zmq.views import ArtifactInfo, JobInfo
from tests.unit.cli.conftest import Ktrdr
from tests.unit.cli.fake import FakeClient, job

SUMMARY: dict[str, Any] = {
    "bars": 200, "first": "2017-01-02T00:00:00Z", "last": "2017-01-10T07:00:00Z", "gaps": 1, "missing_bars": 3,
    "largest_gaps": [{"after": "2017-01-03T00:00:00Z", "before": "2017-01-03T04:00:00Z", "bars": 3}],
    "derived": [{"timeframe": "4h", "bars": 50, "why_not": ""}, {"timeframe": "1w", "bars": 0, "why_not": "It has a stub."}],
}  # fmt: skip
IMPORTED: dict[str, Any] = {
    "schema": 1, "kind": "data-import", "symbol": "GBPUSD", "timeframe": "1h", "filename": "mine.csv", "digest": "ab" * 32,
    "source_digest": "cd" * 32, "format": {"separator": ";", "columns": {}}, "summary": SUMMARY,
    "changed": {"rows_read": 201, "rows_written": 200, "duplicates_dropped": 1, "rows_reversed": 0}, "ignored_columns": [],
    "duration_s": 1.0, "warnings": ["The volume is 0 in every bar."],
}  # fmt: skip
CHECKED: dict[str, Any] = {
    "schema": 1, "kind": "data-check", "symbol": "GBPUSD", "timeframe": "1h", "filename": "mine.csv", "digest": "ab" * 32, "good": True,
    "problems": [], "summary": SUMMARY, "duration_s": 1.0,
}  # fmt: skip
BAD = CHECKED | {
    "good": False, "summary": None,
    "problems": [
        {"code": "no_date", "row": 3, "times": 7, "text": "'x' is no date.", "hint": "Say --date-format."},
        {"code": "file", "row": 0, "times": 1, "text": "is odd.", "hint": ""},
    ],
}  # fmt: skip


def in_cluster(fake: FakeClient, number: int = 1, name: str = "GBPUSD_1h") -> JobInfo:
    artifacts = [ArtifactInfo("bars", f"{number:064x}", 100, "text/csv")]
    return fake.put(job(number, kind="data-import", name=name, artifacts=artifacts), IMPORTED)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "mine.csv"
    path.write_text("x")
    return str(path)


def test_import(ktrdr: Ktrdr, fake: FakeClient, file: str) -> None:
    fake.answer = IMPORTED
    ran = ktrdr("data", "import", file, "--symbol", "GBPUSD", "--timeframe", "1h")
    assert ran.code == 0
    for word in (
        "Imported GBPUSD 1h",
        "201 rows",
        "duplicates dropped: 1",
        "ab" * 32,
        "1 places, 3 bars",
        "It has a stub.",
        "Note: The volume",
    ):
        assert word in ran.out
    assert ktrdr("data", "import", file, "--symbol", "GBPUSD", "--timeframe", "1h", "--json").json["result"]["summary"] == SUMMARY


def test_every_option_of_an_import_arrives(ktrdr: Ktrdr, fake: FakeClient, file: str) -> None:
    fake.answer = IMPORTED
    ktrdr(
        "data", "import", file, "--symbol", "GBPUSD", "--timeframe", "1h", "--columns", "time=Date+Time,open=O",
        "--timezone", "Europe/Berlin",
        "--separator", "tab", "--decimal", ",", "--thousands", ".", "--date-format", "%d.%m.%Y", "--duplicates", "last",
        "--bar-time", "close",
        "--queue",
    )  # fmt: skip
    (request,) = fake.requests
    assert request.body["format"] == {
        "columns": {"time": "Date+Time", "open": "O"}, "timezone": "Europe/Berlin", "separator": "\t", "decimal": ",", "thousands": ".",
        "date_format": "%d.%m.%Y", "duplicates": "last", "bar_time": "close",
    }  # fmt: skip
    assert request.queue is True


@pytest.mark.parametrize(
    "words",
    [
        ("--symbol", "a b"), ("--timeframe", "7x"), ("--columns", "time"), ("--columns", "price=x"), ("--decimal", ";"),
        ("--date-format", "d"),
        ("--timezone", "?"), ("--thousands", "."), ("--output", "o", "--detach"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_a_broker_is_asked(ktrdr: Ktrdr, fake: FakeClient, file: str, words: tuple[str, ...]) -> None:
    ran = ktrdr("data", "import", file, "--symbol", "GBPUSD", "--timeframe", "1h", *words)
    assert ran.code == 2
    assert fake.addresses == []
    assert ktrdr("data", "import", "none.csv", "--symbol", "GBPUSD", "--timeframe", "1h").code == 2


def test_import_detached(ktrdr: Ktrdr, fake: FakeClient, file: str) -> None:
    ran = ktrdr("data", "import", file, "--symbol", "GBPUSD", "--timeframe", "1h", "-d")
    assert ran.code == 0
    assert "ktrdr jobs watch" in ran.out


def test_list_has_the_clusters_between_ones_own_and_the_built_in_ones(ktrdr: Ktrdr, fake: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "AUDUSD_5m.parquet").write_text("x")
    in_cluster(fake, 1)
    in_cluster(fake, 2)
    found = ktrdr("data", "list", "--data-dir", str(tmp_path), "--json").json["data"]
    assert [(each["origin"], each["symbol"], each["version"], each["current"]) for each in found] == [
        ("data-dir", "AUDUSD", 0, True), ("cluster", "GBPUSD", 2, True), ("cluster", "GBPUSD", 1, False),
        ("built-in", "EURUSD", 0, True), ("built-in", "SP500", 0, True),
    ]  # fmt: skip
    assert "1 (former)" in ktrdr("data", "list").out


def test_list_without_a_broker_says_so(ktrdr: Ktrdr, fake: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(**filters: Any) -> list[JobInfo]:
        raise BrokerUnreachable("The broker does not answer.")

    monkeypatch.setattr(fake, "jobs", gone)
    ran = ktrdr("data", "list")
    assert ran.code == 0
    assert "Without the bars that were imported into the cluster: The broker does not answer." in ran.err
    assert "EURUSD" in ran.out


def test_show(ktrdr: Ktrdr, fake: FakeClient) -> None:
    in_cluster(fake)
    ran = ktrdr("data", "show", "GBPUSD")
    assert ran.code == 0
    for word in ("GBPUSD 1h", "cluster", "version 1", "separator: ;", "200, 2017-01-02T00:00:00Z", "2017-01-03T04:00:00Z", "4h"):
        assert word in ran.out
    assert fake.requests == []
    fake.answer = CHECKED
    ran = ktrdr("data", "show", "EURUSD_1h")
    assert ran.code == 0
    assert "LICENSE-EURUSD.txt" in ran.out
    assert fake.requests[0].kind == "data-check"
    fake.answer = BAD
    assert ktrdr("data", "show", "EURUSD").code == 1
    assert ktrdr("data", "show", "NOSUCH").code == 2


def test_check(ktrdr: Ktrdr, fake: FakeClient, file: str) -> None:
    fake.answer = CHECKED
    ran = ktrdr("data", "check", file, "--timeframe", "1h", "--symbol", "GBPUSD")
    assert (ran.code, fake.requests[0].name) == (0, "GBPUSD_1h")
    assert "is good" in ran.out
    fake.answer = BAD
    ran = ktrdr("data", "check", file, "--timeframe", "1h", "--separator", ";")
    assert ran.code == 1
    assert fake.requests[1].body["format"]["separator"] == ";"
    for word in ("2 kinds of problems", "'x' is no date.", "Say --date-format."):
        assert word in ran.out
    assert ktrdr("data", "check", file, "--timeframe", "1h", "--json").json["result"]["problems"] == BAD["problems"]
    assert ktrdr("data", "check", file).code == 2


def test_rm(ktrdr: Ktrdr, fake: FakeClient) -> None:
    first, second = in_cluster(fake, 1), in_cluster(fake, 2)
    ran = ktrdr("data", "rm", "GBPUSD_1h")
    assert ran.code == 0
    assert fake.calls[-1] == ("rm", {"refs": [second.id, first.id]})
    assert "GBPUSD_1h@2, GBPUSD_1h@1" in ran.out
    ktrdr("data", "rm", "GBPUSD_1h@1")
    assert fake.calls[-1] == ("rm", {"refs": [first.id]})
    assert ktrdr("data", "rm", "EURUSD_1h").code == 2  # built-in


def test_a_training_takes_the_clusters_bars(ktrdr: Ktrdr, fake: FakeClient) -> None:
    in_cluster(fake, 7)
    train = ("models", "train", "--strategy", "neuro_mean_reversion", "--symbol", "GBPUSD", "--timeframe", "4h")
    assert ktrdr(*train).code == 0
    assert fake.requests[0].inputs == {"data": f"{7:064x}"}
    assert ktrdr(*train, "--dry-run", "--json").json["inputs"]["data"]["digest"] == f"{7:064x}"
    assert ktrdr(*train[:-1], "1m").code == 2
