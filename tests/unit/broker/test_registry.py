"""Who a worker is, how a session opens, and how silence is judged."""

from __future__ import annotations

import pytest

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.registry import Liveness, Registry, Worker, tags_for
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Device, JobSpec
from tests.unit.broker.driver import House
from tests.unit.broker.driver import Worker as Peer


def states(house: House) -> list[tuple[str, str]]:
    return [(event.worker_id, event.state) for _, event, _ in house.events if isinstance(event, m.WorkerEvent)]


# ---------------------------------------------------------------- HELLO


def test_hello_opens_a_session() -> None:
    house = House()
    worker = Peer(house, "gpu-1")
    ok = worker.hello()
    assert isinstance(ok, m.HelloOk)
    assert ok.epoch == house.broker.ledger.epoch == ok.session >> 32
    assert (ok.store_id, ok.version, ok.verdicts) == (house.store.store_id, "1.2.3", [])
    assert (ok.ping_interval, ok.dead_after) == (house.config.ping_interval, house.config.dead_after)
    assert (ok.max_message, ok.max_inline_result) == (m.MAX_MESSAGE, 256 * 1024)
    topic, event, _ = house.events[-1]
    assert (topic, event.state) == (b"w.gpu-1.", "live")


def test_an_older_hello_of_the_same_process_is_dropped() -> None:
    """A closed connection's HELLO can be read after the newer one."""
    house = House()
    worker = house.worker()
    old, worker.peer = worker.peer, house.peer()
    worker.hello()
    session = worker.session
    worker.info.hello_seq, worker.peer = 0, old
    assert worker.hello() is None
    assert house.broker.registry.workers["cpu-1"].session == session


def test_a_new_process_on_the_same_host_supersedes_the_old_one() -> None:
    house = House()
    old = house.worker()
    new = Peer(house, "cpu-1", instance=b"second")
    assert isinstance(new.hello(), m.HelloOk)
    bye = old.last(m.Bye)
    assert (bye.code, bye.text) == ("SUPERSEDED", "A newer process speaks for worker cpu-1.")


def test_a_superseded_process_stays_superseded() -> None:
    house = House()
    old = house.worker()
    Peer(house, "cpu-1", instance=b"second").hello()
    assert old.reconnect().code == "SUPERSEDED"
    assert house.broker.registry.workers["cpu-1"].instance == b"second"


@pytest.mark.parametrize("elsewhere", [{"host": "host-2"}, {"address": "10.0.0.2"}])
def test_another_host_with_the_same_id_is_refused_while_the_first_is_live(elsewhere: dict[str, str]) -> None:
    """A cloned container must not kill a training."""
    house = House()
    first = house.worker()
    job = house.client().submit("training")
    first.accept(job)
    bye = Peer(house, "cpu-1", instance=b"clone", **elsewhere).hello()
    assert (type(bye), bye.code) == (m.Bye, "DUPLICATE_WORKER_ID")
    assert bye.text == (
        "Worker cpu-1 is already connected from 10.0.0.1. Give this one another id with --id or KTRDR_WORKER_ID "
        "(a cloned container keeps the id of its original)."
    )
    assert first.count(m.Bye) == 0
    first.finish(job)
    assert first.acks() == ["RECORDED"]


def test_another_host_may_take_over_from_a_silent_one() -> None:
    house = House()
    house.worker()
    house.tick(7.0)
    assert house.broker.registry.workers["cpu-1"].state is Liveness.SUSPECT
    assert isinstance(Peer(house, "cpu-1", instance=b"second", host="host-2").hello(), m.HelloOk)


def test_a_worker_of_another_version_is_told_so() -> None:
    house = House()
    worker = Peer(house, "cpu-1")
    worker.info.versions = [7]
    nack = worker.hello()
    assert (nack.code, nack.verb, nack.versions, nack.retryable) == ("VERSION", 0x01, [1], False)
    assert house.broker.registry.workers == {}


@pytest.mark.parametrize("worker_id", ["", "GPU", "-a", "a b", "a" * 64, "ä", "a/b"])
def test_a_worker_id_is_lower_case_and_short(worker_id: str) -> None:
    assert Peer(House(), worker_id).hello().code == "BAD_SPEC"


@pytest.mark.parametrize("slots", [{"cpu": -1}, {"cpu": 1_000_000}])
def test_senseless_slots_are_refused(slots: dict[str, int]) -> None:
    assert Peer(House(), "cpu-1", slots=slots).hello().code == "BAD_SPEC"


def test_a_database_older_than_the_cluster_stops_the_broker() -> None:
    house = House()
    epoch = house.broker.ledger.epoch
    assert Peer(house, "cpu-1", highest_epoch=epoch).hello() is not None
    assert Peer(house, "cpu-2", highest_epoch=epoch + 1).hello() is None
    assert house.broker.fatal.startswith(f"The database is older than the cluster: worker cpu-2 has seen epoch {epoch + 1}")


