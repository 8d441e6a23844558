"""How jobs end: outcomes, crashes, losses, retries, cancellation in each state, and the two kinds of death."""

from __future__ import annotations

import math

import pytest

from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Failure, Outcome
from tests.unit.broker.driver import CRASH, House, artifact, digest_of


@pytest.fixture
def house() -> House:
    return House()


# ---------------------------------------------------------------- outcomes


def test_the_way_of_one_job(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training", b"the body", name="mean reversion")
    item = worker.items[job]
    assert (item.attempt, item.tag, item.checkpoint, item.size) == (1, "cpu", None, 8)
    assert house.received[worker.peer][-1][1] == [b"the body"]
    worker.accept(job)
    house.now += 4.0
    worker.finish(job, body=b"the result", run_s=4.0)
    assert worker.acks() == ["RECORDED"]
    view = client.view(job)
    assert (view.state, view.reason, view.fraction, view.run_s, view.finished_at) == ("done", "COMPLETED", 1.0, 4.0, house.wall)
    assert client.result(job)[1] == b"the result"
    assert house.job_events(job) == [("running", "ACCEPTED"), ("done", "COMPLETED")]
    topic, event, bodies = house.events[-1]
    assert (topic, event.result_size, bodies) == (b"j." + job[10:].hex().encode() + b"." + job.hex().encode() + b".", 10, [b"the result"])


FAILURE = Failure("ValueError", "The window is empty.", hint="Choose a longer one.", traceback="Traceback ...")


@pytest.mark.parametrize(
    "outcome, said, state, reason",
    [
        (Outcome.FAILED, "", "failed", "HANDLER_ERROR"),
        (Outcome.FAILED, "RESULT_TOO_LARGE", "failed", "RESULT_TOO_LARGE"),
        (Outcome.FAILED, "nonsense", "failed", "HANDLER_ERROR"),
        (Outcome.TIMED_OUT, "", "timed_out", "RUN_TIMEOUT"),
    ],
)
def test_a_job_that_fails_fails_once(house: House, outcome: Outcome, said: str, state: str, reason: str) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    worker.finish(job, outcome, failure=FAILURE, reason=said)
    view = client.view(job)
    assert (view.state, view.reason, view.failure) == (state, reason, FAILURE)
    assert view.attempts[0].reason == reason
    assert len(worker.jobs) == 1


def test_an_outcome_is_recorded_once(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    worker.finish(job, body=b"first")
    worker.finish(job, body=b"second", token=worker.items[job].token)
    worker.finish(job, Outcome.FAILED, failure=FAILURE)
    assert worker.acks() == ["RECORDED", "FORGET", "FORGET"]
    assert client.result(job)[1] == b"first"
    assert house.broker.counters()["stale_results"] == 2


def test_a_result_repeated_before_its_commit_is_recorded(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    house.store.failures = 1
    worker.finish(job, body=b"first")
    assert worker.acks() == []  # held until the disk works
    worker.finish(job, body=b"first", token=worker.items[job].token)
    assert worker.acks() == ["RECORDED", "RECORDED"]
    assert client.result(job)[1] == b"first"


def test_a_wrong_token_records_nothing(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    worker.finish(job, token=worker.items[job].token + 1)
    worker.finish(b"?" * 16, token=5)
    assert worker.acks() == ["FORGET", "FORGET"]
    assert client.state(job) == "leased"


@pytest.mark.parametrize("run_s", [math.nan, math.inf, -1.0])
def test_a_senseless_run_time_is_no_run_time(house: House, run_s: float) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    worker.finish(job, run_s=run_s)
    assert client.view(job).run_s == 0.0
    assert client.submit("echo") in worker.jobs


def test_a_result_names_only_what_is_stored(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    model = artifact("model", b"weights")
    worker.finish(job, artifacts=[model])
    assert worker.acks() == ["MISSING_ARTIFACT"]
    assert client.state(job) == "leased"
    house.store_artifact(b"weights")
    worker.finish(job, artifacts=[model])
    assert worker.acks()[1:] == ["RECORDED"]
    assert client.view(job).artifacts == [model]


def test_a_crash_does_not_wait_for_its_log(house: House) -> None:
    """An attempt that is repeated anyway keeps what artifacts it has."""
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.finish(job, Outcome.CRASHED, failure=CRASH, artifacts=[artifact("log", b"never stored")])
    assert worker.acks() == ["RECORDED"]
    assert client.view(job).artifacts == []


def test_a_large_result_is_fetched_not_published() -> None:
    house = House(max_event_body=10)
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    worker.finish(job, body=b"x" * 11)
    _, event, bodies = house.events[-1]
    assert (event.size, event.result_size, bodies) == (0, 11, [b""])
    assert client.result(job)[1] == b"x" * 11


def test_results_travel_in_batches(house: House) -> None:
    worker, client = house.worker(slots={"cpu": 3}), house.client()
    jobs = [client.submit("echo") for _ in range(3)]
    items = [m.ResultItem(job, worker.items[job].token, Outcome.DONE, n) for n, job in enumerate(jobs)]
    worker.say(m.Result(worker.session, items, [("cpu", 6)]), [b"", b"a", b"bb"])
    assert [client.result(job)[1] for job in jobs] == [b"", b"a", b"bb"]
    assert worker.acks() == ["RECORDED"] * 3


# ---------------------------------------------------------------- crashes, retries, hand-back


def test_a_poison_job_fails_with_its_whole_history(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    for _ in range(3):
        worker.accept(job)
        worker.finish(job, Outcome.CRASHED, failure=CRASH)
    view = client.view(job)
    assert (view.state, view.reason, view.crashes, view.failure) == ("failed", "CRASH_LIMIT", 3, CRASH)
    assert [(a.number, a.reason, a.failure) for a in view.attempts] == [
        (1, "CRASHED", CRASH), (2, "CRASHED", CRASH), (3, "CRASH_LIMIT", CRASH)
    ]  # fmt: skip
    assert len({a.token for a in view.attempts}) == 3


def test_a_job_may_ask_for_one_crash_only(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training", max_crashes=1)
    worker.finish(job, Outcome.CRASHED, failure=CRASH)
    assert client.view(job).reason == "CRASH_LIMIT"


def test_retries_wait_longer_and_longer(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    pauses = []
    for _ in range(8):
        began = house.now
        count = len(worker.jobs)
        worker.finish(job, Outcome.RETRY, failure=FAILURE)
        assert client.view(job).reason == "RETRY_LATER"
        while len(worker.jobs) == count:
            house.tick(0.5, worker)
        pauses.append(house.now - began)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_retries_end() -> None:
    house = House(max_retries=2)
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    for _ in range(3):
        worker.finish(job, Outcome.RETRY, failure=FAILURE)
        house.tick(3.0, worker)
    view = client.view(job)
    assert (view.state, view.reason, view.failure) == ("failed", "RETRY_LIMIT", FAILURE)


def test_a_pause_does_not_outlive_a_cancellation(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    worker.finish(job, Outcome.RETRY)
    assert client.cancel(job) == "cancelled"
    house.tick(5.0, worker)
    assert worker.jobs == [job]


@pytest.mark.parametrize("outcome", [Outcome.HANDED_BACK, Outcome.CANCELLED])
def test_a_job_handed_back_is_charged_nothing(house: House, outcome: Outcome) -> None:
    """Drained, or stopped without anybody having asked for it."""
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    worker.finish(job, outcome)
    view = client.view(job)
    assert (view.crashes, view.losses, view.attempt) == (0, 0, 2)
    assert [a.reason for a in view.attempts] == ["HANDED_BACK", ""]


def test_a_returned_job_goes_before_those_that_came_later(house: House) -> None:
    worker, client = house.worker(), house.client()
    first, second = client.submit("echo"), client.submit("echo")
    worker.finish(first, Outcome.HANDED_BACK)
    assert worker.jobs == [first, first]
    worker.finish(first)
    assert worker.jobs == [first, first, second]


# ---------------------------------------------------------------- losses


def test_presumed_death_waits_for_what_would_be_lost(house: House) -> None:
    """A quarter of the run time, from dead_after to 15 minutes."""
    worker, client = house.worker(slots={"cpu": 2}), house.client()
    long, short = client.submit("training"), client.submit("training")
    worker.accept(long)
    house.tick(400.0, worker)
    worker.finish(short, Outcome.HANDED_BACK)  # so that it is young
    worker.accept(short)
    house.tick(11.0)
    assert [client.state(job) for job in (long, short)] == ["running", "queued"]
    house.tick(85.0)
    assert client.state(long) == "running"
    house.tick(10.0)
    assert client.view(long).reason == "WORKER_LOST"


@pytest.mark.parametrize("hours, patience", [(0.5, 450), (1, 900), (5, 900)])
def test_the_wait_is_bounded(hours: float, patience: int) -> None:
    house = House(ping_interval=60.0, dead_after=120.0, forget_client_after=1e6)
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    house.tick(hours * 3600.0, worker, step=30.0)
    house.tick(patience - 30.0, step=30.0)
    assert client.state(job) == "running"
    house.tick(60.0, step=30.0)
    assert client.state(job) == "queued"


def test_a_reconnect_does_not_make_a_training_young(house: House) -> None:
    """What would be lost counts from the beginning of the attempt, whatever happened to the connection since."""
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    ref = worker.ref(job)
    house.tick(400.0, worker)
    worker.reconnect(running=[ref])
    house.tick(60.0)
    assert client.state(job) == "running"
    worker.reconnect(running=[ref])
    assert worker.verdicts() == {job: "CONTINUE"}


def test_a_job_may_say_how_long_it_is_waited_for(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training", reclaim_after=100.0)
    worker.accept(job)
    house.tick(99.0)
    assert client.state(job) == "running"
    house.tick(2.0)
    assert client.state(job) == "queued"


def test_a_job_that_loses_too_many_workers_fails(house: House) -> None:
    client = house.client()
    worker = house.worker()
    job = client.submit("training", max_losses=2)
    for n in range(3):
        worker.accept(job)
        worker.bye()
        worker = house.worker(f"cpu-{n + 2}")
    view = client.view(job)
    assert (view.state, view.reason, view.losses) == ("failed", "LOSS_LIMIT", 3)
    assert view.failure is not None
    assert view.failure.message == "Worker cpu-3 went away while it had the job."
    assert [a.worker_id for a in view.attempts] == ["cpu-1", "cpu-2", "cpu-3"]


def test_a_late_result_counts_as_long_as_nobody_else_has_the_job(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    token = worker.items[job].token
    house.tick(15.0)
    assert client.state(job) == "queued"
    worker.peer = house.peer()  # its first word over the new connection is the result
    worker.finish(job, body=b"late", token=token)
    assert worker.acks() == ["RECORDED"]
    assert client.result(job)[1] == b"late"
    assert client.view(job).losses == 0


def test_a_late_result_of_a_job_given_away_is_forgotten(house: House) -> None:
    first, client = house.worker("cpu-1"), house.client()
    job = client.submit("training")
    first.accept(job)
    token = first.items[job].token
    second = house.worker("cpu-2")
    house.tick(20.0, second)
    first.reconnect(running=[m.JobRef(job, token)])
    first.finish(job, body=b"late", token=token)
    assert first.acks() == ["FORGET"]
    second.finish(job, body=b"in time")
    assert client.result(job)[1] == b"in time"


# ---------------------------------------------------------------- cancel


def test_cancel_of_a_waiting_job(house: House) -> None:
    house.worker(grant=False)
    client = house.client()
    job = client.submit("echo")
    assert client.cancel(job) == "cancelled"
    assert house.job_events(job) == [("cancelled", "CANCELLED")]
    assert len(house.broker.queues) == 0


@pytest.mark.parametrize("accepted", [False, True])
def test_cancel_of_a_job_in_a_workers_hands(house: House, accepted: bool) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    if accepted:
        worker.accept(job)
    assert client.cancel(job, grace=3.0) == "cancelling"
    assert worker.last(m.Cancel).items == [m.CancelItem(job, worker.items[job].token, 3.0)]
    worker.finish(job, Outcome.CANCELLED)
    view = client.view(job)
    assert (view.state, view.reason, view.attempts[0].reason) == ("cancelled", "CANCELLED", "CANCELLED")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_cancelled_job_ends_cancelled_whatever_its_worker_says(house: House, outcome: Outcome) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    client.cancel(job)
    worker.finish(job, outcome, body=b"too late")
    assert worker.acks() == ["RECORDED"]
    assert client.state(job) == "cancelled"
    assert client.result(job)[1] == b""


def test_a_late_outcome_is_attached_not_obeyed(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    client.cancel(job)
    house.store_artifact(b"log text")
    worker.finish(job, artifacts=[artifact("log", b"log text")])
    assert client.view(job).artifacts == [artifact("log", b"log text")]


def test_a_rejected_job_that_was_cancelled_is_cancelled(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    client.cancel(job)
    worker.reject(job)
    assert client.state(job) == "cancelled"


@pytest.mark.parametrize("how", ["bye", "reborn", "silence"])
def test_a_cancellation_ends_with_the_lease(house: House, how: str) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    client.cancel(job)
    if how == "bye":
        worker.bye()
    elif how == "reborn":
        worker.reborn()
    else:
        house.tick(15.0)
    assert client.state(job) == "cancelled"


def test_cancel_is_repeated_with_the_heartbeats(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    worker.accept(job)
    client.cancel(job)
    house.tick(10.0, worker)
    assert worker.count(m.Cancel) == 3
    worker.finish(job, Outcome.CANCELLED)
    house.tick(10.0, worker)
    assert worker.count(m.Cancel) == 3


def test_cancelling_twice_is_cancelling_once(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    assert [client.cancel(job), client.cancel(job)] == ["cancelling", "cancelling"]
    worker.finish(job, Outcome.CANCELLED)
    assert client.cancel(job) == "cancelled"
    assert house.job_events(job) == [("cancelling", "CANCEL_REQUESTED"), ("cancelled", "CANCELLED")]


@pytest.mark.parametrize("grace, told", [(-5.0, 0.0), (math.nan, 0.0), (1e9, 3600.0)])
def test_the_grace_is_bounded(house: House, grace: float, told: float) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training")
    client.cancel(job, grace)
    assert worker.last(m.Cancel).items[0].grace == told


def test_cancel_does_not_touch_what_has_ended(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("echo")
    worker.finish(job)
    assert client.cancel(job) == "done"


# ---------------------------------------------------------------- dispatch


def test_a_worker_that_vanished_in_the_same_turn_gets_nothing(house: House) -> None:
    """HELLO, credit and good-bye are read in one turn, and a job waits: it must not be sent to nobody."""
    house.worker("cpu-9", grant=False)
    client = house.client()
    job = client.submit("echo")
    from ktrdr_broker.core import Port

    worker = house.worker("cpu-1", grant=False)
    house.send(Port.WORKER, worker.peer, m.Credit(worker.session, [("cpu", 1)]))
    house.send(Port.WORKER, worker.peer, m.WorkerBye(worker.session))
    house.turn()
    assert worker.jobs == []
    assert client.state(job) == "queued"


def test_a_dispatch_into_the_void_returns_with_the_worker(house: House) -> None:
    worker, client = house.worker(), house.client()
    house.unreachable.add(worker.peer)
    job = client.submit("echo")
    assert client.state(job) == "leased"
    worker.reconnect()
    worker.grant()
    assert worker.jobs == [job]
    assert client.view(job).losses == 0


def test_dispatches_are_split_below_half_of_a_message() -> None:
    house = House(max_message=1000)
    worker = house.worker(slots={"cpu": 4}, grant=False)
    client = house.client()
    jobs = [client.submit("echo", b"x" * 300) for _ in range(4)]
    worker.grant()
    batches = [len(message.items) for message in worker.heard if isinstance(message, m.Dispatch)]
    assert (batches, worker.jobs) == ([1, 1, 1, 1], jobs)


def test_dispatches_of_a_turn_travel_together(house: House) -> None:
    worker = house.worker(slots={"cpu": 4}, grant=False)
    client = house.client()
    jobs = [client.submit("echo", bytes([n]) * n) for n in range(4)]
    worker.grant()
    message, bodies = house.received[worker.peer][-1]
    assert [item.job_id for item in message.items] == jobs
    assert bodies == [b"", b"\x01", b"\x02\x02", b"\x03\x03\x03"]


def test_tokens_grow(house: House) -> None:
    worker, client = house.worker(), house.client()
    tokens = []
    for _ in range(5):
        job = client.submit("echo")
        tokens.append(worker.items[job].token)
        worker.finish(job)
    house.restart()
    again = house.worker("cpu-2")
    job = house.client().submit("echo")
    tokens.append(again.items[job].token)
    assert tokens == sorted(set(tokens))
    assert tokens[0] > house.broker.ledger.epoch - 10 << 32


def test_digest_helper_names_what_the_broker_names() -> None:
    assert digest_of(b"") == artifact("x", b"").digest
