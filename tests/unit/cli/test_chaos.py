"""The ledger of ``ktrdr chaos`` finds what is broken; the command says so with its exit code, and asks before it kills."""

from __future__ import annotations

import json

import pytest

from ktrdr_cli import chaosrun
from ktrdr_cli.chaosbook import LABEL, Book, Sums, harmless_kind
from ktrdr_zmq.errors import NoCapableWorker
from ktrdr_zmq.jobs import JobState
from ktrdr_zmq.views import JobInfo
from tests.unit.cli.conftest import Ktrdr
from tests.unit.cli.fake import FakeClient, job, worker


def filled(count: int = 3) -> tuple[Book, list[JobInfo]]:
    """A run in which all went well."""
    book = Book("feed")
    rows = []
    for number in range(count):
        entry = book.add()
        entry.acknowledged = True
        entry.ends.add(JobState.DONE)
        rows.append(job(id=entry.job_id, name=str(number), labels={LABEL: "feed"}, kind="echo"))
    return book, rows


def test_all_is_well() -> None:
    book, rows = filled()
    sums = book.judge(rows)
    assert sums.broken == []
    assert (sums.counts["submitted"], sums.counts["acknowledged"], sums.counts["finished"]) == (3, 3, 3)
    assert (sums.counts["lost"], sums.counts["duplicates"]) == (0, 0)


def test_ids_are_the_runs_own_and_come_back() -> None:
    assert [entry.job_id for entry in filled()[0].entries] == [entry.job_id for entry in filled()[0].entries]
    assert Book("other").add().job_id != filled()[0].entries[0].job_id


@pytest.mark.parametrize("how", ["row", "word"])
def test_a_lost_job(how: str) -> None:
    book, rows = filled()
    if how == "row":
        rows = rows[1:]
    else:
        book.entries[0].lost = True
    sums = book.judge(rows)
    assert sums.counts["lost"] == 1
    assert any(line.startswith("lost: 1 (number 0)") for line in sums.broken)


def test_a_job_that_was_not_acknowledged_may_be_missing() -> None:
    book, rows = filled()
    book.add()
    assert book.judge(rows).broken == []


def test_a_number_that_is_there_twice() -> None:
    book, rows = filled()
    sums = book.judge([*rows, job(id="ab" * 16, name="1")])
    assert sums.counts["duplicates"] == 1
    assert sums.broken


def test_a_retry_is_no_duplicate() -> None:
    book, rows = filled()
    sums = book.judge([*rows, job(id="ab" * 16, name="1", retry_of=rows[1].id)])
    assert (sums.counts["retries"], sums.broken) == (1, [])


def test_two_ends_another_end_an_unasked_cancel_a_failure_and_none() -> None:
    book, rows = filled()
    book.entries[0].ends.add(JobState.CANCELLED)
    assert any("ended twice" in line for line in book.judge(rows).broken)
    book, rows = filled()
    rows[0] = job(id=rows[0].id, name="0", state=JobState.FAILED)
    assert {line.partition(":")[0] for line in book.judge(rows).broken} == {"failed", "told another end than is on record"}
    book, rows = filled()
    rows[0] = job(id=rows[0].id, name="0", state=JobState.CANCELLED)
    book.entries[0].ends = {JobState.CANCELLED}
    assert any("without being asked" in line for line in book.judge(rows).broken)
    book.entries[0].may_cancel = True
    assert book.judge(rows).broken == []
    rows[1] = job(id=rows[1].id, name="1", state=JobState.RUNNING)
    book.entries[1].ends.clear()
    assert any("not ended" in line for line in book.judge(rows).broken)


def test_the_exit_code_says_whether_it_came_out_even(ktrdr: Ktrdr, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go(self: chaosrun.Run, seconds: float, patience: float) -> Sums:
        return Sums({"submitted": 7, "lost": int(self.seed)}, ["lost: 1 (number 3)"] * self.seed)

    monkeypatch.setattr(chaosrun.Run, "go", go)
    good = ktrdr("chaos", "--seed", "0", "--json")
    assert (good.code, json.loads(good.out)["ok"]) == (0, True)
    bad = ktrdr("chaos", "--seed", "1")
    assert bad.code == 1
    assert "BROKEN: lost: 1 (number 3)" in bad.out


def test_it_asks_before_it_kills(ktrdr: Ktrdr) -> None:
    refused = ktrdr("chaos", "--kill")
    assert refused.code == 2
    assert "--yes" in refused.err


def test_no_worker_offers_a_harmless_kind(ktrdr: Ktrdr, fake: FakeClient) -> None:
    refused = ktrdr("chaos", "--minutes", "0.01")
    assert refused.code == 3
    assert "--kinds echo" in refused.err


def test_the_harmless_kind_that_is_offered() -> None:
    assert harmless_kind([worker(kinds={"training": (1, 1)}), worker(kinds={"noop": (1, 1)})]) == "noop"
    with pytest.raises(NoCapableWorker):
        harmless_kind([worker(kinds={"echo": (1, 1)}, state="dead")])
