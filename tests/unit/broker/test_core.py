"""The broker as a whole: restarts, storage that fails, retention of artifacts, the join barrier, nonsense, shutdown."""

from __future__ import annotations

import pytest

from ktrdr_broker.core import Port
from ktrdr_broker.ledger import IllegalTransition
from ktrdr_broker.model import ArtifactDelete, ArtifactRow, ArtifactStored, Saves
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.errors import ProtocolError
from ktrdr_zmq.jobs import TERMINAL, TRANSITIONS, JobState, Outcome, Reason
from tests.unit.broker.driver import WALL, House, artifact, digest_of


@pytest.fixture
def house() -> House:
    return House()


# ---------------------------------------------------------------- restart


def test_the_epoch_grows_with_every_start() -> None:
    house = House()
    epochs = [house.broker.ledger.epoch]
    for _ in range(3):
        house.restart(down_for=0.0)
        epochs.append(house.broker.ledger.epoch)
    assert epochs == [epochs[0] + n for n in range(4)]
    assert epochs[0] == (WALL + 1000 * 10**6) // 10**6


def test_a_running_training_survives_the_broker(house: House) -> None:
    worker = house.worker()
    job = house.client().submit("training")
    worker.accept(job)
    ref = worker.ref(job)
    house.restart()
    worker.reconnect(running=[ref])
    assert worker.verdicts() == {job: "CONTINUE"}
    worker.finish(job, body=b"result", token=ref.token)
    client = house.client()
    view = client.view(job)
    assert (view.state, view.attempt, view.losses) == ("done", 1, 0)
    assert client.result(job)[1] == b"result"


def test_a_result_may_be_the_first_word_after_a_restart(house: House) -> None:
    worker = house.worker()
    job = house.client().submit("training")
    worker.accept(job)
    token = worker.items[job].token
    house.restart()
    worker.peer = house.peer()
    worker.finish(job, body=b"result", token=token)
    assert worker.acks() == ["RECORDED"]
    assert house.client().result(job)[1] == b"result"


def test_nothing_is_started_twice_within_the_grace(house: House) -> None:
    first = house.worker("cpu-1")
    job = house.client().submit("training")
    first.accept(job)
    ref = first.ref(job)
    house.restart()
    second = house.worker("cpu-2")
    house.tick(house.config.grace - 1.0, second)
    assert second.jobs == []
    first.reconnect(running=[ref])
    assert first.verdicts() == {job: "CONTINUE"}


def test_after_the_grace_the_job_runs_elsewhere(house: House) -> None:
    first = house.worker("cpu-1")
    job = house.client().submit("training")
    first.accept(job)
    house.restart()
    second = house.worker("cpu-2")
    house.tick(house.config.grace + 12.0, second)
    assert second.jobs == [job]
    assert second.items[job].attempt == 2


def test_a_restart_does_not_make_a_training_young(house: House) -> None:
    """An hour of work is waited for longer than the grace, although the new broker has not seen it begin."""
    worker = house.worker()
    job = house.client().submit("training")
    worker.accept(job)
    house.tick(3000.0, worker)
    house.restart()
    house.tick(700.0)
    assert house.client().state(job) == "running"
    house.tick(200.0)
    assert house.client().state(job) == "queued"


def test_queued_and_new_jobs_flow_at_once_after_a_restart(house: House) -> None:
    first = house.worker("cpu-1")
    client = house.client()
    leased, queued = client.submit("training"), client.submit("training")
    first.accept(leased)
    house.restart()
    second = house.worker("cpu-2", slots={"cpu": 2})
    new = house.client().submit("training")
    assert second.jobs == [queued, new]


def test_a_worker_that_is_expected_back_keeps_its_kind_alive(house: House) -> None:
    worker = house.worker()
    job = house.client().submit("training")
    worker.accept(job)
    house.restart()
    assert house.client().offer("training").code == "OK"
    assert house.client().offer("echo").code == "NO_CAPABLE_WORKER"
    house.tick(house.config.grace + 1.0)
    assert house.client().offer("training").code == "NO_CAPABLE_WORKER"


def test_a_worker_that_lost_its_job_while_the_broker_was_away(house: House) -> None:
    worker = house.worker()
    job = house.client().submit("training")
    worker.accept(job)
    house.restart()
    worker.reconnect()
    view = house.client().view(job)
    assert (view.state, view.reason, view.losses, len(view.attempts)) == ("queued", "WORKER_GONE", 1, 1)


def test_a_cancellation_survives_the_broker(house: House) -> None:
    worker = house.worker()
    client = house.client()
    job = client.submit("training")
    worker.accept(job)
    ref = worker.ref(job)
    client.cancel(job)
    house.restart()
    worker.reconnect(running=[ref])
    assert worker.last(m.Cancel).items[0].token == ref.token
    worker.finish(job, Outcome.DONE, token=ref.token)
    assert house.client().state(job) == "cancelled"


