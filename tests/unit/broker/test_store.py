"""What every store must do, shown for the one in memory and for the one on disk, and that both always give the same answers."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktrdr_broker.model import ArtifactRow, Job, Known, Loaded, Lookup, PageQuery, Saves
from ktrdr_broker.sqlite import SqliteStore
from ktrdr_broker.store import COLUMNS, PRUNE_BATCH, MemoryStore, StorageError, Store, artifact_digests, hex_range, last_kind, stored_copy
from ktrdr_zmq.jobs import TERMINAL, Artifact, Attempt, Device, Failure, JobSpec, JobState

WALL = 1_800_000_000_000_000


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def job(seq: int, state: JobState = JobState.QUEUED, *, kind: str = "echo", job_id: bytes = b"", **fields: Any) -> Job:
    spec = JobSpec(kind, **fields.pop("spec", {}))
    raw = msgspec.msgpack.encode(spec)
    body = fields.pop("body", b"body %d" % seq)
    return Job(
        job_id=job_id or seq.to_bytes(16, "big"), seq=seq, spec=spec, spec_raw=raw, body=body, digest=hashlib.sha256(raw + body).digest(),
        submitted_at=WALL + seq, state=state, reason=fields.pop("reason", "SUBMITTED"),
        finished_at=fields.pop("finished_at", WALL + 1000 + seq) if state in TERMINAL else 0, **fields,
    )  # fmt: skip


def full_job(seq: int, state: JobState = JobState.FAILED) -> Job:
    """A job with something in every column."""
    failure = Failure("ValueError", "no", "hint", "Traceback", 1, 11, "stderr")
    spec = {
        "device": Device.GPU,
        "name": "mein Modell \u2603",
        "labels": (("a", "1"), ("b", "2")),
        "submitter": "ada",
        "inputs": (("data", digest("d")),),
    }
    attempts = [Attempt(1, 5, "w", b"i", "cpu", WALL, WALL + 1, "CRASHED", failure), Attempt(2, 6, "v", b"j", "gpu", WALL + 2)]
    return job(
        seq, state, kind="training", reason="CRASH_LIMIT", rev=9, token=(WALL // 1_000_000) << 32 | 7, attempt=2, worker_id="gpu-1",
        instance=b"i" * 16, tag="gpu", crashes=3, losses=2, retries=1, started_at=WALL + 5, run_s=1.5, notice="a notice", result_size=3,
        priority=-7, failure=failure, attempts=attempts, checkpoint=Artifact("checkpoint", digest("c"), 7), checkpoint_seq=1 << 20 | 3,
        artifacts=[Artifact("model", digest("m"), 5, "application/zip"), Artifact("log", digest("l"), 6)], spec=spec,
    )  # fmt: skip


def saved(store: Store, *jobs: Job, **more: Any) -> None:
    store.commit(Saves(jobs={job.job_id: job for job in jobs}, **more))


class Opener:
    """Opens the store, or opens it again after its process was killed."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory = MemoryStore()
        self._disk: SqliteStore | None = None

    def __call__(self) -> Store:
        if self._folder is None:
            return self._memory
        self.kill()
        self._disk = SqliteStore(self._folder, fsync=False)
        return self._disk

    def kill(self) -> None:
        """Let go of the file without a word in it."""
        if self._disk is not None:
            self._disk._db.close()


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    opener = Opener(tmp_path if request.param == "sqlite" else None)
    yield opener
    opener.kill()


@pytest.fixture
def store(reopen: Opener) -> Store:
    store = reopen()
    store.load(WALL)
    return store


# ---------------------------------------------------------------- start


def test_a_new_store_is_empty(reopen: Opener) -> None:
    loaded = reopen().load(WALL)
    assert (loaded.jobs, loaded.artifacts, loaded.artifact_users) == ([], [], {})
    assert loaded.epoch == WALL // 1_000_000
    assert loaded.next_seq == 1
    assert loaded.clean
    assert len(loaded.store_id) == 16