def test_an_older_copy_is_known_by_a_start_that_it_lacks() -> None:
    house = House()
    copy = house.store.copy()
    house.restart(50.0)
    epoch = house.broker.ledger.epoch
    assert isinstance(Peer(house, "cpu-1", highest_epoch=epoch, store_id=house.store.store_id).hello(), m.HelloOk)
    older = House(copy)
    older.restart(100.0)
    assert Peer(older, "cpu-1", highest_epoch=epoch, store_id=copy.store_id).hello() is None
    assert f"has seen epoch {epoch}, and the last one in the database is {older.broker.ledger.former_epoch}" in older.broker.fatal


def test_an_older_copy_of_the_same_start_is_known_by_a_token_that_it_lacks() -> None:
    house = House()
    worker, client = house.worker(), house.client()
    client.submit()
    worker.finish(worker.jobs[0])
    copy = house.store.copy()
    client.submit()
    token = worker.items[worker.jobs[1]].token
    older = House(copy)
    older.restart(100.0)
    seen = {"store_id": copy.store_id, "highest_epoch": token >> 32}
    assert isinstance(Peer(older, "cpu-2", highest_token=copy.token, **seen).hello(), m.HelloOk)
    assert older.broker.fatal == ""
    assert Peer(older, "cpu-1", highest_token=token, **seen).hello() is None
    assert f"cpu-1 has seen token {token:x}" in older.broker.fatal
    assert "--restored" in older.broker.fatal


def test_an_older_copy_is_known_although_two_starts_have_one_epoch() -> None:
    """The broker's clock was set back, so that the start of the copy is numbered like the one that it lacks."""
    house = House()
    copy = house.store.copy()
    house.restart(0.0)
    worker = house.worker()
    house.client().submit()
    token = worker.items[worker.jobs[0]].token
    older = House(copy)
    assert older.broker.ledger.epoch == token >> 32
    assert Peer(older, "cpu-1", highest_epoch=token >> 32, highest_token=token, store_id=copy.store_id).hello() is None
    assert f"cpu-1 has seen token {token:x}" in older.broker.fatal


def test_a_restored_copy_that_is_meant_is_another_store() -> None:
    house = House()
    worker, client = house.worker(), house.client()
    copy = house.store.copy()
    client.submit()
    seen = {"store_id": copy.store_id, "highest_epoch": house.broker.ledger.epoch, "highest_token": worker.items[worker.jobs[0]].token}
    copy.renew()
    older = House(copy)
    older.restart(100.0)
    assert isinstance(Peer(older, "cpu-1", **seen).hello(), m.HelloOk)
    assert older.broker.fatal == ""


def test_the_epoch_of_another_cluster_means_nothing() -> None:
    house = House()
    other = Peer(house, "cpu-1", highest_epoch=house.broker.ledger.epoch + 1, store_id=b"another")
    assert isinstance(other.hello(), m.HelloOk)
    assert house.broker.fatal == ""


def test_a_connection_speaks_for_one_worker_only() -> None:
    house = House()
    first = house.worker("cpu-1")
    second = Peer(house, "cpu-2")
    second.peer = first.peer
    assert isinstance(second.hello(), m.HelloOk)
    registry = house.broker.registry
    assert registry.workers["cpu-1"].state is Liveness.SUSPECT
    assert registry.by_peer[first.peer] is registry.workers["cpu-2"]


def test_there_are_no_more_workers_than_allowed() -> None:
    house = House(max_workers=2)
    first, _ = house.worker("cpu-1"), house.worker("cpu-2")
    assert Peer(house, "cpu-3").hello().code == "QUEUE_FULL"
    first.bye()
    house.tick(1.0)
    assert isinstance(Peer(house, "cpu-3").hello(), m.HelloOk)


# ---------------------------------------------------------------- silence


def test_live_suspect_dead() -> None:
    house = House(ping_interval=2.0, dead_after=10.0)
    worker = house.worker()
    house.tick(6.0)
    assert states(house) == [("cpu-1", "live")]
    house.tick(1.0)
    assert states(house)[1:] == [("cpu-1", "suspect")]
    worker.ping()
    assert states(house)[2:] == [("cpu-1", "live")]
    house.tick(10.0)
    assert states(house)[3:] == [("cpu-1", "suspect")]
    house.tick(1.0)
    assert states(house)[4:] == [("cpu-1", "dead")]
    assert house.broker.registry.by_peer == {}


def test_any_traffic_is_a_sign_of_life() -> None:
    house = House()
    worker = house.worker()
    for _ in range(10):
        house.tick(5.0)
        worker.say(m.Credit(worker.session, []))
    assert states(house) == [("cpu-1", "live")]