def test_order_survives_the_broker(house: House) -> None:
    house.worker(grant=False)
    client = house.client()
    jobs = [client.submit("training") for _ in range(5)]
    house.restart()
    worker = house.worker("cpu-2")
    for _ in range(4):
        worker.finish(worker.jobs[-1])
    assert worker.jobs == jobs


def test_gpu_wait_begins_anew_with_the_broker(house: House) -> None:
    house.worker("gpu-1", slots={"gpu": 1}, grant=False)
    job = house.client().submit("training", gpu_wait=20.0)
    house.tick(15.0)
    house.restart()
    gpu, cpu = house.worker("gpu-1", slots={"gpu": 1}, grant=False, instance=b"2"), house.worker("cpu-1")
    house.tick(19.0, gpu, cpu)
    assert cpu.jobs == []
    house.tick(1.0, gpu, cpu)
    assert cpu.jobs == [job]


def test_a_lost_job_can_be_readopted_after_a_restart(house: House) -> None:
    worker = house.worker()
    job = house.client().submit("training")
    worker.accept(job)
    ref = worker.ref(job)
    house.tick(15.0)
    assert house.store.jobs[job].reason == Reason.WORKER_LOST
    house.restart()
    worker.reconnect(running=[ref])
    assert worker.verdicts() == {job: "CONTINUE"}


# ---------------------------------------------------------------- storage


def test_nothing_leaves_before_it_is_durable(house: House) -> None:
    worker = house.worker()
    client = house.client()
    house.store.failures = 3
    job = b"j" * 16
    assert client.ask(m.Submit(1, [m.SubmitItem(job, b"\x91\xa4echo", 0)]), [b""]) is None
    house.tick(0.0)
    worker.ping()  # heartbeats go on
    assert worker.count(m.Pong) == 1
    assert (worker.jobs, job in house.store.jobs) == ([], False)
    house.tick(0.0)
    assert (worker.jobs, client.heard[-1].items[0].code) == ([job], "OK")


def test_a_failed_commit_is_merged_with_what_follows(house: House) -> None:
    worker = house.worker()
    client = house.client()
    first, second = client.submit("echo"), client.submit("echo")
    house.store.failures = 2
    worker.finish(first, body=b"one")
    worker.finish(second, body=b"two", token=house.broker.jobs[second].token)
    house.tick(0.0)
    assert worker.acks() == ["RECORDED", "RECORDED"]
    assert [client.result(job)[1] for job in (first, second)] == [b"one", b"two"]


def test_a_commit_that_was_written_and_reported_as_failed(house: House) -> None:
    worker = house.worker()
    client = house.client()
    job = client.submit("echo")
    house.store.torn = 1
    worker.finish(job, body=b"one")
    house.tick(0.0)
    assert worker.acks() == ["RECORDED"]
    assert client.result(job)[1] == b"one"


def test_what_ends_between_two_commits_stays_until_its_own(house: House) -> None:
    """`committed` speaks of what was drained before, not of what came in since."""
    worker = house.worker(slots={"cpu": 2})
    client = house.client()
    first, second = client.submit("echo"), client.submit("echo")
    tokens = {job: worker.items[job].token for job in (first, second)}

    def result(job: bytes) -> m.Result:
        return m.Result(worker.session, [m.ResultItem(job, tokens[job], Outcome.DONE)])

    house.send(Port.WORKER, worker.peer, result(first), [b""])
    saves, _ = house.broker.drain()
    house.send(Port.WORKER, worker.peer, result(second), [b""])
    house.store.commit(saves)
    house.broker.committed()
    assert set(house.broker.jobs) == {second}
    house.turn()
    assert house.broker.jobs == {}
    assert client.state(second) == "done"


def test_merge() -> None:
    row = ArtifactRow(b"d", 1, 0, 0)
    saves = Saves(artifacts={b"d": row, b"e": row}, results={b"1": b"a"}, artifacts_gone=[b"x"], removed=[b"7"])
    saves.merge(Saves(artifacts={b"x": row}, artifacts_gone=[b"d"], results={b"2": b"b"}, removed=[b"8"], meta={"k": b"v"}))
    assert saves.artifacts == {b"e": row, b"x": row}
    assert saves.artifacts_gone == [b"x", b"d"]  # what is gone is deleted before what is there is written
    assert (saves.results, saves.removed, saves.meta) == ({b"1": b"a", b"2": b"b"}, [b"7", b"8"], {"k": b"v"})
    assert bool(saves) and not Saves()


