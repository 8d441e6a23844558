"""The judge of the storm finds every kind of broken promise, and nothing where there is none."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ktrdr_zmq.jobs import Attempt
from tests.storm import jobs
from tests.storm.ledger import Book, Row, executions, judge

DONE, LOST, POISON, CANCEL = 1, 2, 7, 11
"""Numbers of jobs; `tests.storm.jobs` says that the last two kill themselves and are cancelled."""


def attempt(token: int, reason: str = "COMPLETED") -> Attempt:
    return Attempt(1, token, "w1", b"", "cpu", 0, 0, reason)


def row(
    number: int, state: str = "done", reason: str = "COMPLETED", crashes: int = 0, losses: int = 0, tokens: tuple[int, ...] = ()
) -> Row:
    given = tokens or (number,)
    return Row(f"id{number}", number, state, reason, crashes, losses, [attempt(token, reason) for token in given])


class Case:
    """A storm in which nothing went wrong, to be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.book = Book(folder / "book")
        self.book.acknowledged = {number: f"id{number}" for number in (DONE, LOST, POISON, CANCEL)}
        self.book.outcomes = {DONE: {("done", 1)}, LOST: {("done", 1)}, POISON: {("failed", 0)}, CANCEL: {("cancelled", 0)}}
        self.table = [
            row(DONE), row(LOST), row(CANCEL, "cancelled", "CANCELLED"),
            row(POISON, "failed", "CRASH_LIMIT", crashes=jobs.MAX_CRASHES, tokens=(71, 72, 73)),
        ]  # fmt: skip
        self.ran: Counter[tuple[int, int]] = Counter({(DONE, 1): 1, (LOST, 1): 1, (POISON, 1): 1, (POISON, 2): 1, (POISON, 3): 1})
        self.events: dict[str, set[tuple[int, str]]] = {"id1": {(4, "done")}}

    def replace(self, number: int, **changes: Any) -> None:
        self.table = [r._replace(**changes) if r.number == number else r for r in self.table]

    def broken(self) -> list[str]:
        return judge([self.book], self.table, self.ran, self.events).broken


@pytest.fixture
def case(tmp_path: Path) -> Case:
    case = Case(tmp_path)
    assert case.broken() == []
    return case


def test_counts(case: Case) -> None:
    counts = judge([case.book], case.table, case.ran, case.events).counts
    assert (counts["acknowledged"], counts["done"], counts["failed_at_their_limit"], counts["cancelled"]) == (4, 2, 1, 1)
    assert (counts["lost"], counts["duplicate_outcomes"], counts["executions"], counts["executed_again"]) == (0, 0, 5, 1)


def test_a_lost_job(case: Case) -> None:
    case.table = [r for r in case.table if r.number != LOST]
    assert any("acknowledged and lost: 1 (2)" in text for text in case.broken())


def test_a_job_that_never_ended(case: Case) -> None:
    case.replace(LOST, state="running", reason="ACCEPTED")
    assert any("not ended" in text for text in case.broken())


def test_a_submitter_that_never_heard(case: Case) -> None:
    del case.book.outcomes[LOST]
    assert any("never told" in text for text in case.broken())


def test_two_outcomes(case: Case) -> None:
    case.book.outcomes[DONE].add(("done", 2))
    case.ran[DONE, 2] = 1
    assert any("in two ways" in text for text in case.broken())


def test_two_terminal_events(case: Case) -> None:
    case.events["id1"].add((5, "done"))
    assert any("ended twice" in text for text in case.broken())


def test_two_completed_attempts(case: Case) -> None:
    case.replace(DONE, attempts=[attempt(1), attempt(5)])
    assert any("not completed exactly once" in text for text in case.broken())


def test_done_and_never_run(case: Case) -> None:
    del case.ran[DONE, 1]
    assert any("never run" in text for text in case.broken())


def test_told_another_end(case: Case) -> None:
    case.book.outcomes[DONE] = {("failed", 0)}
    assert any("another end" in text for text in case.broken())


def test_cancelled_by_nobody(case: Case) -> None:
    case.replace(DONE, state="cancelled")
    assert any("without being asked" in text for text in case.broken())


def test_failed_too_early_and_poison_that_worked(case: Case) -> None:
    case.replace(POISON, crashes=1)
    assert any("before their limit" in text for text in case.broken())
    case.replace(POISON, state="done", attempts=[attempt(70)])
    assert any("poisonous" in text for text in case.broken())


def test_a_token_given_twice(case: Case) -> None:
    case.replace(LOST, attempts=[attempt(DONE)])
    assert any("token" in text for text in case.broken())


async def test_a_book_is_read_again_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    await asyncio.gather(book.write("a", 1, "ff"), book.write("a", 2, "ee"), book.write("o", 1, "done", 2))
    book.close()
    with (tmp_path / "book").open("a") as file:
        file.write("o 2 do")
    again = Book(tmp_path / "book")
    again.close()
    assert again.acknowledged == {1: "ff", 2: "ee"}
    assert again.outcomes == {1: {("done", 2)}}


def test_executions_are_counted(tmp_path: Path) -> None:
    (tmp_path / "ran").write_text("1 1\n2 1\n1 2\n1 2\n")
    assert executions(tmp_path / "ran") == {(1, 1): 1, (2, 1): 1, (1, 2): 2}
    assert not executions(tmp_path / "none")