def test_a_ping_is_answered_at_once_with_the_epoch() -> None:
    house = House()
    worker = house.worker()
    worker.ping()
    assert worker.heard[-1] == m.Pong(1, house.broker.ledger.epoch)


def test_a_dead_worker_must_say_hello_again() -> None:
    house = House()
    worker = house.worker()
    house.tick(12.0)
    worker.ping()
    assert worker.heard[-1].code == "HELLO_REQUIRED"
    assert worker.count(m.Pong) == 0
    worker.reconnect()
    worker.ping()
    assert worker.count(m.Pong) == 1


def test_an_unreachable_worker_is_suspect() -> None:
    house = House()
    worker = house.worker()
    house.unreachable.add(worker.peer)
    house.client().submit("echo")
    assert states(house)[-1] == ("cpu-1", "suspect")
    assert house.client().offer("echo").code == "OK"  # it may come back


def test_workers_long_away_are_forgotten() -> None:
    house = House(forget_worker_after=60.0)
    worker = house.worker()
    worker.bye()
    house.tick(59.0)
    assert "cpu-1" in house.broker.registry.workers
    house.tick(2.0)
    assert house.broker.registry.workers == {}


def test_a_stalled_broker_blames_nobody() -> None:
    house = House()
    worker = house.worker()
    house.tick(2.0, worker)
    house.now += 20.0  # SIGSTOP
    house.tick(0.0)
    assert states(house) == [("cpu-1", "live")]
    house.tick(5.0, worker)
    assert states(house) == [("cpu-1", "live")]


def test_a_stall_does_not_hide_a_later_death() -> None:
    house = House()
    worker = house.worker()
    house.now += 100.0
    worker.ping()  # was in the letter-box: read before the tick
    house.tick(0.0)
    house.tick(11.0)
    assert states(house)[-1] == ("cpu-1", "dead")


# ---------------------------------------------------------------- credit and capability


@pytest.mark.parametrize("device, tags", [(Device.AUTO, ("gpu", "cpu")), (Device.GPU, ("gpu",)), (Device.CPU, ("cpu",))])
def test_tags_for(device: Device, tags: tuple[str, ...]) -> None:
    assert tags_for(device) == tags


def open_worker(**slots: int) -> Worker:
    worker = Worker("w", 0.0)
    info = m.WorkerInfo("w", b"i", 1, [1], list(slots.items()), [("noop", 2, 4)])
    worker.open(info, b"peer", 1, "", 0.0, 0)
    worker.grant(list(slots.items()))
    return worker


@pytest.mark.parametrize(
    "mean, room",
    [
        (None, 2),  # not known: as if it were long
        (5.0, 2),
        (1.0, 2),
        (0.5, 4),  # two for each slot
        (0.01, 200),
        (0.0, 256),  # never more than the window
    ],
)
def test_short_jobs_are_sent_ahead(mean: float | None, room: int) -> None:
    assert open_worker(cpu=2).room("cpu", mean, BrokerConfig()) == room


def test_nothing_is_sent_ahead_to_gpus_or_behind_long_jobs() -> None:
    worker = open_worker(gpu=2, cpu=2)
    assert worker.room("gpu", 0.01, BrokerConfig()) == 2
    worker.long_leases["cpu"] = 1
    assert worker.room("cpu", 0.01, BrokerConfig()) == 2


def test_credit_is_cumulative() -> None:
    """A repeated, lost or late grant is harmless, and one for a tag that the worker does not have means nothing."""
    worker = open_worker(cpu=2)
    worker.grant([("cpu", 3), ("tpu", 9)])
    worker.grant([("cpu", 3)])
    worker.grant([("cpu", 1)])
    assert worker.credit == {"cpu": 3}


@pytest.mark.parametrize("schema, offered", [(1, False), (2, True), (4, True), (5, False)])
def test_schemas_a_worker_understands(schema: int, offered: bool) -> None:
    assert open_worker(cpu=1).offers("noop", schema) is offered


def test_mean_run_time_is_learned() -> None:
    registry = Registry(BrokerConfig())
    registry.learn("echo", 10.0)
    registry.learn("echo", 5.0)
    assert registry.means == {"echo": 9.0}


def test_capability_counts_those_who_may_still_come() -> None:
    house = House()
    registry = house.broker.registry
    spec = JobSpec("training")
    assert not registry.capable(spec, house.now)
    worker = house.worker()
    assert registry.capable(spec, house.now)
    assert not registry.capable(JobSpec("training", device=Device.GPU), house.now)
    house.tick(8.0)  # suspect
    assert registry.capable(spec, house.now)
    worker.ping()
    worker.bye(returns_in=30.0)
    assert registry.capable(spec, house.now + 29.0)
    assert not registry.capable(spec, house.now + 31.0)