def test_the_epoch_grows_even_if_the_clock_does_not(reopen: Opener) -> None:
    epochs = [reopen().load(wall).epoch for wall in (WALL, WALL, WALL - 10**12, WALL + 10**7)]
    assert epochs == [WALL // 10**6, WALL // 10**6 + 1, WALL // 10**6 + 2, WALL // 10**6 + 10]


def test_what_peers_may_have_seen_of_a_store_is_known(reopen: Opener) -> None:
    store = reopen()
    first = store.load(WALL)
    assert (first.former_epoch, first.last_token) == (0, 0)
    row = full_job(1)
    store.commit(Saves(jobs={row.job_id: row}))
    second = reopen().load(WALL)
    assert (second.former_epoch, second.last_token) == (first.epoch, row.token)
    store = reopen()
    store.load(WALL)
    store.commit(Saves(removed=[row.job_id]))
    assert reopen().load(WALL).last_token == row.token, "also when the job is removed"


def test_a_store_can_become_another(reopen: Opener) -> None:
    before = reopen().load(WALL).store_id
    reopen().renew()
    assert reopen().load(WALL).store_id != before


def test_the_identity_of_the_store_stays(reopen: Opener) -> None:
    assert reopen().load(WALL).store_id == reopen().load(WALL).store_id


def test_an_end_without_close_is_noticed_once(reopen: Opener) -> None:
    reopen().load(WALL)
    store = reopen()
    assert not store.load(WALL).clean
    store.close()
    assert reopen().load(WALL).clean


def test_what_is_not_over_is_loaded_in_its_order(reopen: Opener) -> None:
    store = reopen()
    store.load(WALL)
    states = list(JobState)
    jobs = [job(seq, state) for seq, state in enumerate(states, 1)]
    saved(store, *reversed(jobs))
    loaded = reopen().load(WALL)
    assert [(job.seq, job.state) for job in loaded.jobs] == [(seq, state) for seq, state in enumerate(states, 1) if state not in TERMINAL]
    assert all(job.stored for job in loaded.jobs)
    assert loaded.next_seq == len(states) + 1


def test_every_column_survives(reopen: Opener) -> None:
    store = reopen()
    store.load(WALL)
    jobs = [full_job(1), full_job(2, JobState.RUNNING), job(3)]
    saved(store, *jobs)
    store = reopen()
    loaded = {job.job_id: job for job in store.load(WALL).jobs}
    found = store.find(Lookup(ids=tuple(job.job_id for job in jobs))).jobs
    for before in jobs:
        for after in (found[before.job_id], loaded.get(before.job_id, found[before.job_id])):
            assert {name: getattr(after, name) for name in COLUMNS} == {name: getattr(before, name) for name in COLUMNS}


def test_what_is_of_the_moment_is_not_kept(reopen: Opener) -> None:
    """Progress and the monotonic clock mean nothing to the next process."""
    store = reopen()
    store.load(WALL)
    saved(store, job(1, ready=5.0, fraction=0.5, stage="train", text="x", metrics=[("a", 1.0)], progress_seq=7))
    (after,) = reopen().load(WALL).jobs
    assert (after.ready, after.fraction, after.stage, after.text, after.metrics, after.progress_seq) == (0.0, 0.0, "", "", [], -1)


# ---------------------------------------------------------------- commit


def test_a_commit_marks_its_jobs_as_stored(store: Store) -> None:
    new = job(1)
    assert not new.stored
    saved(store, new)
    assert new.stored


def test_what_was_committed_is_independent_of_the_core(store: Store) -> None:
    row = full_job(1, JobState.RUNNING)
    saved(store, row)
    row.attempts[-1].reason = "CHANGED"
    row.attempts.append(row.attempts[0])
    row.artifacts.clear()
    (found,) = store.find(Lookup(ids=(row.job_id,))).jobs.values()
    assert [attempt.reason for attempt in found.attempts] == ["CRASHED", ""]
    assert len(found.artifacts) == 2


def test_a_row_is_updated_in_place(store: Store) -> None:
    row = job(1)
    saved(store, row)
    row.state, row.reason, row.rev, row.token, row.worker_id = JobState.LEASED, "DISPATCHED", 2, 99, "w"
    saved(store, row)
    (found,) = store.find(Lookup(ids=(row.job_id,))).jobs.values()
    assert (found.state, found.rev, found.token, found.worker_id, found.body) == (JobState.LEASED, 2, 99, "w", b"body 1")


def test_a_commit_may_be_repeated(store: Store) -> None:
    """It was written and yet reported as failed: the same comes again, with more."""
    row, other = job(1), job(2)
    saves = Saves(jobs={row.job_id: row}, results={row.job_id: b"r"}, artifacts={digest("a"): ArtifactRow(digest("a"), 1, WALL, WALL)})
    store.commit(saves)
    row.stored = False
    row.state, row.finished_at = JobState.DONE, WALL
    saves.merge(Saves(jobs={other.job_id: other}))
    store.commit(saves)
    found = store.find(Lookup(ids=(row.job_id, other.job_id), results=True))
    assert found.jobs[row.job_id].state is JobState.DONE
    assert found.results == {row.job_id: b"r"}
    assert set(found.jobs) == {row.job_id, other.job_id}


def test_an_empty_commit_is_one(store: Store) -> None:
    store.commit(Saves())


def test_results_come_only_when_asked_for(store: Store) -> None:
    row = job(1, JobState.DONE)
    saved(store, row, results={row.job_id: b"result"})
    assert store.find(Lookup(ids=(row.job_id,))).results == {}
    assert store.find(Lookup(ids=(row.job_id,), results=True)).results == {row.job_id: b"result"}
    assert store.find(Lookup(refs=(row.job_id.hex(),), results=True)).results == {row.job_id: b"result"}


def test_a_result_of_nothing_is_one(store: Store) -> None:
    row = job(1, JobState.DONE)
    saved(store, row, results={row.job_id: b""})
    assert store.find(Lookup(ids=(row.job_id,), results=True)).results == {row.job_id: b""}


# ---------------------------------------------------------------- artifacts


def test_artifacts_and_who_names_them(reopen: Opener) -> None:
    store = reopen()
    store.load(WALL)
    rows = {digest(name): ArtifactRow(digest(name), size, WALL, WALL + size) for size, name in enumerate("dmlc", 1)}
    saved(store, full_job(1, JobState.RUNNING), full_job(2), artifacts=rows)
    loaded = reopen().load(WALL)
    assert {row.digest: row for row in loaded.artifacts} == rows
    assert loaded.artifact_users == dict.fromkeys(rows, 2), "ended jobs name their artifacts as well"


def test_an_artifact_named_twice_by_a_job_counts_once(reopen: Opener) -> None:
    store = reopen()
    store.load(WALL)
    twice = job(1, spec={"inputs": (("a", digest("x")), ("b", digest("x")))}, artifacts=[Artifact("c", digest("x"), 1)])
    saved(store, twice)
    assert reopen().load(WALL).artifact_users == {digest("x"): 1}
    assert artifact_digests(twice) == {digest("x")}


def test_users_follow_the_row(reopen: Opener) -> None:
    store = reopen()
    store.load(WALL)
    row = job(1, JobState.RUNNING, checkpoint=Artifact("checkpoint", digest("one"), 1))
    saved(store, row)
    row.checkpoint = Artifact("checkpoint", digest("two"), 1)
    saved(store, row)
    assert reopen().load(WALL).artifact_users == {digest("two"): 1}


def test_deleted_artifacts_are_gone(reopen: Opener) -> None:
    store = reopen()
    store.load(WALL)
    rows = {digest(name): ArtifactRow(digest(name), 1, WALL, WALL) for name in "ab"}
    store.commit(Saves(artifacts=rows))
    store.commit(Saves(artifacts_gone=[digest("a")]))
    assert [row.digest for row in reopen().load(WALL).artifacts] == [digest("b")]


def test_an_artifact_that_went_and_came_back_in_one_commit_is_there(reopen: Opener) -> None:
    store = reopen()
    store.load(WALL)
    row = ArtifactRow(digest("a"), 1, WALL, WALL)
    store.commit(Saves(artifacts={row.digest: row}))
    store.commit(Saves(artifacts_gone=[row.digest], artifacts={row.digest: row}))
    assert reopen().load(WALL).artifacts == [row]


# ---------------------------------------------------------------- removal


def test_a_removed_job_leaves_its_id_and_its_end(reopen: Opener) -> None:
    store = reopen()
    store.load(WALL)
    row = full_job(5)
    saved(store, row, results={row.job_id: b"abc"})
    store.commit(Saves(removed=[row.job_id]))
    store = reopen()
    loaded = store.load(WALL)
    found = store.find(Lookup(ids=(row.job_id,), results=True))
    assert (found.jobs, found.results) == ({}, {})
    assert found.known == {row.job_id: Known(row.digest, JobState.FAILED, row.finished_at)}
    assert store.find(Lookup(refs=(row.job_id.hex(),))).known == found.known
    assert loaded.artifact_users == {}
    assert loaded.next_seq == 6, "a place in the order is never given twice"


def test_removing_what_is_not_there_is_no_error(store: Store) -> None:
    store.commit(Saves(removed=[b"x" * 16]))
    assert store.find(Lookup(ids=(b"x" * 16,))).known == {}


# ---------------------------------------------------------------- references


def ids(store: Store, ref: str) -> list[bytes]:
    return store.find(Lookup(refs=(ref,))).refs[ref]


def test_references(store: Store) -> None:
    first = job(1, job_id=bytes.fromhex("abcd" + "00" * 14))
    second = job(2, kind="training", job_id=bytes.fromhex("abce" + "00" * 14))
    third = job(3, job_id=bytes.fromhex("ffff" + "00" * 14))
    saved(store, first, second, third)
    assert ids(store, first.job_id.hex()) == [first.job_id]
    assert ids(store, "ABCD") == [first.job_id]
    assert ids(store, "abce0") == [second.job_id]
    assert ids(store, "ffff" + "0" * 28) == [third.job_id]
    assert ids(store, "last") == [third.job_id]
    assert ids(store, "last:training") == [second.job_id]
    for nothing in ("last:noop", "abc", "abcf", "", "xyzw", "abcd" * 9, "last:", "--", "%"):
        assert ids(store, nothing) == ([third.job_id] if nothing == "last:" else [])


def test_two_are_enough_to_call_a_reference_ambiguous(store: Store) -> None:
    rows = [job(seq, job_id=b"\xab\xcd" + bytes([seq]) * 14) for seq in range(1, 6)]
    saved(store, *rows)
    assert len(ids(store, "abcd")) == 2
    assert len(store.find(Lookup(refs=("abcd",))).jobs) == 2


def test_jobs_that_are_found_have_their_bodies(store: Store) -> None:
    row = job(1, body=b"x" * 1000)
    saved(store, row)
    assert store.find(Lookup(refs=("last",))).jobs[row.job_id].body == row.body
    assert store.find(Lookup(ids=(row.job_id,))).jobs[row.job_id].body == row.body


@given(prefix=st.text("0123456789abcdefABCDEF", min_size=4, max_size=32), inside=st.binary(min_size=16, max_size=16))
def test_the_range_of_a_prefix_is_exactly_the_ids_that_begin_so(prefix: str, inside: bytes) -> None:
    bounds = hex_range(prefix)
    assert bounds is not None
    assert (bounds[0] <= inside <= bounds[1]) == inside.hex().startswith(prefix.lower())


KINDS = {"last": "", "last:training": "training", "last:": "", "lastly": None, "abcd": None, "": None}


@pytest.mark.parametrize("text, kind", list(KINDS.items()))
def test_last(text: str, kind: str | None) -> None:
    assert last_kind(text) == kind


# ---------------------------------------------------------------- pages


@pytest.fixture
def crowd(store: Store) -> list[Job]:
    rows = []
    for seq in range(1, 31):
        labels = (("team", "fx" if seq % 2 else "stocks"), ("n", str(seq % 3)))
        state = (JobState.DONE, JobState.FAILED, JobState.QUEUED)[seq % 3]
        spec = {"name": f"name {seq % 4}", "labels": labels, "submitter": "ada"}
        rows.append(job(seq, state, kind=("echo", "training")[seq % 5 == 0], spec=spec))
    saved(store, *rows)
    return rows


FILTERS: list[tuple[PageQuery, Callable[[Job], Any]]] = [
    (PageQuery(), lambda row: True),
    (PageQuery(states=("done",)), lambda row: row.state is JobState.DONE),
    (PageQuery(states=("done", "queued")), lambda row: row.state is not JobState.FAILED),
    (PageQuery(kinds=("training",)), lambda row: row.spec.kind == "training"),
    (PageQuery(kinds=("noop",)), lambda row: False),
    (PageQuery(name="name 1"), lambda row: row.spec.name == "name 1"),
    (PageQuery(labels=(("team", "fx"),)), lambda row: row.seq % 2),
    (PageQuery(labels=(("team", "fx"), ("n", "0"))), lambda row: row.seq % 2 and row.seq % 3 == 0),
    (PageQuery(labels=(("team", "x"),)), lambda row: False),
    (PageQuery(since=WALL + 20), lambda row: row.seq >= 20),
    (PageQuery(before_seq=10), lambda row: row.seq < 10),
    (PageQuery(states=("failed",), kinds=("echo",), before_seq=25), lambda row: row.seq % 3 == 1 and row.seq % 5 and row.seq < 25),
]


@pytest.mark.parametrize("query, wanted", FILTERS)
def test_a_page_is_what_passes_its_filter_newest_first(
    store: Store, crowd: list[Job], query: PageQuery, wanted: Callable[[Job], Any]
) -> None:
    page = store.find(Lookup(page=query)).page
    assert [row.seq for row in page] == [row.seq for row in reversed(crowd) if wanted(row)]
    assert all(row.body == b"" for row in page), "bodies stay where they are"


def test_pages_follow_one_another(store: Store, crowd: list[Job]) -> None:
    seen: list[int] = []
    before = 0
    while page := store.find(Lookup(page=PageQuery(before_seq=before, limit=7))).page:
        assert len(page) <= 7
        seen += [row.seq for row in page]
        before = page[-1].seq
    assert seen == list(range(30, 0, -1))


def test_what_can_be_pruned(store: Store, crowd: list[Job]) -> None:
    ended = [row for row in crowd if row.terminal and row.finished_at < WALL + 1020]
    assert {row.seq for row in store.find(Lookup(prune_before=WALL + 1020)).prunable} == {row.seq for row in ended}
    assert store.find(Lookup()).prunable == []


def test_pruning_goes_in_bounded_steps(store: Store) -> None:
    saved(store, *(job(seq, JobState.DONE) for seq in range(1, PRUNE_BATCH + 10)))
    assert len(store.find(Lookup(prune_before=WALL + 10**9)).prunable) == PRUNE_BATCH


def test_stats_count(store: Store, crowd: list[Job]) -> None:
    store.commit(Saves(artifacts={digest(name): ArtifactRow(digest(name), size, WALL, WALL) for name, size in (("a", 5), ("b", 7))}))
    stats = store.stats()
    assert stats["jobs"] == {"done": 10, "failed": 10, "queued": 10}
    assert (stats["artifacts"], stats["artifact_octets"]) == (2, 12)


# ---------------------------------------------------------------- the two are one

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "move", "end", "remove", "artifact", "drop", "reopen", "fail"]),
        st.integers(0, 200),
    ),
    max_size=40,
)


