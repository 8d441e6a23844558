"""Which job goes to which worker: order, fairness, tags, GPU first, pauses, timeouts."""

from __future__ import annotations

import random

import pytest

from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Device, Outcome
from tests.unit.broker.driver import House, Worker


@pytest.fixture
def house() -> House:
    return House()


def run_all(worker: Worker, count: int) -> list[bytes]:
    """Finish jobs one after the other; the order in which they were sent."""
    for _ in range(count):
        worker.finish(worker.jobs[-1])
    return worker.jobs


# ---------------------------------------------------------------- order


def test_first_in_first_out(house: House) -> None:
    worker, client = house.worker(), house.client()
    jobs = [client.submit("training") for _ in range(5)]
    assert run_all(worker, 4) == jobs


def test_priority_comes_first(house: House) -> None:
    worker = house.worker(grant=False)
    client = house.client()
    jobs = {priority: client.submit("training", priority=priority) for priority in (0, -5, 10, 3)}
    worker.grant()
    assert run_all(worker, 3) == [jobs[p] for p in (10, 3, 0, -5)]


def test_priority_holds_across_kinds(house: House) -> None:
    worker = house.worker(grant=False)
    client = house.client()
    low, high = client.submit("training"), client.submit("echo", priority=1)
    worker.grant()
    assert run_all(worker, 1) == [high, low]


def test_submitters_take_turns(house: House) -> None:
    """A thousand jobs of one person do not keep another one's single job waiting."""
    worker = house.worker(grant=False)
    client = house.client()
    many = [client.submit("training", submitter="ada") for _ in range(4)]
    few = [client.submit("training", submitter="bob") for _ in range(2)]
    worker.grant()
    assert run_all(worker, 5) == [many[0], few[0], many[1], few[1], many[2], many[3]]


def test_submitters_take_turns_across_kinds(house: House) -> None:
    worker = house.worker(grant=False)
    client = house.client()
    ada = [client.submit("training", submitter="ada") for _ in range(2)]
    bob = client.submit("echo", submitter="bob")
    worker.grant()
    assert run_all(worker, 2) == [ada[0], bob, ada[1]]


def test_a_changed_priority_counts(house: House) -> None:
    worker = house.worker(grant=False)
    client = house.client()
    first, second = client.submit("training"), client.submit("training")
    assert client.admin("priority", refs=[second.hex()], priority=5) == {"changed": 1}
    worker.grant()
    assert worker.jobs == [second]
    assert client.view(second).priority == 5
    assert client.admin("priority", refs=[second.hex(), first.hex()], priority=1) == {"changed": 1}  # one is under way


def test_a_changed_priority_outlives_the_broker(house: House) -> None:
    house.worker(grant=False)
    client = house.client()
    first, second = client.submit("training"), client.submit("training")
    client.admin("priority", refs=[second.hex()], priority=5)
    house.restart()
    worker = house.worker("cpu-2")
    assert worker.jobs == [second]
    assert first not in worker.jobs


def test_what_does_not_fit_is_passed_over(house: House) -> None:
    worker = house.worker(kinds="echo", grant=False)
    client = house.client()
    client.submit("training", queue=True) if house.worker("cpu-2", kinds="training", grant=False) else None
    job = client.submit("echo")
    worker.grant()
    assert worker.jobs == [job]


def test_pause_holds_everything_back(house: House) -> None:
    worker, client = house.worker(), house.client()
    assert client.admin("pause") == {"paused": True}
    reply = client.offer("echo")
    assert (reply.code, reply.notice) == ("OK", "Queued: dispatch is paused.")
    assert worker.jobs == []
    assert client.admin("unpause") == {"paused": False}
    assert worker.jobs == [reply.job_id]


# ---------------------------------------------------------------- which worker


def test_the_least_loaded_worker_is_chosen(house: House) -> None:
    one, two = house.worker("cpu-1", slots={"cpu": 4}), house.worker("cpu-2", slots={"cpu": 4})
    client = house.client()
    for _ in range(6):
        client.submit("training")
    assert (len(one.jobs), len(two.jobs)) == (3, 3)


def test_load_is_counted_within_a_turn(house: House) -> None:
    """All jobs are matched at once when two workers come back to a full queue."""
    client = house.client()
    for _ in range(8):
        client.offer("training", queue=True)
    client.admin("pause")
    one, two = house.worker("cpu-1", slots={"cpu": 4}), house.worker("cpu-2", slots={"cpu": 4})
    client.admin("unpause")
    assert (len(one.jobs), len(two.jobs)) == (4, 4)


