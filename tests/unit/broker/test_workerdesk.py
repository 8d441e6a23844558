"""The dialogue of a worker: verdicts at HELLO, accepts and rejections, progress, checkpoints, doubts, good-bye."""

from __future__ import annotations

import math

import pytest

from ktrdr_broker.registry import Liveness
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Artifact, Outcome
from tests.unit.broker.driver import House, Worker, artifact


@pytest.fixture
def house() -> House:
    return House()


# ---------------------------------------------------------------- verdicts at HELLO


def test_a_running_job_goes_on_after_a_reconnect(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    ref = worker.ref(job)
    worker.reconnect(running=[ref])
    assert worker.verdicts() == {job: "CONTINUE"}
    worker.finish(job, token=ref.token)
    view = client.view(job)
    assert (view.state, view.attempt, view.losses) == ("done", 1, 0)


def test_a_job_that_was_never_accepted_but_runs_goes_on(house: House) -> None:
    """The ACCEPT was lost with the connection."""
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.reconnect(running=[worker.ref(job)])
    assert worker.verdicts() == {job: "CONTINUE"}
    assert client.state(job) == "running"


def test_a_dispatch_that_was_lost_returns_without_a_trace(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.reconnect()
    view = client.view(job)
    assert (view.state, view.reason, view.attempts) == ("queued", "REJECTED", [])
    worker.grant()
    assert worker.items[job].attempt == 1


def test_a_job_that_a_worker_has_lost_runs_again(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    worker.reconnect()
    view = client.view(job)
    assert (view.state, view.reason, view.losses) == ("queued", "WORKER_GONE", 1)
    assert view.attempts[0].failure is not None
    assert view.attempts[0].failure.message == "Worker cpu-1 went away while it had the job."


def test_a_new_process_does_not_have_the_old_ones_jobs(house: House) -> None:
    worker, client = house.worker(slots={"cpu": 2}), house.client()
    running, sent = client.submit("training"), client.submit("training")
    worker.accept(running)
    worker.reborn()
    assert [(client.view(job).losses, len(client.view(job).attempts)) for job in (running, sent)] == [(1, 1), (0, 0)]


def test_a_finished_job_is_asked_for_and_given_to_nobody_else(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    ref = worker.ref(job)
    house.worker("cpu-2")
    worker.reborn(finished=[ref])  # its spool outlived the process
    assert worker.verdicts() == {job: "SEND_RESULT"}
    assert client.state(job) == "running"
    worker.finish(job, token=ref.token, body=b"spooled")
    assert client.result(job)[1] == b"spooled"


def test_what_belongs_to_nobody_is_aborted_or_forgotten(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    worker.finish(job)
    strange = m.JobRef(b"x" * 16, 77)
    stale = m.JobRef(job, worker.items[job].token)
    worker.reconnect(running=[strange], finished=[stale])
    assert worker.verdicts() == {strange.job_id: "ABORT", job: "FORGET"}


def test_a_token_of_nothing_is_never_adopted(house: House) -> None:
    """Token 0 does not exist: a job that was never dispatched belongs to nobody."""
    client = house.client()
    job = client.submit("training", queue=True) if house.worker(grant=False) else b""
    worker = Worker(house, "cpu-2", kinds="training")
    worker.hello(running=[m.JobRef(job, 0)])
    assert worker.verdicts() == {job: "ABORT"}


def test_an_aborted_job_was_given_to_another(house: House) -> None:
    first, client = house.worker("cpu-1"), house.client()
    job = client.submit("training")
    first.accept(job)
    second = house.worker("cpu-2")
    house.tick(30.0, second)
    second.accept(job)
    first.reconnect(running=[first.ref(job)])
    assert first.verdicts() == {job: "ABORT"}
    assert client.view(job).worker_id == "cpu-2"


def test_readoption_after_presumed_death(house: House) -> None:
    """Cut off, presumed dead, its job back in the queue: who comes back before somebody else took it goes on with it."""
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    ref = worker.ref(job)
    house.tick(15.0)
    view = client.view(job)
    assert (view.state, view.reason, view.losses) == ("queued", "WORKER_LOST", 1)
    worker.reconnect(running=[ref])
    assert worker.verdicts() == {job: "CONTINUE"}
    view = client.view(job)
    assert (view.state, view.losses, view.attempt) == ("running", 0, 1)
    assert (view.attempts[0].ended_at, view.attempts[0].reason) == (0, "")
    worker.finish(job, token=ref.token)
    assert client.state(job) == "done"


def test_a_cancelled_job_is_named_again_after_hello(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    ref = worker.ref(job)
    client.cancel(job)
    worker.reconnect(running=[ref])
    assert worker.verdicts() == {job: "CONTINUE"}
    assert [item.token for item in worker.last(m.Cancel).items] == [ref.token]


# ---------------------------------------------------------------- accept, reject, progress


def test_accept_makes_it_run(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    assert client.state(job) == "leased"
    worker.accept(job)
    view = client.view(job)
    assert (view.state, view.worker_id, view.tag, view.started_at) == ("running", "cpu-1", "cpu", house.wall)


def test_a_result_implies_the_accept(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    house.now += 3.0
    worker.finish(job, run_s=2.5)
    view = client.view(job)
    assert (view.state, view.started_at) == ("done", house.wall - 2_500_000)


def test_who_rejected_is_left_alone_for_a_while(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    worker.reject(job)
    view = client.view(job)
    assert (view.state, view.reason, view.attempts, view.losses) == ("queued", "REJECTED", [], 0)
    assert client.explain(job)[1] == {"cpu-1": "it turned this job down; asked again in 30 s"}
    other = house.worker("cpu-2")
    assert other.jobs == [job]
    assert len(worker.jobs) == 1


def test_the_pause_after_a_rejection_ends(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    worker.reject(job)
    house.tick(29.0, worker)
    assert worker.jobs == [job]
    house.tick(3.0, worker)
    assert worker.jobs == [job, job]


def test_what_waited_too_long_at_a_worker_is_no_reason_to_avoid_it(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    worker.reject(job, "PREFETCH_STALE")
    assert worker.jobs == [job, job]


def test_progress_is_published_and_only_grows(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.progress(job, 1, 0.5, "train")  # implies the accept
    assert client.state(job) == "running"
    worker.progress(job, 2, 0.3, "train")
    worker.progress(job, 2, 0.9)  # a duplicate
    worker.progress(job, 3, 7.0)
    worker.progress(job, 4, math.nan)
    seen = [(e.seq, e.fraction) for _, e, _ in house.events if isinstance(e, m.ProgressEvent)]
    assert seen == [(1, 0.5), (2, 0.5), (3, 1.0), (4, 1.0)]


def test_progress_begins_anew_with_the_next_attempt(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.progress(job, 9, 0.9)
    worker.finish(job, Outcome.HANDED_BACK)
    worker.progress(job, 1, 0.1)
    assert client.view(job).fraction == 0.1


def test_progress_of_a_strangers_job_is_ignored(house: House) -> None:
    first, second = house.worker("cpu-1"), house.worker("cpu-2")
    job = house.client().submit("training")
    owner, other = (first, second) if first.jobs else (second, first)
    other.say(m.Progress(other.session, [m.ProgressItem(job, owner.items[job].token, 1, 0.5)]))
    assert house.client().state(job) == "leased"


def test_a_message_of_an_earlier_session_means_nothing(house: House) -> None:
    worker = house.worker()
    session = worker.session
    worker.reconnect()
    worker.say(m.Credit(session, [("cpu", 99)]))
    assert house.broker.registry.workers["cpu-1"].credit == {"cpu": 0}


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_travels_with_the_next_attempt(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    house.store_artifact(b"weights")
    worker.checkpoint(job, 1, b"weights")
    assert worker.last(m.CheckpointAck) == m.CheckpointAck(job, worker.items[job].token, 1, True)
    worker.finish(job, Outcome.HANDED_BACK)
    assert worker.items[job].attempt == 2
    assert worker.items[job].checkpoint == artifact("checkpoint", b"weights")


def test_a_checkpoint_forgives_crashes(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.finish(job, Outcome.CRASHED)
    worker.finish(job, Outcome.CRASHED)
    house.store_artifact(b"weights")
    worker.checkpoint(job, 1, b"weights")
    assert client.view(job).crashes == 0


def test_an_older_checkpoint_does_not_replace_a_newer_one(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    for data in (b"one", b"two"):
        house.store_artifact(data)
    worker.checkpoint(job, 5, b"two")
    worker.checkpoint(job, 4, b"one")
    worker.checkpoint(job, 1 << 63, b"one")
    assert house.store.jobs[job].checkpoint == artifact("checkpoint", b"two")
    assert client.view(job).checkpoint_seq == 5


def test_a_checkpoint_that_is_not_stored_must_be_uploaded_first(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.checkpoint(job, 1, b"not there")
    assert worker.acks() == ["MISSING_ARTIFACT"]
    assert house.store.jobs[job].checkpoint is None


def test_the_checkpoint_of_a_job_that_is_being_cancelled_must_be_stored_too(house: House) -> None:
    """Somebody may resume it."""
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    client.cancel(job)
    worker.checkpoint(job, 1, b"not there")
    assert worker.acks() == ["MISSING_ARTIFACT"]
    assert house.store.jobs[job].checkpoint is None


def test_credit_in_a_ping_makes_good_for_a_grant_that_was_lost(house: House) -> None:
    worker, client = house.worker(grant=False), house.client()
    job = client.submit()
    assert worker.jobs == []
    worker.say(m.WorkerPing(worker.session, 1, credit=[("cpu", 1)]))
    assert worker.jobs == [job]


def test_a_zombie_cannot_overwrite_its_successors_checkpoint(house: House) -> None:
    first, client = house.worker("cpu-1"), house.client()
    job = client.submit("training")
    first.accept(job)
    token = first.items[job].token
    second = house.worker("cpu-2")
    house.tick(20.0, second)
    assert second.jobs == [job]
    for data in (b"old", b"new"):
        house.store_artifact(data)
    second.checkpoint(job, 1, b"new")
    first.checkpoint(job, 99, b"old", token=token)
    acks = [message for message in first.heard if isinstance(message, m.CheckpointAck)]
    assert [ack.ok for ack in acks] == [False]
    assert house.store.jobs[job].checkpoint == artifact("checkpoint", b"new")


# ---------------------------------------------------------------- doubts


def test_a_token_that_the_book_does_not_have_leads_to_hello(house: House) -> None:
    worker = house.worker()
    worker.ping(12345)
    nack = worker.last(m.Nack)
    assert (nack.code, nack.verb) == ("HELLO_REQUIRED", 0x08)
    assert nack.text == "What this worker runs and what the broker has on record differ."


def test_a_dispatch_that_is_not_accepted_leads_to_hello(house: House) -> None:
    worker = house.worker()
    house.client().submit("training")
    house.tick(10.0, worker)
    assert worker.count(m.Nack) == 0
    house.tick(2.0, worker)
    assert worker.last(m.Nack).code == "HELLO_REQUIRED"


def test_a_long_job_missing_from_two_pings_leads_to_hello_and_is_not_requeued(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    token = worker.items[job].token
    for _ in range(20):
        house.tick(1.0)
        worker.ping(token)
    assert worker.count(m.Nack) == 0
    worker.ping()
    assert worker.count(m.Nack) == 0
    worker.ping()
    assert worker.last(m.Nack).code == "HELLO_REQUIRED"
    assert client.state(job) == "running"
    worker.reconnect()
    assert client.view(job).reason == "WORKER_GONE"


# ---------------------------------------------------------------- the rest


def test_good_bye_returns_the_jobs_at_once(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    worker.bye()
    assert (client.view(job).state, client.view(job).reason) == ("queued", "WORKER_GONE")
    assert house.broker.registry.workers["cpu-1"].state is Liveness.GONE
    worker.ping()
    assert worker.last(m.Nack).code == "HELLO_REQUIRED"


def test_a_draining_worker_gets_nothing(house: House) -> None:
    house.worker(draining=True)
    assert house.client().offer("echo").code == "NO_CAPABLE_WORKER"


def test_drained_is_published(house: House) -> None:
    worker = house.worker()
    worker.say(m.Drained(worker.session))
    assert house.events[-1][1].text == "drained"


def test_have_renews_and_tells(house: House) -> None:
    worker = house.worker()
    digest = house.store_artifact(b"data")
    worker.say(m.Have(3, [digest, b"0" * 32]))
    assert worker.last(m.HaveReply) == m.HaveReply(3, [digest])


def test_strangers_get_an_answer(house: House) -> None:
    stranger = Worker(house, "nobody")
    for message in (m.WorkerPing(1, 1), m.Credit(1, []), m.Accept(1, []), m.Drained(1), m.WorkerBye(1), m.Progress(1, [])):
        stranger.say(message)
        assert stranger.heard[-1].code == "HELLO_REQUIRED"
        assert stranger.heard[-1].verb == m.VERBS[type(message)]


def test_a_strangers_result_counts_if_its_token_does(house: House) -> None:
    """Nothing finished is lost to a stale session."""
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    token = worker.items[job].token
    worker.peer = house.peer()
    worker.finish(job, body=b"done", token=token)
    assert worker.acks() == ["RECORDED"]
    assert worker.last(m.Nack).code == "HELLO_REQUIRED"
    assert client.result(job)[1] == b"done"


def test_a_flood_of_strangers_is_answered_within_reason(house: House) -> None:
    stranger = Worker(house, "nobody")
    for _ in range(700):
        stranger.say(m.Credit(1, []))
    assert stranger.count(m.Nack) == 500


def test_logs_travel_from_worker_to_client(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    assert client.ask(m.Logs(9, job.hex(), offset=4, limit=100)) is None
    tail = worker.last(m.Tail)
    assert (tail.request, tail.client, tail.job_id, tail.offset, tail.limit) == (9, client.peer, job, 4, 100)
    worker.say(m.LogTail(tail.request, tail.client, job, 4, 5), [b"hello"])
    reply, bodies = house.received[client.peer][-1]
    assert (reply, bodies) == (m.LogsReply(9, 4, 5, False), [b"hello"])


def test_the_log_of_an_ended_job_is_its_artifact(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    house.store_artifact(b"printed")
    log = Artifact("log", artifact("log", b"printed").digest, 7)
    worker.finish(job, artifacts=[log])
    assert client.ask(m.Logs(9, job.hex())) == m.LogsReply(9, 0, 0, True, log)