def test_an_artifact_stored_again_while_its_deletion_waits(house: House) -> None:
    house = House(artifact_grace=10.0)
    digest = house.store_artifact(b"data")
    house.store.failures = 1
    house.tick(12.0)  # garbage; its deletion is not committed in the last turn of these
    house.store.failures = 1
    house.broker.on_artifact_stored(digest, 4, house.now, house.wall)
    house.turn()
    house.tick(0.0)
    assert digest in house.store.artifacts
    assert house.bulk[-1] == ArtifactStored(digest)


def test_nothing_is_deleted_while_the_disk_takes_no_writes() -> None:
    """The row of an upload that waits for its commit would be given up, and the upload acknowledged all the same."""
    house = House(artifact_grace=10.0)
    house.store.failures = 30
    digest = digest_of(b"data")
    house.broker.on_artifact_stored(digest, 4, house.now, house.wall)
    house.turn()
    house.tick(25.0)
    house.store.failures = 0
    house.tick(0.0)
    assert house.bulk[0] == ArtifactStored(digest)
    assert digest in house.store.artifacts


# ---------------------------------------------------------------- artifacts


def test_an_artifact_is_announced_after_its_commit(house: House) -> None:
    house.store.failures = 1
    house.broker.on_artifact_stored(digest_of(b"a"), 1, house.now, house.wall)
    house.turn()
    assert house.bulk == []
    house.tick(0.0)
    assert house.bulk == [ArtifactStored(digest_of(b"a"))]
    assert house.store.artifacts[digest_of(b"a")].size == 1


def test_garbage_is_what_nothing_names_and_nobody_asked_for() -> None:
    house = House(artifact_grace=100.0)
    worker = house.worker()
    client = house.client()
    names = ("input", "result", "checkpoint", "asked", "unused")
    digest = {name: house.store_artifact(name.encode()) for name in names}
    job = client.submit("training", inputs=(("data", digest["input"]),))
    worker.checkpoint(job, 1, b"checkpoint")
    worker.finish(job, artifacts=[artifact("model", b"result")])
    house.tick(60.0)
    client.ask(m.Have(1, [digest["asked"]]))
    house.tick(60.0)
    assert house.bulk[-1] == ArtifactDelete(digest["unused"])
    assert set(house.store.artifacts) == {digest[name] for name in names[:4]}
    house.tick(60.0)
    assert set(house.store.artifacts) == {digest[name] for name in names[:3]}
    client.admin("rm", refs=[job.hex()])
    house.tick(1.0)
    assert house.store.artifacts == {}


def test_a_replaced_checkpoint_becomes_garbage() -> None:
    house = House(artifact_grace=100.0)
    worker = house.worker()
    job = house.client().submit("training")
    for seq, data in enumerate((b"one", b"two"), 1):
        house.store_artifact(data)
        worker.checkpoint(job, seq, data)
    house.tick(110.0, worker)
    assert set(house.store.artifacts) == {digest_of(b"two")}


def test_grace_begins_anew_with_the_broker() -> None:
    house = House(artifact_grace=100.0)
    digest = house.store_artifact(b"data")
    house.tick(90.0)
    house.restart()
    house.tick(90.0)
    assert digest in house.store.artifacts
    house.tick(20.0)
    assert house.store.artifacts == {}


def test_users_of_artifacts_survive_the_broker() -> None:
    house = House(artifact_grace=100.0)
    worker = house.worker()
    digest = house.store_artifact(b"data")
    job = house.client().submit("training", inputs=(("data", digest),))
    worker.finish(job)
    house.restart()
    house.tick(200.0)
    assert digest in house.store.artifacts


def test_retention_asks_now_and_then() -> None:
    house = House(retention=50.0)
    worker = house.worker()
    job = house.client().submit("echo")
    worker.finish(job)
    assert house.broker.wants_prune(house.now, house.wall) is None
    house.tick(61.0)
    lookup = house.broker.wants_prune(house.now, house.wall)
    assert lookup is not None and lookup.prune_before == house.wall - 50_000_000
    assert house.broker.wants_prune(house.now, house.wall) is None
    house.broker.on_prunable(house.store.find(lookup).prunable, house.now, house.wall)
    house.turn()
    assert house.store.jobs == {}


# ---------------------------------------------------------------- events


def test_the_join_barrier(house: House) -> None:
    house.broker.on_subscribe(b"j.")
    house.broker.on_subscribe(b"s.00ff")
    house.broker.on_subscribe(b"s." + b"f" * 100)
    house.turn()
    assert house.events == [(b"s.00ff", m.SyncEvent(house.broker.ledger.epoch, b"00ff"), [])]


def test_every_transition_has_its_own_rev(house: House) -> None:
    worker = house.worker()
    job = house.client().submit("training")
    worker.accept(job)
    worker.finish(job, Outcome.HANDED_BACK)
    worker.finish(job)
    revs = [e.rev for _, e, _ in house.events if isinstance(e, m.JobEvent)]
    assert revs == sorted(set(revs))