def test_short_jobs_sent_ahead_are_shared_out(house: House) -> None:
    one, two = house.worker("cpu-1"), house.worker("cpu-2")
    client = house.client()
    house.broker.registry.means["echo"] = 0.01
    for _ in range(10):
        client.submit("echo")
    assert (len(one.jobs), len(two.jobs)) == (5, 5)


def test_short_jobs_wait_at_workers_long_ones_do_not(house: House) -> None:
    worker, client = house.worker(), house.client()
    first = client.submit("echo")
    client.submit("echo")
    assert worker.jobs == [first]  # nobody knows yet how long they take
    worker.finish(first, run_s=0.001)
    for _ in range(300):
        client.submit("echo")
    assert len(worker.jobs) == 1 + 256
    long = client.submit("training")
    assert long not in worker.jobs


def test_nothing_waits_behind_a_long_job(house: House) -> None:
    worker, client = house.worker(slots={"cpu": 2}), house.client()
    house.broker.registry.means["echo"] = 0.001
    worker.accept(client.submit("training"))
    for _ in range(5):
        client.submit("echo")
    assert len(worker.jobs) == 2


def test_a_worker_that_is_drained_gets_nothing_until_it_is_not(house: House) -> None:
    worker, client = house.worker(), house.client()
    house.worker("cpu-2", grant=False)
    assert client.admin("drain", worker_id="cpu-1") == {"worker_id": "cpu-1", "draining": True, "running": 0}
    assert worker.last(m.Drain) == m.Drain(on=True)
    job = client.submit("echo")
    assert worker.jobs == []
    worker.reconnect()
    worker.grant()
    assert (worker.last(m.Drain).on, worker.jobs) == (True, [])  # it is told again
    client.admin("undrain", worker_id="cpu-1")
    assert worker.jobs == [job]


# ---------------------------------------------------------------- GPU first


def test_gpu_first(house: House) -> None:
    gpu, cpu = house.worker("gpu-1", slots={"gpu": 1, "cpu": 4}), house.worker("cpu-1", slots={"cpu": 4})
    client = house.client()
    job = client.submit("training")
    assert (gpu.jobs, cpu.jobs, gpu.items[job].tag) == ([job], [], "gpu")


def test_cpu_at_once_if_the_gpu_is_busy_and_the_submitter_is_told(house: House) -> None:
    gpu, cpu = house.worker("gpu-1", slots={"gpu": 1}), house.worker("cpu-1")
    client = house.client()
    first, second = client.submit("training"), client.submit("training")
    assert (gpu.jobs, cpu.jobs) == ([first], [second])
    assert client.view(second).notice == "Runs on a CPU: no GPU slot was free."
    cpu.accept(second)
    assert house.events[-1][1].notice == "Runs on a CPU: no GPU slot was free."
    assert client.view(first).notice == ""


def test_without_a_gpu_nobody_is_told_of_one(house: House) -> None:
    house.worker("cpu-1")
    client = house.client()
    assert client.view(client.submit("training")).notice == ""


def test_the_notice_does_not_stick_to_the_next_attempt(house: House) -> None:
    gpu, cpu = house.worker("gpu-1", slots={"gpu": 1}), house.worker("cpu-1")
    client = house.client()
    first, second = client.submit("training"), client.submit("training")
    gpu.finish(first)
    cpu.finish(second, Outcome.CRASHED)
    assert second in gpu.jobs
    assert client.view(second).notice == ""


def test_gpu_wait_waits_then_takes_a_cpu(house: House) -> None:
    gpu, cpu = house.worker("gpu-1", slots={"gpu": 1}), house.worker("cpu-1")
    client = house.client()
    client.submit("training")
    job = client.submit("training", gpu_wait=30.0)
    assert client.explain(job)[1] == {
        "gpu-1": "all its gpu slots are busy",
        "cpu-1": "the job waits 30 s more for a GPU before it takes a CPU",
    }
    house.tick(29.0, gpu, cpu)
    assert cpu.jobs == []
    assert house.broker.next_deadline() <= house.now + 1.0
    house.tick(1.0, gpu, cpu)
    assert cpu.jobs == [job]