def columns(row: Job) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COLUMNS}


QUERIES = [
    PageQuery(),
    PageQuery(states=("done", "failed"), limit=3),
    PageQuery(kinds=("training",)),
    PageQuery(labels=(("odd", "1"),)),
    PageQuery(before_seq=9),
]


def answers(store: Store) -> list[Any]:
    """Everything that can be asked, in a form that can be compared."""
    every = tuple(seq.to_bytes(16, "big") for seq in range(1, 60))
    refs = ("last", "last:training", "last:noop", "0" * 31 + "5", "0" * 20, *(job_id.hex() for job_id in every[:3]))
    by_id, by_ref = store.find(Lookup(ids=every, results=True)), store.find(Lookup(refs=refs))
    jobs = [sorted(map(columns, found.jobs.values()), key=lambda row: int(row["seq"])) for found in (by_id, by_ref)]
    pages = [list(map(columns, store.find(Lookup(page=query)).page)) for query in QUERIES]
    prunable = sorted(row.seq for row in store.find(Lookup(prune_before=WALL + 2000)).prunable)
    stats = {name: value for name, value in store.stats().items() if name != "database_octets"}
    return [jobs, pages, {ref: sorted(found) for ref, found in by_ref.refs.items()}, by_id.results, by_id.known, prunable, stats]


