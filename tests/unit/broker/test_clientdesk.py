"""What a client may ask: status, pages, retry, results, administration; and that no nonsense hurts the broker."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Artifact, JobState, Outcome
from tests.unit.broker.driver import Client, House, artifact


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def client(house: House) -> Client:
    return house.client()


# ---------------------------------------------------------------- the dialogue


def test_hello(house: House) -> None:
    client = Client(house)
    ok = client.ask(m.ClientHello(5, m.ClientInfo([m.MAJOR])))
    assert ok == m.ClientHelloOk(5, house.broker.ledger.epoch, house.store.store_id, m.MAX_MESSAGE, 256 * 1024, "1.2.3")


def test_hello_of_another_version(house: House) -> None:
    nack = Client(house).ask(m.ClientHello(5, m.ClientInfo([9])))
    assert (nack.code, nack.request, nack.retryable, nack.versions) == ("VERSION", 5, False, [1])


def test_a_stranger_is_asked_for_hello(house: House) -> None:
    nack = Client(house).ask(m.Workers(3))
    assert (nack.code, nack.verb, nack.request, nack.retryable) == ("HELLO_REQUIRED", 0x4A, 3, True)


def test_ping(client: Client, house: House) -> None:
    assert client.ask(m.ClientPing(8)) == m.ClientPong(8, house.broker.ledger.epoch)


def test_a_crowd_of_short_calls_displaces_the_longest_silent(house: House) -> None:
    """Every call of the command line is a client of its own; none of them says good-bye."""
    house = House(max_clients=10)
    old = house.client()
    faithful = house.client()
    for _ in range(8):
        house.client()
    house.now += 1.0
    faithful.ask(m.ClientPing(1))
    for _ in range(20):
        house.now += 1.0
        house.client()
        assert isinstance(faithful.ask(m.ClientPing(1)), m.ClientPong)
    assert old.ask(m.ClientPing(1)).code == "HELLO_REQUIRED"
    assert len(house.broker.clients._clients) <= 10


def test_silent_clients_are_forgotten(house: House) -> None:
    house = House(forget_client_after=60.0)
    client = house.client()
    house.tick(61.0)
    assert client.ask(m.ClientPing(1)).code == "HELLO_REQUIRED"


# ---------------------------------------------------------------- references, pages


def test_references(house: House, client: Client) -> None:
    house.worker()
    one = client.submit("echo", job_id=b"\xaa" * 16)
    two = client.submit("training", job_id=b"\xaa" * 15 + b"\xbb")
    three = client.submit("echo", job_id=b"\xcc" * 16)
    refs = [one.hex(), one.hex().upper(), "cccc", "last", "last:training", "aaaa", "dddd", "ccc", "last:nothing", "zzzz"]
    reply = client.ask(m.Status(1, refs))
    assert [view.job_id for view in reply.jobs] == [one, one, three, three, two]
    assert [(e.ref, e.code, e.text) for e in reply.errors] == [
        ("aaaa", "AMBIGUOUS_JOB", "Several jobs begin with aaaa."),
        *[(ref, "UNKNOWN_JOB", f"There is no job {ref}.") for ref in ("dddd", "ccc", "last:nothing", "zzzz")],
    ]


def test_a_job_that_is_not_committed_yet_can_be_cancelled_by_its_id(house: House, client: Client) -> None:
    worker = house.worker(grant=False)
    house.store.failures = 2
    job = b"\xaa" * 16
    client.ask(m.Submit(1, [m.SubmitItem(job, b"\x91\xa4echo", 0)]), [b""])
    assert client.ask(m.CancelJobs(2, [job.hex()])).code == "STORAGE", "what cannot be written down is not promised"
    house.tick(0.0)
    house.tick(5.0, worker)
    client.ask(m.CancelJobs(3, [job.hex()]))
    worker.grant()
    assert worker.jobs == []
    assert house.job_events(job) == [("cancelled", "CANCELLED")]


def test_details_on_demand(house: House, client: Client) -> None:
    worker = house.worker()
    digest = house.store_artifact(b"data")
    job = client.submit("training", inputs=(("data", digest),))
    worker.accept(job)
    plain = client.ask(m.Status(1, [job.hex()])).jobs[0]
    full = client.ask(m.Status(1, [job.hex()], details=True)).jobs[0]
    assert (plain.attempts, plain.inputs) == ([], [])
    assert (full.attempts[0].worker_id, full.inputs) == ("cpu-1", [("data", digest)])


def test_pages(house: House, client: Client) -> None:
    worker = house.worker()
    jobs = [client.submit("echo", name=f"n{n % 2}", labels=(("team", "a" if n < 3 else "b"),)) for n in range(5)]
    worker.finish(jobs[0])

    def page(**query: Any) -> list[int]:
        reply = client.ask(m.List(1, **query))
        return [jobs.index(view.job_id) for view in reply.jobs]

    assert page() == [4, 3, 2, 1, 0]
    assert page(states=["done"]) == [0]
    assert page(states=["queued", "leased"]) == [4, 3, 2, 1]
    assert page(kinds=["training"]) == []
    assert page(labels=[("team", "b")]) == [4, 3]
    assert page(name="n1") == [3, 1]
    first = client.ask(m.List(1, limit=2))
    second = client.ask(m.List(2, limit=2, before_seq=first.next_before))
    third = client.ask(m.List(3, limit=2, before_seq=second.next_before))
    assert [[jobs.index(v.job_id) for v in reply.jobs] for reply in (first, second, third)] == [[4, 3], [2, 1], [0]]
    assert third.next_before == 0


def test_a_page_shows_what_the_core_knows_better(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("training")
    worker.progress(job, 1, 0.25)
    assert client.ask(m.List(1)).jobs[0].fraction == 0.25


def test_snapshot_pages_through_what_is_not_over(house: House, client: Client) -> None:
    worker = house.worker()
    jobs = [client.submit("echo") for _ in range(5)]
    worker.finish(jobs[0])
    first = client.ask(m.Snapshot(1, limit=3))
    second = client.ask(m.Snapshot(2, after_seq=first.next_after, limit=3))
    assert [view.job_id for view in first.jobs + second.jobs] == jobs[1:]
    assert (first.next_after > 0, second.next_after) == (True, 0)


def test_workers(house: House, client: Client) -> None:
    gpu = m.Device(0, "GPU-1", "RTX", 24 << 30)
    worker = house.worker("gpu-1", slots={"gpu": 1, "cpu": 2}, devices=[gpu], hostname="lab", cpus=8, software={"torch": "2.13"})
    house.worker("sim-1", slots={"gpu": 1}, simulated_gpu=True)
    house.worker("cpu-1")
    job = client.submit("training")
    worker.say(m.WorkerPing(worker.session, 1, [], 0.01, 0.7))
    views = client.ask(m.Workers(1)).workers
    assert [(v.worker_id, v.state, v.gpu, v.gpu_type, v.gpu_count) for v in views] == [
        ("gpu-1", "live", True, "CUDA", 1), ("sim-1", "live", True, "simulated", 1), ("cpu-1", "live", False, None, 0)
    ]  # fmt: skip
    first = views[0]
    assert (first.address, first.hostname, first.slots, first.cpus) == ("10.0.0.1", "lab", [("gpu", 1), ("cpu", 2)], 8)
    assert (first.running, first.lag, first.load, first.software) == ([job], 0.01, 0.7, {"torch": "2.13"})


# ---------------------------------------------------------------- results, retry


def test_a_result_is_there_as_soon_as_the_job_is_done(house: House, client: Client) -> None:
    """Asked in the same turn in which it came, before any commit."""
    from ktrdr_broker.core import Port

    worker = house.worker()
    job = client.submit("echo")
    item = m.ResultItem(job, worker.items[job].token, Outcome.DONE, 4)
    house.send(Port.WORKER, worker.peer, m.Result(worker.session, [item]), [b"body"])
    reply, body = client.result(job)
    assert (reply.job.state, reply.dropped, body) == ("done", False, b"body")


def test_a_result_of_nothing(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("echo")
    reply, body = client.result(job)
    assert (reply.job.state, reply.size, reply.dropped, body) == ("leased", 0, False, b"")
    worker.finish(job)
    reply, body = client.result(job)
    assert (reply.job.state, reply.size, reply.dropped, body) == ("done", 0, False, b"")
    del house.store.results[job]
    house.store.jobs[job].result_size = 9
    assert client.result(job)[0].dropped
    assert client.ask(m.ResultGet(1, "ffff")).code == "UNKNOWN_JOB"


def test_retry_makes_a_new_job_like_the_old_one(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("training", b"body", name="again", priority=3)
    worker.finish(job, Outcome.FAILED)
    new = b"n" * 16
    reply = client.ask(m.Retry(1, job.hex(), new))
    assert (reply.job.job_id, reply.job.retry_of, reply.job.name, reply.job.priority) == (new, job, "again", 3)
    assert worker.jobs == [job, new]
    assert house.received[worker.peer][-1][1] == [b"body"]
    assert client.ask(m.Retry(2, job.hex(), new)).job.job_id == new  # asked again: the same one
    assert client.state(job) == "failed"


def test_resume_goes_on_from_the_last_checkpoint(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("training", b"body")
    assert client.ask(m.Retry(1, job.hex(), b"n" * 16, True)).code == "CONFLICT", "it has not ended"
    digest = house.store_artifact(b"the state")
    worker.checkpoint(job, 7, b"the state")
    worker.finish(job, Outcome.FAILED)
    reply = client.ask(m.Retry(2, job.hex(), b"n" * 16, True))
    assert reply.job.retry_of == job
    assert worker.items[b"n" * 16].checkpoint.digest == digest


def test_the_checkpoint_that_a_job_goes_on_from_is_kept_for_it(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("training", b"body")
    digest = house.store_artifact(b"the state")
    worker.checkpoint(job, 7, b"the state")
    worker.finish(job, Outcome.FAILED)
    users = house.broker.ledger.users
    client.ask(m.Retry(2, job.hex(), b"n" * 16, True))
    assert users[digest] == 2
    worker.finish(b"n" * 16, Outcome.FAILED)
    assert users[digest] == 2, "both rows name it"
    client.admin("rm", refs=[job.hex()])
    assert users[digest] == 1
    assert house.store.load(house.wall).artifact_users[digest] == 1


def test_without_a_checkpoint_there_is_nothing_to_resume(house: House, client: Client) -> None:
    worker = house.worker()
    for outcome, why in ((Outcome.FAILED, "no checkpoint"), (Outcome.DONE, "it is done")):
        job = client.submit("training", b"body")
        worker.finish(job, outcome)
        refused = client.ask(m.Retry(1, job.hex(), b"n" * 16, True))
        assert refused.code == "CONFLICT"
        assert why in refused.text


def test_retry_waits_for_a_worker(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("training")
    worker.finish(job, Outcome.FAILED)
    worker.bye()
    assert client.ask(m.Retry(1, job.hex(), b"n" * 16)).job.state == "queued"


@pytest.mark.parametrize(
    "ref, new_id, code",
    [
        ("running", b"n" * 16, "CONFLICT"),
        ("ended", b"short", "BAD_SPEC"),
        ("ended", b"e" * 16, "CONFLICT"),
        ("ended", b"r" * 16, "CONFLICT"),
        ("ended", b"p" * 16, "CONFLICT"),
        ("ffff", b"n" * 16, "UNKNOWN_JOB"),
    ],
)
def test_retries_that_cannot_be(house: House, client: Client, ref: str, new_id: bytes, code: str) -> None:
    worker = house.worker()
    for job_id in (b"p" * 16, b"e" * 16):
        worker.finish(client.submit("echo", job_id=job_id), Outcome.FAILED)
    client.submit("echo", job_id=b"r" * 16)
    client.admin("rm", refs=[(b"p" * 16).hex()])
    refs = {"running": (b"r" * 16).hex(), "ended": (b"e" * 16).hex()}
    assert client.ask(m.Retry(1, refs.get(ref, ref), new_id)).code == code


def test_no_retry_without_a_disk_or_at_the_end(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("echo")
    worker.finish(job)
    house.broker.on_storage(False, "full")
    assert client.ask(m.Retry(1, job.hex(), b"n" * 16)).code == "STORAGE"
    house.broker.shutdown(house.now, house.wall)
    assert client.ask(m.Retry(1, job.hex(), b"n" * 16)).code == "SHUTTING_DOWN"


# ---------------------------------------------------------------- administration


def test_status_document(house: House, client: Client) -> None:
    worker = house.worker(slots={"cpu": 1})
    done, _, waiting = client.submit("echo"), client.submit("echo"), client.submit("training", b"body")
    worker.finish(done, run_s=2.0)
    house.store_artifact(b"1234")
    document = client.admin("status", store={"disk_free_octets": 5})
    assert document["states"] == {"leased": 1, "queued": 1}
    assert document["queued"] == {"training": 1}
    assert (document["queued_octets"], document["paused"], document["workers"]) == (4, False, {"live": 1})
    assert document["artifacts"] == {"count": 1, "octets": 4}
    assert document["mean_run_s"] == {"echo": 2.0}
    assert (document["version"], document["storage"], document["disk"]) == ("1.2.3", "ok", {"disk_free_octets": 5})
    assert document["counters"]["done"] == 1
    assert waiting in house.broker.queues.jobs


def test_status_speaks_of_a_full_disk_while_it_is_full(house: House, client: Client) -> None:
    house.worker()
    house.store.failures = 5
    client.ask(m.Submit(1, [m.SubmitItem(b"a" * 16, b"\x91\xa4echo", 0)]), [b""])
    assert client.admin("status")["storage"] == "An injected failure: nothing was written."


def test_drain_of_a_stranger(client: Client) -> None:
    nack = client.admin("drain", worker_id="nobody")
    assert (nack.code, nack.text) == ("BAD_SPEC", "There is no worker nobody.")


def test_drain_passes_its_wishes_on(house: House, client: Client) -> None:
    worker = house.worker()
    client.admin("drain", worker_id="cpu-1", stop=True, leave=True)
    assert worker.last(m.Drain) == m.Drain(True, True, True)


def test_a_drain_that_was_not_heard_is_said_again_with_its_wishes(house: House, client: Client) -> None:
    worker = house.worker()
    client.admin("drain", worker_id="cpu-1", stop=True, leave=True)
    worker.reconnect()
    assert worker.last(m.Drain) == m.Drain(True, True, True)
    worker.reborn()
    assert worker.last(m.Drain) == m.Drain(True), "it has left, and is started again: it gets no work, and that is all"


def test_a_word_about_draining_that_was_lost_is_said_again(house: House, client: Client) -> None:
    worker = house.worker()

    def pinged(draining: bool) -> int:
        before = worker.count(m.Drain)
        worker.say(m.WorkerPing(worker.session, 1, draining=draining))
        return worker.count(m.Drain) - before

    assert pinged(False) == 0
    client.admin("drain", worker_id="cpu-1")
    assert (pinged(False), worker.last(m.Drain).on) == (1, True)
    assert pinged(True) == 0
    client.admin("undrain", worker_id="cpu-1")
    assert (pinged(True), worker.last(m.Drain).on) == (1, False)


@pytest.mark.parametrize("priority", [1001, "high", None, 1.5])
def test_a_priority_is_a_number_within_bounds(house: House, client: Client, priority: Any) -> None:
    house.worker()
    job = client.submit("echo")
    assert client.admin("priority", refs=[job.hex()], priority=priority).code == "BAD_SPEC"


def test_rm_removes_what_has_ended_only(house: House, client: Client) -> None:
    worker = house.worker()
    ended, running = client.submit("echo"), client.submit("echo")
    worker.finish(ended)
    nack = client.admin("rm", refs=[running.hex()])
    assert nack.text == "Only ended jobs can be removed; cancel the others first."
    assert client.admin("rm", refs=["ffff"]).text == "There is no job ffff."
    assert client.admin("rm", refs=[ended.hex(), ended.hex()]) == {"removed": 1}
    assert client.ask(m.Status(1, [ended.hex()])).errors[0].code == "UNKNOWN_JOB"


def test_prune_keeps_models_and_what_runs(house: House, client: Client) -> None:
    worker = house.worker()
    house.store_artifact(b"weights")
    plain, trained, running = (client.submit("training") for _ in range(3))
    worker.finish(plain)
    worker.finish(trained, artifacts=[artifact("model", b"weights")])
    assert client.admin("prune") == {"removed": 0}
    assert client.admin("prune", before=house.wall + 1) == {"removed": 1}
    states = {view.job_id: view.state for view in client.ask(m.List(1)).jobs}
    assert states == {trained: JobState.DONE, running: JobState.LEASED}
    assert client.admin("rm", refs=[trained.hex()]) == {"removed": 1}


def test_prune_keeps_imported_bars_and_no_others(house: House, client: Client) -> None:
    worker = house.worker(kinds="data-import other")
    house.store_artifact(b"prices")
    imported, other = client.submit("data-import"), client.submit("other")
    for job in (imported, other):
        worker.finish(job, artifacts=[artifact("bars", b"prices")])
    assert client.admin("prune", before=house.wall + 1) == {"removed": 1}
    assert [view.job_id for view in client.ask(m.List(1)).jobs] == [imported]
    assert client.admin("rm", refs=[imported.hex()]) == {"removed": 1}


def test_pruning_twice_in_one_turn_counts_once(house: House, client: Client) -> None:
    """Else an artifact that another job still needs would lose its last user."""
    worker = house.worker()
    digest = house.store_artifact(b"shared")
    first = client.submit("training", inputs=(("data", digest),))
    worker.finish(first)
    client.submit("training", inputs=(("data", digest),))
    rows = [house.store.jobs[first]]
    house.broker.on_prunable(rows, house.now, house.wall)
    house.broker.on_prunable(rows, house.now, house.wall)
    house.turn()
    assert house.broker.ledger.users == {digest: 1}


def test_an_action_that_is_none(client: Client) -> None:
    assert client.admin("explode").text == "There is no administrative action 'explode'."


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ACTIONS = st.sampled_from(["status", "drain", "undrain", "pause", "unpause", "priority", "prune", "rm", "?"])


@settings(max_examples=150, deadline=None)
@given(ACTIONS, st.dictionaries(st.sampled_from(["refs", "priority", "before", "worker_id", "stop", "leave", "x"]), NONSENSE))
def test_no_arguments_hurt_the_broker(action: str, args: dict[str, Any]) -> None:
    house = House()
    house.worker()
    client = house.client()
    client.submit("echo")
    reply = client.ask(m.Admin(1, action, args))
    assert isinstance(reply, (m.AdminReply, m.Nack))
    assert isinstance(client.ask(m.ClientPing(1)), m.ClientPong)


NUMBERS = st.integers(-(2**63), 2**64 - 1)


@settings(max_examples=100, deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_no_number_hurts_a_page(since: int, before: int, limit: int) -> None:
    """What goes to the store fits its 64 bits."""
    house = House()
    house.worker()
    client = house.client()
    client.submit("echo")
    lookup = house.broker.lookup(client_port(), m.List(1, since=since, before_seq=before, limit=limit))
    assert lookup is not None and lookup.page is not None
    assert 0 <= lookup.page.since < 2**63 and 0 <= lookup.page.before_seq < 2**63 and 1 <= lookup.page.limit <= 1000
    assert isinstance(client.ask(m.List(1, since=since, before_seq=before, limit=limit)), m.ListReply)
    assert isinstance(client.ask(m.Snapshot(1, after_seq=since, limit=limit)), m.SnapshotReply)


def client_port() -> Any:
    from ktrdr_broker.core import Port

    return Port.CLIENT


def test_logs_of_a_job_that_waits(house: House, client: Client) -> None:
    house.worker(grant=False)
    job = client.submit("echo")
    assert client.ask(m.Logs(1, job.hex())) == m.LogsReply(1, 0, 0, False, None)
    assert client.ask(m.Logs(1, "ffff")).code == "UNKNOWN_JOB"


def test_have(house: House, client: Client) -> None:
    digest = house.store_artifact(b"x")
    assert client.ask(m.Have(4, [b"0" * 32, digest])) == m.HaveReply(4, [digest])


def test_artifacts_of_a_job_are_shown(house: House, client: Client) -> None:
    worker = house.worker()
    house.store_artifact(b"trades")
    job = client.submit("training")
    wanted = Artifact("trades", artifact("", b"trades").digest, 6, "text/csv")
    worker.finish(job, artifacts=[wanted])
    assert client.view(job).artifacts == [wanted]


def test_a_cancel_that_cannot_be_written_down_says_so(house: House, client: Client) -> None:
    """And nothing is cancelled: an answer that waits for the disk would look like a broker that is dead."""
    house.worker()
    job = client.submit("echo")
    house.broker.on_storage(False, "no space")
    refused = client.ask(m.CancelJobs(1, [job.hex()], 1.0))
    assert (refused.code, refused.retryable) == ("STORAGE", True)
    house.broker.on_storage(True)
    assert client.state(job) == "leased"