def test_gpu_wait_gets_the_gpu_when_it_is_free(house: House) -> None:
    gpu, cpu = house.worker("gpu-1", slots={"gpu": 1}), house.worker("cpu-1")
    client = house.client()
    first = client.submit("training")
    job = client.submit("training", gpu_wait=30.0)
    house.tick(10.0, gpu, cpu)
    gpu.finish(first)
    assert (gpu.jobs, cpu.jobs) == ([first, job], [])


@pytest.mark.parametrize("how", ["bye", "dead"])
def test_gpu_wait_falls_back_at_once_when_the_gpu_worker_leaves(house: House, how: str) -> None:
    gpu, cpu = house.worker("gpu-1", slots={"gpu": 1}), house.worker("cpu-1")
    client = house.client()
    running = client.submit("training", reclaim_after=1000.0)
    gpu.accept(running)
    job = client.submit("training", gpu_wait=300.0)
    if how == "bye":
        gpu.finish(running)
        gpu.bye()
    else:
        house.tick(10.0, cpu)
        assert cpu.jobs == []  # suspect: waited for
        house.tick(1.0, cpu)
    assert cpu.jobs == [job]


def test_jobs_behind_one_that_waits_for_a_gpu_go_on(house: House) -> None:
    gpu, cpu = house.worker("gpu-1", slots={"gpu": 1}), house.worker("cpu-1", slots={"cpu": 2})
    client = house.client()
    client.submit("training")
    client.submit("training", gpu_wait=300.0)
    echo, other = client.submit("echo", device=Device.CPU), client.submit("training")
    assert cpu.jobs == [echo, other]
    assert len(gpu.jobs) == 1


def test_a_shorter_wait_behind_a_longer_one_is_found(house: House) -> None:
    gpu, cpu = house.worker("gpu-1", slots={"gpu": 1}), house.worker("cpu-1")
    client = house.client()
    client.submit("training")
    client.submit("training", gpu_wait=300.0)
    soon = client.submit("training", gpu_wait=5.0)
    house.tick(6.0, gpu, cpu)
    assert cpu.jobs == [soon]


@pytest.mark.parametrize(
    "device, slots, code, text",
    [
        (Device.GPU, {"cpu": 1}, "NO_CAPABLE_WORKER", "No GPU worker available for training. Start one, or let the job use any device."),
        (Device.CPU, {"gpu": 1}, "NO_CAPABLE_WORKER", "No CPU worker available for training. Start one, or let the job use any device."),
        (Device.GPU, {"gpu": 1}, "OK", ""),
        (Device.CPU, {"cpu": 1}, "OK", ""),
        (Device.AUTO, {"cpu": 1}, "OK", ""),
        (Device.AUTO, {"gpu": 1}, "OK", ""),
    ],
)
def test_devices(house: House, device: Device, slots: dict[str, int], code: str, text: str) -> None:
    house.worker(slots=slots)
    reply = house.client().offer("training", device=device)
    assert (reply.code, reply.text) == (code, text)


def test_cpu_jobs_use_a_gpu_hosts_cpu_slots_never_its_gpu_slots(house: House) -> None:
    gpu = house.worker("gpu-1", slots={"gpu": 2, "cpu": 1})
    client = house.client()
    jobs = [client.submit("training", device=Device.CPU) for _ in range(2)]
    assert gpu.jobs == jobs[:1]
    assert gpu.items[jobs[0]].tag == "cpu"


def test_a_gpu_that_rejects_does_not_hold_the_job_up(house: House) -> None:
    """A GPU that turned out busy is not asked again and again."""
    gpu, cpu = house.worker("gpu-1", slots={"gpu": 1}), house.worker("cpu-1")
    client = house.client()
    job = client.submit("training")
    gpu.say(m.Reject(gpu.session, [m.RejectItem(job, gpu.items[job].token, "UNFIT")]))
    assert cpu.jobs == [job]


# ---------------------------------------------------------------- queue timeouts


def test_a_queue_timeout(house: House) -> None:
    worker, client = house.worker(), house.client()
    client.submit("training")
    job = client.submit("training", queue_timeout=5.0)
    assert house.broker.next_deadline() <= house.now + 5.0
    house.tick(4.0, worker)
    assert client.state(job) == "queued"
    house.tick(1.0, worker)
    view = client.view(job)
    assert (view.state, view.reason) == ("timed_out", "QUEUE_TIMEOUT")
    assert view.failure is not None
    assert view.failure.message == "No worker was free for it within 5 s."


