"""What becomes of a SUBMIT: accepted once, or refused with words that say what to do."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import JobSpec
from tests.unit.broker.driver import Client, House, digest_of

JOB = b"0123456789abcdef"


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def client(house: House) -> Client:
    return house.client()


def submit(client: Client, job_id: bytes, spec: bytes, body: bytes = b"") -> m.SubmitReply:
    ack = client.ask(m.Submit(client.number(), [m.SubmitItem(job_id, spec, len(body))]), [body])
    reply: m.SubmitReply = ack.items[0]
    return reply


# ---------------------------------------------------------------- refusal in exact words


@pytest.mark.parametrize(
    "kind, text",
    [
        ("training", "No training workers available. Start GPU or CPU training workers."),
        ("backtesting", "No workers available for backtesting. Start a backtesting worker."),
        ("echo", "No workers available for echo. Start a worker that offers echo."),
    ],
)
def test_without_workers_a_job_is_refused_at_once(client: Client, kind: str, text: str) -> None:
    reply = client.offer(kind)
    assert (reply.code, reply.text, reply.retryable) == ("NO_CAPABLE_WORKER", text, False)


def test_a_worker_of_another_kind_is_no_help(house: House, client: Client) -> None:
    house.worker(kinds="backtesting")
    assert client.offer("training").text == "No training workers available. Start GPU or CPU training workers."
    assert client.offer("backtesting").code == "OK"


def test_a_worker_that_is_gone_or_dead_is_no_help(house: House, client: Client) -> None:
    worker = house.worker()
    worker.bye()
    assert client.offer("training", device="cpu").text == "No training workers available. Start GPU or CPU training workers."
    house.worker("cpu-2")
    house.tick(15.0)
    assert client.offer("training", device="gpu").text == "No training workers available. Start GPU or CPU training workers."


def test_a_busy_or_silent_worker_is_one(house: House, client: Client) -> None:
    house.worker()
    assert [client.offer("training").code for _ in range(3)] == ["OK"] * 3
    house.tick(7.0)
    assert client.offer("training").code == "OK"


def test_a_worker_that_said_when_it_returns_is_one(house: House, client: Client) -> None:
    worker = house.worker()
    worker.bye(returns_in=20.0)
    assert client.offer("training").code == "OK"
    house.tick(21.0)
    assert client.offer("training").code == "NO_CAPABLE_WORKER"


def test_a_worker_says_at_most_that_it_returns_within_an_hour(house: House, client: Client) -> None:
    worker = house.worker()
    worker.bye(returns_in=math.inf)
    house.now += 3601.0
    assert not house.broker.registry.capable(JobSpec("training"), house.now)


def test_queue_overrides_and_is_told(house: House, client: Client) -> None:
    reply = client.offer("training", queue=True)
    assert (reply.code, reply.notice) == (
        "OK", "Queued until a worker comes. No training workers available. Start GPU or CPU training workers."
    )  # fmt: skip
    assert house.worker().jobs == [reply.job_id]


def test_no_workers_comes_before_any_upload(client: Client) -> None:
    assert client.offer("training", inputs=(("data", b"?" * 32),)).code == "NO_CAPABLE_WORKER"


# ---------------------------------------------------------------- idempotency


def test_the_same_submit_is_acknowledged_again(house: House, client: Client) -> None:
    worker = house.worker()
    spec = msgspec.msgpack.encode(JobSpec("echo"))
    assert [submit(client, JOB, spec, b"body").code for _ in range(3)] == ["OK"] * 3
    assert worker.jobs == [JOB]
    assert house.broker.counters()["submitted"] == 1


@pytest.mark.parametrize("spec, body", [(JobSpec("echo"), b"other"), (JobSpec("echo", priority=1), b"body")])
def test_another_job_of_the_same_id_is_a_conflict(house: House, client: Client, spec: JobSpec, body: bytes) -> None:
    house.worker()
    submit(client, JOB, msgspec.msgpack.encode(JobSpec("echo")), b"body")
    reply = submit(client, JOB, msgspec.msgpack.encode(spec), body)
    assert (reply.code, reply.text) == ("CONFLICT", "Another job has this id.")


def test_a_repeated_submit_is_known_when_it_has_ended_and_when_it_was_removed(house: House, client: Client) -> None:
    worker = house.worker()
    spec = msgspec.msgpack.encode(JobSpec("echo"))
    submit(client, JOB, spec)
    worker.finish(JOB)
    assert submit(client, JOB, spec).code == "OK"
    assert client.admin("rm", refs=[JOB.hex()]) == {"removed": 1}
    assert submit(client, JOB, spec).code == "OK"
    assert submit(client, JOB, spec, b"x").code == "CONFLICT"
    assert worker.jobs == [JOB]


def test_a_repeated_submit_is_known_after_a_restart_without_its_worker(house: House, client: Client) -> None:
    house.worker()
    spec = msgspec.msgpack.encode(JobSpec("echo"))
    submit(client, JOB, spec)
    house.restart()
    house.tick(60.0)
    assert submit(house.client(), JOB, spec).code == "OK"


def test_twice_in_one_batch(house: House, client: Client) -> None:
    worker = house.worker()
    spec = msgspec.msgpack.encode(JobSpec("echo"))
    ack = client.ask(m.Submit(1, [m.SubmitItem(JOB, spec, 1), m.SubmitItem(JOB, spec, 1)]), [b"a", b"b"])
    assert [reply.code for reply in ack.items] == ["OK", "CONFLICT"]
    assert worker.jobs == [JOB]


def test_each_job_of_a_batch_is_answered_for_itself(house: House, client: Client) -> None:
    house.worker(kinds="echo")
    items = [m.SubmitItem(bytes([n]) * 16, msgspec.msgpack.encode(JobSpec(kind)), 0) for n, kind in enumerate(("echo", "training", "echo"))]
    ack = client.ask(m.Submit(7, items), [b""] * 3)
    assert (ack.request, [reply.code for reply in ack.items]) == (7, ["OK", "NO_CAPABLE_WORKER", "OK"])
    assert [reply.job_id for reply in ack.items] == [item.job_id for item in items]


# ---------------------------------------------------------------- the specification


@pytest.mark.parametrize(
    "spec, text",
    [
        ({"kind": ""}, "'' is no name for a kind of job."),
        ({"kind": "Echo"}, "'Echo' is no name for a kind of job."),
        ({"kind": "a b"}, "'a b' is no name for a kind of job."),
        ({"gpu_wait": -1.0}, "A duration or limit is negative or no number."),
        ({"run_timeout": math.nan}, "A duration or limit is negative or no number."),
        ({"queue_timeout": math.inf}, "A duration or limit is negative or no number."),
        ({"memory_limit": -1}, "A duration or limit is negative or no number."),
        ({"max_crashes": 0}, "max_crashes is 1 to 100, max_losses 0 to 1000, threads 1 to 1024."),
        ({"max_losses": -1}, "max_crashes is 1 to 100, max_losses 0 to 1000, threads 1 to 1024."),
        ({"threads": 0}, "max_crashes is 1 to 100, max_losses 0 to 1000, threads 1 to 1024."),
        ({"priority": 1001}, "A priority is between -1000 and 1000."),
        ({"inputs": (("data", b"short"),)}, "An input is not named by a SHA-256 digest."),
        ({"name": "n" * 201}, "The name, the submitter or the labels are too long."),
        ({"submitter": "s" * 201}, "The name, the submitter or the labels are too long."),
        ({"labels": (("a", "b"),) * 65}, "The name, the submitter or the labels are too long."),
        ({"labels": (("a", "b" * 201),)}, "The name, the submitter or the labels are too long."),
    ],
)
def test_a_specification_that_makes_no_sense(house: House, client: Client, spec: dict[str, Any], text: str) -> None:
    house.worker()
    reply = client.offer(**{"kind": "echo", **spec})
    assert (reply.code, reply.text) == ("BAD_SPEC", text)


@pytest.mark.parametrize(
    "raw", [b"", b"\xc1", b"\x91", msgspec.msgpack.encode([]), msgspec.msgpack.encode([1]), msgspec.msgpack.encode({"kind": "echo"})]
)
def test_a_specification_that_is_none(client: Client, raw: bytes) -> None:
    reply = submit(client, JOB, raw)
    assert reply.code == "BAD_SPEC"
    assert reply.text.startswith("The job's specification is wrong: ")


def test_a_specification_that_is_too_large(client: Client) -> None:
    assert submit(client, JOB, b"x" * 70_000).code == "TOO_LARGE"


@pytest.mark.parametrize("job_id", [b"", b"short", b"x" * 17])
def test_a_job_id_has_sixteen_octets(client: Client, job_id: bytes) -> None:
    reply = submit(client, job_id, msgspec.msgpack.encode(JobSpec("echo")))
    assert (reply.code, reply.text) == ("BAD_SPEC", "A job id has 16 octets.")


# ---------------------------------------------------------------- limits


def test_a_body_has_a_limit() -> None:
    house = House(max_body=1000)
    house.worker()
    client = house.client()
    assert client.offer("echo", b"x" * 1000).code == "OK"
    reply = client.offer("echo", b"x" * 1001)
    assert (reply.code, reply.text) == (
        "TOO_LARGE",
        "The job's body has 1,001 octets; the limit is 1,000. Put large data into an artifact.",
    )


def test_the_queue_is_full_of_jobs() -> None:
    house = House(max_queued_jobs=2)
    worker, client = house.worker(), house.client()
    for _ in range(3):  # one of them is with the worker
        client.submit("training")
    reply = client.offer("training")
    assert (reply.code, reply.text, reply.retryable, reply.retry_after) == ("QUEUE_FULL", "The queue is full (2 jobs wait).", True, 2.0)
    worker.finish(worker.jobs[0])
    assert client.offer("training").code == "OK"


def test_the_queue_is_full_of_octets() -> None:
    house = House(max_queued_octets=100)
    house.worker(grant=False)
    client = house.client()
    client.submit("training", b"x" * 60)
    assert client.offer("training", b"x" * 60).code == "QUEUE_FULL"
    assert client.offer("training", b"x" * 40).code == "OK"


def test_every_missing_input_is_named(house: House, client: Client) -> None:
    house.worker()
    here, gone = house.store_artifact(b"here"), digest_of(b"gone")
    reply = client.offer("training", inputs=(("data", here), ("model", gone)))
    assert (reply.code, reply.missing, reply.retryable) == ("MISSING_ARTIFACT", [gone], True)
    assert reply.text == "An input is not stored; upload it first."
    house.store_artifact(b"gone")
    assert client.offer("training", inputs=(("data", here), ("model", gone))).code == "OK"


def test_a_disk_that_cannot_be_written_refuses_new_jobs_and_says_so_at_once(house: House, client: Client) -> None:
    worker = house.worker()
    house.store.failures = 2
    assert client.ask(m.Submit(1, [m.SubmitItem(JOB, msgspec.msgpack.encode(JobSpec("echo")), 0)]), [b""]) is None
    refused = client.offer("echo")
    assert (refused.code, refused.retryable) == ("STORAGE", True)
    assert refused.text == "The broker cannot write to its disk: An injected failure: nothing was written."
    assert worker.jobs == []
    house.tick(0.0)
    acks = [message for message in client.heard if isinstance(message, m.SubmitAck)]
    assert [ack.items[0].code for ack in acks] == ["STORAGE", "OK"]
    assert worker.jobs == [JOB]
    assert client.offer("echo").code == "OK"


def test_a_broker_that_leaves_takes_nothing(house: House, client: Client) -> None:
    house.worker()
    house.broker.shutdown(house.now, house.wall)
    assert client.offer("echo").code == "SHUTTING_DOWN"


def test_a_worker_that_is_finding_out_what_it_can_do_is_worth_waiting_for(house: House, client: Client) -> None:
    worker = house.worker(kinds="echo", pending=["training"])
    reply = client.offer("training")
    assert (reply.code, reply.retryable, reply.retry_after > 0) == ("NO_CAPABLE_WORKER", True, True)
    assert "starting" in reply.text
    worker.bye()
    assert not client.offer("training").retryable
