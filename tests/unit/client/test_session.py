"""The client's dialogue: whatever is lost, cut or restarted, it asks again, and nothing happens twice."""

from __future__ import annotations

import pytest

from ktrdr_zmq import messages as m
from ktrdr_zmq.session import MAX_BATCH, MAX_SUBMITS, Reconnect, State
from tests.unit.client.wire import Wire, job_id


@pytest.fixture
def wire() -> Wire:
    wire = Wire()
    wire.step()
    return wire


def test_the_first_word_is_hello(wire: Wire) -> None:
    assert isinstance(wire.sent[0], m.ClientHello)
    assert wire.session.state is State.OPEN
    assert wire.session.epoch == wire.broker.ledger.epoch


def test_jobs_submitted_in_one_turn_travel_in_one_message(wire: Wire) -> None:
    wire.submit(*map(job_id, range(100)))
    assert wire.count(m.Submit) == 1
    assert wire.replies() == {job_id(n): ["OK"] for n in range(100)}
    assert len(wire.store.jobs) == 100


def test_large_batches_are_cut_by_number_and_by_size(wire: Wire) -> None:
    wire.submit(*map(job_id, range(2 * MAX_BATCH + 1)))
    assert [len(message.items) for message in wire.sent if isinstance(message, m.Submit)] == [MAX_BATCH, MAX_BATCH, 1]
    wire.sent.clear()
    wire.submit(*map(job_id, range(10_000, 10_020)), body=bytes(1_000_000))
    sizes = [sum(item.size for item in message.items) for message in wire.sent if isinstance(message, m.Submit)]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= wire.session.max_message // 2


def test_a_long_queue_waits_at_home(wire: Wire) -> None:
    """What is under way and unanswered is bounded, or a slow broker would be sent everything twice."""
    wire.up = False
    wire.submit(*map(job_id, range((MAX_SUBMITS + 3) * MAX_BATCH)))
    assert wire.count(m.Submit) == MAX_SUBMITS
    wire.up = True
    wire.pass_time(60)
    assert len(wire.replies()) == (MAX_SUBMITS + 3) * MAX_BATCH
    assert all(codes == ["OK"] for codes in wire.replies().values())


def test_an_unanswered_request_is_sent_again_and_more_slowly(wire: Wire) -> None:
    wire.lose = {m.SubmitAck}
    wire.submit(job_id(1))
    wire.pass_time(2.5)
    assert wire.count(m.Submit) == 1
    wire.pass_time(27)
    again = wire.count(m.Submit)
    assert 3 <= again <= 5
    wire.lose = set()
    wire.pass_time(13)
    assert wire.replies() == {job_id(1): ["OK"]}
    assert len(wire.store.jobs) == 1


def test_an_answer_that_comes_twice_is_told_once(wire: Wire) -> None:
    number = wire.ask(m.Workers(0))
    wire.say(m.WorkersReply(number, []))
    wire.step()
    assert [output.request for output in wire.outputs] == [number]


def test_a_late_answer_to_a_former_submission_is_not_taken_for_the_new_one(wire: Wire) -> None:
    wire.submit(job_id(1))
    first = next(message for message in wire.sent if isinstance(message, m.Submit))
    wire.outputs.clear()
    wire.lose = {m.SubmitAck}
    wire.submit(job_id(1))
    wire.lose = set()
    wire.say(m.SubmitAck(first.request, [m.SubmitReply(job_id(1), "QUEUE_FULL")]))
    wire.step()
    assert wire.outputs == []


def test_a_refused_batch_is_a_refusal_of_each_of_its_jobs(wire: Wire) -> None:
    wire.lose = {m.Submit}
    wire.submit(job_id(1), job_id(2))
    submit = wire.sent[-1]
    assert isinstance(submit, m.Submit)
    wire.say(m.Nack("STORAGE", request=submit.request, retryable=True, retry_after=5.0, text="The disk is full."))
    wire.step()
    assert wire.replies() == {job_id(1): ["STORAGE"], job_id(2): ["STORAGE"]}
    assert not wire.session.busy


def test_a_restarted_broker_asks_for_hello_and_gets_everything_again(wire: Wire) -> None:
    wire.lose = {m.SubmitAck}
    wire.submit(job_id(1))
    wire.lose = set()
    epoch = wire.session.epoch
    wire.restart_broker()
    number = wire.ask(m.Status(0, [job_id(1).hex()]))
    assert wire.count(m.ClientHello) == 2
    assert wire.session.epoch > epoch
    assert wire.answers()[number].jobs[0].job_id == job_id(1)
    assert wire.replies() == {job_id(1): ["OK"]}