def test_a_queue_timeout_is_for_waiting_only(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training", queue_timeout=5.0)
    worker.accept(job)
    house.tick(20.0, worker)
    assert client.state(job) == "running"


def test_a_job_that_returns_waits_from_the_beginning(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training", queue_timeout=5.0)
    worker.accept(job)
    house.tick(20.0, worker)
    worker.finish(job, Outcome.HANDED_BACK, credit=False)
    house.tick(4.0, worker)
    assert client.state(job) == "queued"
    house.tick(1.0, worker)
    assert client.view(job).reason == "QUEUE_TIMEOUT"


def test_the_pause_before_a_retry_is_not_waiting(house: House) -> None:
    worker, client = house.worker(), house.client()
    job = client.submit("training", queue_timeout=0.5)
    worker.finish(job, Outcome.RETRY)
    house.tick(3.0, worker, step=0.25)
    assert len(worker.jobs) == 2


def test_a_queue_timeout_begins_anew_with_the_broker(house: House) -> None:
    house.worker(grant=False)
    job = house.client().submit("training", queue_timeout=60.0)
    house.tick(50.0)
    house.restart()
    house.tick(50.0)
    assert house.client().state(job) == "queued"
    house.tick(10.0)
    assert house.client().state(job) == "timed_out"


# ---------------------------------------------------------------- many


@pytest.mark.parametrize("seed", range(5))
def test_a_random_crowd_is_served_completely(seed: int) -> None:
    """Whatever the mixture, every job is sent once, no slot is used twice, and nothing is left behind."""
    rng = random.Random(seed)
    house = House()
    workers = [
        house.worker(f"w-{n}", kinds="training echo", slots=rng.choice([{"cpu": 2}, {"gpu": 1, "cpu": 1}, {"gpu": 2}, {"cpu": 1}]))
        for n in range(4)
    ] + [house.worker("all", kinds="training echo", slots={"gpu": 1, "cpu": 1})]
    client = house.client()
    jobs = [
        client.submit(
            rng.choice(["training", "echo"]), device=rng.choice(list(Device)), priority=rng.randrange(3),
            submitter=rng.choice("abc"), gpu_wait=rng.choice([0.0, 5.0]),
        )
        for _ in range(80)
    ]  # fmt: skip
    for _ in range(300):
        for worker in workers:
            held = {item.job_id for item in worker.items.values()} & house.broker.jobs.keys()
            mine = [job for job in held if house.broker.jobs[job].worker_id == worker.info.worker_id]
            assert len(mine) <= sum(n for _, n in worker.info.slots)
            if mine and rng.random() < 0.5:
                worker.finish(rng.choice(sorted(mine)), run_s=2.0)
        house.tick(1.0, *workers)
        if not house.broker.jobs:
            break
    assert house.broker.jobs == {}
    sent = [job for worker in workers for job in worker.jobs]
    assert sorted(sent) == sorted(jobs)


# ---------------------------------------------------------------- equal figures


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_job_with_a_checkpoint_goes_to_a_worker_that_computes_alike(house: House, checkpoint: bool) -> None:
    """With one it would not go on bit for bit elsewhere; without one it goes to the worker with the least to do, as ever."""
    client = house.client()
    first = house.worker("w1", numeric="alike")
    job = client.submit("training", reclaim_after=0.0)
    first.accept(job)
    if checkpoint:
        house.store_artifact(b"state")
        first.checkpoint(job, 1, b"state")
    workers = [house.worker("w2", numeric="other"), house.worker("w3", numeric="alike")]
    house.tick(60.0, *workers)
    assert client.view(job).worker_id == ("w3" if checkpoint else "w2")


def test_a_job_does_not_wait_for_a_worker_that_computes_alike(house: House) -> None:
    client = house.client()
    first = house.worker("w1", numeric="alike")
    job = client.submit("training", reclaim_after=0.0)
    first.accept(job)
    house.store_artifact(b"state")
    first.checkpoint(job, 1, b"state")
    busy = house.worker("w2", numeric="alike", grant=False)
    other = house.worker("w3", numeric="other")
    house.tick(60.0, busy, other)
    assert client.view(job).worker_id == "w3"