def test_no_transition_but_those_of_the_table(house: House) -> None:
    worker = house.worker(grant=False)
    job = house.broker.jobs[house.client().submit("echo")]
    assert worker.jobs == []
    for state in JobState:
        for following in set(JobState) - TRANSITIONS[state]:
            job.state = state
            with pytest.raises(IllegalTransition):
                house.broker.ledger.move(job, following, Reason.COMPLETED)
    assert all(not TRANSITIONS[state] for state in TERMINAL)


# ---------------------------------------------------------------- nonsense, time, the end


@pytest.mark.parametrize("port", [Port.WORKER, Port.CLIENT])
def test_what_cannot_be_understood_is_answered(house: House, port: Port) -> None:
    table = codec.FROM_WORKER if port is Port.WORKER else codec.FROM_CLIENT
    with pytest.raises(ProtocolError) as caught:
        codec.decode([b"KZ\x07\x01\x90"], table)
    house.broker.on_bad_message(port, b"peer", caught.value, house.now)
    house.turn()
    nack = house.received[b"peer"][0][0]
    assert (nack.code, nack.verb, nack.epoch, nack.versions) == ("VERSION", 1, house.broker.ledger.epoch, [1])
    assert nack.text == "Protocol version 7 is not spoken here; version 1 is."


def test_a_nack_is_never_answered(house: House) -> None:
    error = ProtocolError("no", code="FORBIDDEN_VERB", verb=0x7F)
    house.broker.on_bad_message(Port.WORKER, b"peer", error, house.now)
    house.broker.on_message(Port.WORKER, b"peer", m.Nack("X"), [], house.now, house.wall)
    house.turn()
    assert house.received == {}


def test_a_flood_of_nonsense_is_answered_within_reason(house: House) -> None:
    for _ in range(2000):
        house.broker.on_bad_message(Port.CLIENT, b"peer", ProtocolError(), house.now)
    house.turn()
    assert len(house.received[b"peer"]) == 500
    house.broker.on_bad_message(Port.CLIENT, b"peer", ProtocolError(), house.now + 1.0)
    house.turn()
    assert len(house.received[b"peer"]) == 501


def test_an_unreachable_client_is_nobodys_loss(house: House) -> None:
    client = house.client()
    house.unreachable.add(client.peer)
    assert client.ask(m.ClientPing(1)) is None


def test_the_deadline_is_never_far(house: House) -> None:
    assert house.broker.next_deadline() == house.now + house.config.ping_interval / 2
    house.tick(0.0)
    house.now += 0.25
    house.worker(grant=False)
    house.client().submit("echo", queue_timeout=0.1)
    assert house.broker.next_deadline() == pytest.approx(house.now + 0.1)


def test_a_stall_of_the_broker_costs_nobody_a_lease(house: House) -> None:
    worker = house.worker()
    client = house.client()
    job = client.submit("training")
    worker.accept(job)
    house.tick(5.0, worker)
    house.now += 3600.0
    house.tick(0.0)
    house.tick(5.0, worker)
    view = house.client().view(job)
    assert (view.state, view.losses) == ("running", 0)


def test_a_stall_extends_the_grace_and_every_reclaim(house: House) -> None:
    first, second = house.worker("cpu-1"), house.worker("cpu-2")
    job = house.client().submit("training", reclaim_after=50.0)
    holder, other = (first, second) if first.jobs else (second, first)
    holder.accept(job)
    house.tick(20.0, other)
    house.now += 500.0
    house.tick(0.0)
    assert house.store.jobs[job].state is JobState.RUNNING
    house.tick(40.0, other)
    assert other.jobs == [job]


def test_shutdown_says_good_bye(house: House) -> None:
    worker = house.worker()
    client = house.client()
    job = client.submit("training")
    house.broker.shutdown(house.now, house.wall)
    house.turn()
    assert worker.last(m.Bye) == m.Bye("SHUTTING_DOWN", "The broker is shutting down.")
    assert house.store.jobs[job].state is JobState.LEASED  # it goes on


def test_check_finds_what_is_wrong(house: House) -> None:
    worker = house.worker()
    client = house.client()
    leased, queued = client.submit("training"), client.submit("training")
    broker = house.broker
    assert broker.check() == []
    broker.jobs[queued].state = JobState.DONE
    assert len(broker.check()) == 2  # in the queue, and without a time
    broker.jobs[queued].state = JobState.QUEUED
    token = worker.items[leased].token
    lease = broker.leases.by_token.pop(token)
    assert len(broker.check()) == 2  # held without a lease; the worker has one the book does not have
    broker.leases.by_token[token] = lease
    broker.registry.by_peer.clear()
    assert broker.check() == ["cpu-1: its connection belongs to another"]
