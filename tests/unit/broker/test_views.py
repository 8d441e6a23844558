"""`explain`: why a job is where it is, in every situation there is."""

from __future__ import annotations

import pytest

from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Outcome
from tests.unit.broker.driver import Client, House


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def client(house: House) -> Client:
    return house.client()


# ---------------------------------------------------------------- with a worker


def test_sent_a_moment_ago_then_running(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("training")
    assert client.explain(job) == ("The job was sent to worker cpu-1 (cpu), attempt 1 a moment ago.", {})
    worker.accept(job)
    assert client.explain(job) == ("The job runs at worker cpu-1 (cpu), attempt 1.", {})


def test_being_cancelled(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("training")
    worker.accept(job)
    client.cancel(job)
    assert client.explain(job)[0] == "The job is being cancelled at worker cpu-1 (cpu), attempt 1; it ends when its processes are gone."


def test_with_a_silent_worker(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("training", reclaim_after=60.0)
    worker.accept(job)
    house.tick(20.0)
    assert client.explain(job)[0] == (
        "The job is with worker cpu-1 (cpu), attempt 1, which has fallen silent. If it stays away, the job runs elsewhere in 40 s."
    )


def test_after_a_restart(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("training")
    worker.accept(job)
    house.restart()
    assert house.client().explain(job)[0] == (
        "The broker was restarted; it waits for worker cpu-1 (cpu), attempt 1 to come back before it gives the job to another."
    )


@pytest.mark.parametrize(
    "outcome, text",
    [
        (Outcome.DONE, "The job has ended: done (COMPLETED)."),
        (Outcome.FAILED, "The job has ended: failed (HANDLER_ERROR)."),
        (Outcome.TIMED_OUT, "The job has ended: timed_out (RUN_TIMEOUT)."),
    ],
)
def test_ended(house: House, client: Client, outcome: Outcome, text: str) -> None:
    worker = house.worker()
    job = client.submit("training")
    worker.finish(job, outcome)
    assert client.explain(job) == (text, {})


# ---------------------------------------------------------------- waiting


def test_waiting_for_a_slot(house: House, client: Client) -> None:
    worker = house.worker()
    worker.accept(client.submit("training"))
    client.submit("training")
    job = client.submit("training")
    client.submit("training", priority=1)
    assert client.explain(job) == ("The job waits for a free slot; 2 jobs are before it.", {"cpu-1": "all its cpu slots are busy"})


def test_back_in_the_queue(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("training")
    worker.finish(job, Outcome.CRASHED, credit=False)
    assert client.explain(job)[0] == "The job waits for a free slot; 0 jobs are before it. It came back to the queue: CRASHED."


def test_waiting_for_a_worker(house: House, client: Client) -> None:
    job = client.offer("backtesting", queue=True).job_id
    text = "The job waits for a worker that can run it. No workers available for backtesting. Start a backtesting worker."
    assert client.explain(job) == (text, {})


def test_waiting_for_a_gpu_worker(house: House, client: Client) -> None:
    house.worker()
    job = client.offer("training", queue=True, device="gpu").job_id
    assert client.explain(job) == (
        "The job waits for a worker that can run it. No GPU worker available for training. Start one, or let the job use any device.",
        {"cpu-1": "it has no gpu slots"},
    )


def test_waiting_while_paused(house: House, client: Client) -> None:
    house.worker()
    client.admin("pause")
    job = client.offer("echo").job_id
    assert client.explain(job)[0] == "The job waits: dispatch is paused. Go on with: ktrdr broker unpause"


def test_waiting_before_a_retry(house: House, client: Client) -> None:
    worker = house.worker()
    job = client.submit("echo")
    for _ in range(3):
        worker.finish(job, Outcome.RETRY)
        house.tick(0.0)
        if len(worker.jobs) < 3:
            house.tick(3.0, worker)
    assert client.explain(job)[0] == "The job waits 4 s before it is tried again, as its handler asked."


def test_about_to_be_sent(house: House, client: Client) -> None:
    """Asked in the same turn as the credit that frees it, before dispatch."""
    from ktrdr_broker.core import Port

    worker = house.worker(grant=False)
    job = client.submit("echo")
    house.send(Port.WORKER, worker.peer, m.Credit(worker.session, [("cpu", 1)]))
    assert client.explain(job) == ("The job is about to be sent.", {"cpu-1": ""})
    assert worker.jobs == [job]


def test_each_worker_and_its_reason(house: House, client: Client) -> None:
    job = client.offer("training", queue=True, gpu_wait=20.0).job_id
    house.worker("a-gpu", slots={"gpu": 1}, grant=False)
    house.worker("b-other", kinds="echo")
    house.worker("c-cpu")
    drained = house.worker("d-drained")
    client.admin("drain", worker_id=drained.info.worker_id)
    house.worker("e-gone").bye()
    house.worker("f-later").bye(returns_in=60.0)
    newer = house.worker("g-newer")
    newer.info.kinds = [("training", 2, 3)]
    newer.hello()
    assert client.explain(job)[1] == {
        "a-gpu": "all its gpu slots are busy",
        "b-other": "it does not offer training",
        "c-cpu": "the job waits 20 s more for a GPU before it takes a CPU",
        "d-drained": "it is being drained",
        "f-later": "it is gone",
        "g-newer": "it does not speak schema 1 of training",
    }


def test_silent_and_dead_workers(house: House, client: Client) -> None:
    job = client.offer("training", queue=True, device="cpu").job_id
    house.worker("cpu-1", grant=False)
    house.tick(7.0)
    assert client.explain(job)[1] == {"cpu-1": "it is suspect"}
    house.tick(5.0)
    assert client.explain(job)[1] == {"cpu-1": "it is dead"}


def test_several_reasons_of_one_worker(house: House, client: Client) -> None:
    job = client.offer("training", queue=True, gpu_wait=20.0).job_id
    both = house.worker("both", slots={"gpu": 1, "cpu": 1}, grant=False)
    both.grant(cpu=1)
    assert client.explain(job)[1] == {"both": "all its gpu slots are busy; the job waits 20 s more for a GPU before it takes a CPU"}


def test_explain_agrees_with_dispatch(house: House, client: Client) -> None:
    """What explain calls possible is what happens next, whatever the situation: it asks the same predicate."""
    house.worker("w-1", kinds="training", slots={"cpu": 2}, grant=False).grant(cpu=1)
    house.worker("w-2", kinds="echo", slots={"cpu": 1})
    for kind, device in [("training", "auto"), ("echo", "cpu"), ("training", "cpu"), ("echo", "auto")]:
        job = client.submit(kind, device=device)
        text, reasons = client.explain(job)
        assert (client.state(job) == "queued") == all(reasons.values()) == text.startswith("The job waits") or not reasons


def test_explain_of_nothing(client: Client) -> None:
    assert client.ask(m.Explain(1, "ffff")).code == "UNKNOWN_JOB"