def test_hello_names_the_highest_epoch_seen(wire: Wire) -> None:
    wire.restart_broker()
    wire.ask(m.Workers(0))
    hellos = [message for message in wire.sent if isinstance(message, m.ClientHello)]
    assert hellos[-1].info.highest_epoch == wire.session.epoch - 1 or hellos[-1].info.highest_epoch < wire.session.epoch
    assert hellos[-1].info.highest_epoch > 0


def test_silence_is_answered_by_a_new_socket_and_pauses_that_grow(wire: Wire) -> None:
    wire.session.watch(on=True)
    wire.up = False
    wire.pass_time(120)
    assert wire.session.state is not State.OPEN
    reconnects = sum(isinstance(output, Reconnect) for output in wire.outputs)
    assert 5 <= reconnects <= 20
    wire.up = True
    wire.pass_time(20)
    assert wire.session.state is State.OPEN


def test_an_idle_dialogue_that_watches_nothing_costs_nothing(wire: Wire) -> None:
    wire.sent.clear()
    wire.pass_time(600)
    assert wire.sent == []
    assert wire.session.state is State.OPEN


def test_a_watching_dialogue_shows_signs_of_life(wire: Wire) -> None:
    wire.session.watch(on=True)
    wire.pass_time(20)
    assert 8 <= wire.count(m.ClientPing) <= 12
    assert wire.session.last_heard >= wire.now - 4


def test_a_process_that_stood_still_does_not_blame_the_broker(wire: Wire) -> None:
    wire.session.watch(on=True)
    wire.pass_time(10)
    wire.now += 300
    wire.session.on_tick(wire.now)
    wire.step()
    assert wire.outputs == []
    assert wire.session.state is State.OPEN


def test_a_broker_of_another_version_ends_the_dialogue(wire: Wire) -> None:
    wire.say(m.Nack("VERSION", text="This broker speaks protocol version 9.", versions=[9]))
    assert wire.session.state is State.FAILED
    assert wire.session.refusal is not None
    assert wire.session.refusal.versions == [9]
    wire.sent.clear()
    wire.pass_time(60)
    assert wire.sent == []


def test_a_full_broker_is_asked_again_later() -> None:
    wire = Wire()
    wire.lose = {m.ClientHello}
    wire.step()
    hello = wire.sent[0]
    assert isinstance(hello, m.ClientHello)
    wire.say(m.Nack("QUEUE_FULL", request=hello.request, retryable=True))
    assert wire.session.state is State.PAUSED
    wire.lose = set()
    wire.pass_time(5)
    assert wire.session.state is State.OPEN


def test_what_was_asked_before_the_dialogue_opened_is_asked_then() -> None:
    wire = Wire()
    wire.up = False
    wire.submit(job_id(1))
    assert wire.count(m.Submit) == 0
    wire.up = True
    wire.pass_time(30)
    assert wire.replies() == {job_id(1): ["OK"]}


def test_a_socket_that_takes_messages_again_gets_what_it_had_refused(wire: Wire) -> None:
    wire.up = False
    wire.submit(job_id(1))
    wire.up = True
    wire.session.on_writable(wire.now)
    wire.step()
    assert wire.replies() == {job_id(1): ["OK"]}


def test_a_forgotten_request_is_not_sent_again(wire: Wire) -> None:
    wire.up = False
    number = wire.ask(m.Workers(0))
    wire.session.forget(number)
    wire.up = True
    wire.sent.clear()
    wire.pass_time(30)
    assert wire.count(m.Workers) == 0


def test_nobody_is_answered_with_an_exception(wire: Wire) -> None:
    """Answers to what was never asked, in any state."""
    for message in (
        m.SubmitAck(99, [m.SubmitReply(job_id(9), "OK")]), m.WorkersReply(99, []), m.ClientPong(99, 1), m.Nack("BAD_FRAME"),
        m.HaveReply(99, []), m.ClientHelloOk(99, 1, b"", 0, 0),
    ):  # fmt: skip
        wire.say(message)
    wire.step()
    assert wire.outputs == []
    wire.submit(job_id(1))
    assert wire.replies() == {job_id(1): ["OK"]}