def comparable(loaded: Loaded) -> list[Any]:
    artifacts = sorted(loaded.artifacts, key=lambda row: row.digest)
    return [loaded.epoch, loaded.next_seq, list(map(columns, loaded.jobs)), artifacts, loaded.artifact_users]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_happens_both_stores_give_the_same_answers(steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store")
    memory, disk = MemoryStore(), SqliteStore(folder, fsync=False)
    memory.load(WALL)
    disk.load(WALL)
    live: dict[int, Job] = {}
    seq = 0
    for what, number in steps:
        saves = Saves()
        chosen = list(live.values())[number % len(live)] if live else None
        if what == "add":
            seq += 1
            spec = {"labels": (("odd", str(number % 2)),), "inputs": (("i", digest(str(number % 3))),)}
            new = live[seq] = job(seq, kind=("echo", "training")[number % 2], spec=spec)
            saves.jobs[new.job_id] = new
        elif what == "artifact":
            saves.artifacts[digest(str(number % 5))] = ArtifactRow(digest(str(number % 5)), number, WALL, WALL)
        elif what == "drop":
            saves.artifacts_gone.append(digest(str(number % 5)))
        elif what == "reopen":
            if number % 2:
                memory.close()
                disk.close()
            else:
                disk._db.close()
            disk = SqliteStore(folder, fsync=False)
            first, second = memory.load(WALL + number), disk.load(WALL + number)
            assert comparable(first) == comparable(second)
            assert first.clean == second.clean
            live = {row.seq: row for row in second.jobs}
        elif chosen is not None and what == "move":
            chosen.state, chosen.reason, chosen.rev = JobState.RUNNING, "ACCEPTED", chosen.rev + 1
            chosen.attempts = [*chosen.attempts, Attempt(len(chosen.attempts) + 1, number, "w", b"i", "cpu", WALL)]
            chosen.checkpoint = Artifact("checkpoint", digest(str(number % 4)), 1) if number % 3 else chosen.checkpoint
            saves.jobs[chosen.job_id] = chosen
        elif chosen is not None and what == "end":
            chosen.state, chosen.finished_at = (JobState.DONE, JobState.FAILED)[number % 2], WALL + 10 * number
            chosen.artifacts = [Artifact("out", digest(str(number % 4)), 1)]
            saves.jobs[chosen.job_id] = chosen
            saves.results[chosen.job_id] = b"result %d" % number
            del live[chosen.seq]
        elif what == "remove":
            saves.removed += [row.job_id for row in memory.jobs.values() if row.terminal][: 1 + number % 2]
        elif what == "fail":
            memory.failures = 1
            with pytest.raises(StorageError):
                memory.commit(saves)
        twin = Saves(**{name: getattr(saves, name) for name in Saves.__struct_fields__})
        twin.jobs = {job_id: copy.copy(row) for job_id, row in saves.jobs.items()}
        memory.commit(twin)
        disk.commit(saves)
    assert answers(memory) == answers(disk)
    disk.close()


# ---------------------------------------------------------------- the double's own tricks


def test_the_double_can_fail_and_write_nothing() -> None:
    store = MemoryStore()
    store.failures = 1
    row = job(1)
    with pytest.raises(StorageError):
        saved(store, row)
    assert (store.jobs, row.stored) == ({}, False)
    saved(store, row)
    assert row.stored


def test_the_double_can_write_and_say_that_it_failed() -> None:
    store = MemoryStore()
    store.torn = 1
    row = job(1)
    with pytest.raises(StorageError):
        saved(store, row)
    assert store.jobs[row.job_id].seq == 1
    assert not row.stored, "the core has to say it again"


def test_a_copy_is_what_a_database_would_give_back() -> None:
    row = full_job(1)
    twin = stored_copy(row)
    assert twin is not row
    assert twin.stored
    assert stored_copy(row, body=False).body == b""
