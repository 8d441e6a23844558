"""The worker's side of the dialogue, told as short tables: what the broker and the children do, and what the worker says then."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr_worker import effects as e
from ktrdr_worker import pipe
from ktrdr_worker.core import Link
from ktrdr_worker.duties import Death
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Artifact, Failure, Outcome
from tests.unit.worker.dialogue import STORE, Desk, job_id

LOG = Artifact("log", b"l" * 32, 5, "text/plain")
CKPT = Artifact("checkpoint", b"c" * 32, 9)

# ---------------------------------------------------------------- session


def test_hello_comes_first_and_says_what_is_offered() -> None:
    desk = Desk(live=False).tick()
    (hello,) = desk.heard(m.WorkerHello)
    assert (hello.info.worker_id, hello.info.hello_seq, hello.running, hello.finished) == ("w", 1, [], [])
    assert [type(effect) for effect in desk.effects] == [e.Reconnect]
    desk.dispatch(1, session=0)
    assert desk.started() == [], "between HELLO and its answer nothing is taken"


def test_the_first_credit_is_the_free_slots() -> None:
    assert Desk("cpu=3,gpu=1").credit() == {"cpu": 3, "gpu": 1}


def test_pings_go_out_at_the_interval_the_broker_gave() -> None:
    desk = Desk()
    desk.sent.clear()
    for _ in range(3):
        desk.tick(2.0).say(m.Pong(1, 7))
    assert [ping.seq for ping in desk.heard(m.WorkerPing)] == [1, 2, 3]


def test_silence_leads_to_a_new_socket_with_full_jitter_until_it_is_answered() -> None:
    desk = Desk()
    desk.effects.clear()
    desk.tick(5.9)
    assert desk.wanted(e.Reconnect) == []
    times = []
    for _ in range(12):
        while not desk.wanted(e.Reconnect):
            desk.tick(0.05)
        times.append(desk.now)
    pauses = [later - earlier - 5.0 for earlier, later in zip(times, times[1:], strict=False)]
    assert pauses[:4] == pytest.approx([0.25, 0.5, 1.0, 2.0], abs=0.06), "half of 0.5, 1, 2, 4: the jitter here is 0.5"
    assert pauses[-1] == pytest.approx(4.0, abs=0.06), "half of the cap"
    desk.welcome()
    desk.tick(6.01)
    desk.tick(0.13)
    assert desk.wanted(e.Reconnect), "an answer resets the back-off"


def test_quicker_heartbeats_mean_quicker_returns() -> None:
    desk = Desk(live=False).tick()
    desk.say(m.HelloOk(7, STORE, 1, 0.3, 1.5, 1 << 20, 1 << 18, [], hello_seq=1))
    desk.effects.clear()
    times = []
    for _ in range(8):
        while not desk.wanted(e.Reconnect):
            desk.tick(0.05)
        times.append(desk.now)
    pauses = [later - earlier - 1.0 for earlier, later in zip(times, times[1:], strict=False)]
    assert pauses[-1] == pytest.approx(0.6, abs=0.06), "half of four intervals; a HELLO has a second"


def test_a_worker_that_was_suspended_blames_nobody() -> None:
    desk = Desk()
    desk.effects.clear()
    desk.now += 300.0
    desk.core.on_tick(desk.now)
    desk.turn()
    assert desk.wanted(e.Reconnect) == []
    assert desk.heard(m.WorkerPing), "but it asks at once whether the broker is there"


def test_hello_required_means_hello_on_the_same_socket() -> None:
    desk = Desk()
    desk.effects.clear()
    desk.heard(m.WorkerHello)
    desk.say(m.Nack("HELLO_REQUIRED", verb=8))
    assert len(desk.heard(m.WorkerHello)) == 1
    assert desk.wanted(e.Reconnect) == []


def test_a_dispatch_of_another_session_is_discarded() -> None:
    desk = Desk().dispatch(1, session=99)
    assert desk.started() == []


@pytest.mark.parametrize("code", ["SUPERSEDED", "DUPLICATE_WORKER_ID"])
def test_some_good_byes_are_for_ever(code: str) -> None:
    (gone,) = Desk().say(m.Bye(code, "the reason")).wanted(e.Exit)
    assert gone == e.Exit(3, "the reason")


def test_a_broker_that_shuts_down_is_waited_for() -> None:
    desk = Desk().say(m.Bye("SHUTTING_DOWN"))
    assert desk.wanted(e.Exit) == []
    desk.effects.clear()
    desk.tick(0.2)
    assert desk.wanted(e.Reconnect)


def test_the_epoch_and_the_store_are_remembered_and_said() -> None:
    desk = Desk()
    assert desk.wanted(e.Remember) == [e.Remember(b"s" * 16, 7)]
    desk.heard(m.WorkerHello)
    desk.say(m.Nack("HELLO_REQUIRED"))
    (hello,) = desk.heard(m.WorkerHello)
    assert (hello.info.highest_epoch, hello.info.store_id) == (7, b"s" * 16)


def test_another_store_at_the_same_address_is_noticed() -> None:
    desk = Desk()
    desk.wanted(e.Note)
    desk.say(m.Nack("HELLO_REQUIRED")).welcome(store=b"t" * 16, epoch=2)
    assert [note.level for note in desk.wanted(e.Note)][0] == "warning"
    assert desk.dispatch(1).started() == [1], "its tokens begin anew"


def test_an_offer_that_changes_is_said_in_a_new_hello() -> None:
    desk = Desk()
    desk.heard(m.WorkerHello)
    info = m.WorkerInfo("w", b"i" * 16, 0, [1], [("cpu", 2)], [("training", 1, 1)])
    desk.core.set_info(info, desk.now)
    (hello,) = desk.turn().heard(m.WorkerHello)
    assert (hello.info.kinds, hello.info.hello_seq) == ([("training", 1, 1)], 2)
    assert desk.welcome().dispatch(1, kind="training").started() == [1]


# ---------------------------------------------------------------- jobs


def test_the_life_of_a_job() -> None:
    desk = Desk().dispatch(1)
    assert desk.started() == [1]
    desk.tick(0.03)
    assert [ref.token for accept in desk.heard(m.Accept) for ref in accept.items] == [1]
    desk.end(1)
    (result,) = desk.heard(m.Result)
    assert (result.items[0].outcome, result.items[0].size, result.credit) == (Outcome.DONE, 1, [("cpu", 3)])
    assert desk.ack(1).wanted(e.Discard) == [e.Discard(1)]
    assert not desk.core.outbox.finished


def test_a_result_within_the_first_moment_implies_the_accept() -> None:
    desk = Desk().dispatch(1).end(1).tick(1.0)
    assert desk.heard(m.Accept) == []
    assert desk.results() == [(1, "done")]


def test_results_of_one_turn_go_in_one_message() -> None:
    desk = Desk("cpu=8").dispatch(*range(1, 9))
    for token in range(1, 9):
        desk.core.on_child(pipe.Ended(token, "done", 0.1, b"r"), desk.now)
    (result,) = desk.turn().heard(m.Result)
    assert len(result.items) == 8
    assert result.credit == [("cpu", 16)]


def test_large_results_are_split() -> None:
    desk = Desk("cpu=8").dispatch(*range(1, 9))
    for token in range(1, 9):
        desk.core.on_child(pipe.Ended(token, "done", 0.1, b"r" * 200_000), desk.now)
    results = desk.turn().heard(m.Result)
    assert [len(result.items) for result in results] == [2, 2, 2, 2], "half of the broker's 1 MiB each"
    assert [bool(result.credit) for result in results] == [False, False, False, True]


def test_a_dispatch_that_comes_twice_runs_once() -> None:
    desk = Desk().dispatch(5).end(5).ack(5).dispatch(5)
    assert desk.started() == [5]


@pytest.mark.parametrize(("spec", "tag"), [({"kind": "other"}, "cpu"), ({"kind": "echo", "schema": 2}, "cpu"), ({"kind": "echo"}, "gpu")])
def test_what_does_not_fit_is_turned_down(spec: dict[str, object], tag: str) -> None:
    desk = Desk().dispatch(1, tag=tag, **spec)
    assert (desk.started(), desk.rejects()) == ([], [(1, "UNFIT")])


def test_a_result_that_is_not_acknowledged_is_sent_again() -> None:
    desk = Desk().dispatch(1).end(1)
    assert desk.results() == [(1, "done")]
    for _ in range(4):
        desk.tick(1.9).say(m.Pong(1, 7))
    assert desk.results() == [(1, "done")]
    assert desk.ack(1).tick(1.0).results() == []


def test_progress_is_coalesced_and_the_latest_wins() -> None:
    desk = Desk().dispatch(1)
    for step in range(1, 11):
        desk.core.on_child(pipe.Progress(1, step / 100, "s", "", []), desk.now)
        desk.turn().tick(0.05)
    sent = [(item.seq, item.fraction) for message in desk.heard(m.Progress) for item in message.items]
    assert sent == [(1, 0.01), (2, 0.06)], "four a second"


def test_a_ping_names_what_has_run_for_long() -> None:
    desk = Desk().dispatch(1)
    for _ in range(6):
        desk.tick(2.0).say(m.Pong(1, 7))
    desk.heard(m.WorkerPing)
    assert desk.tick(2.0).heard(m.WorkerPing)[-1].tokens == [1]


# ---------------------------------------------------------------- waiting and feeding


def quick(slots: str = "cpu=1") -> Desk:
    """A desk that knows echo as a kind of a millisecond."""
    return Desk(slots).dispatch(1).end(1, run_s=0.001).ack(1)


def test_a_kind_that_is_not_known_to_be_short_waits_for_its_slot() -> None:
    desk = Desk("cpu=1").dispatch(1, 2)
    assert desk.started() == [1]
    assert desk.end(1, run_s=5.0).started() == [2]


def test_short_jobs_are_fed_ahead_and_spread() -> None:
    desk = quick("cpu=2")
    desk.wanted(e.StartJob)
    desk.dispatch(*range(10, 18))
    lanes = [effect.lane.index for effect in desk.wanted(e.StartJob)]
    assert sorted(lanes) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_gpu_slot_is_never_fed_ahead() -> None:
    desk = Desk("gpu=1").dispatch(1, tag="gpu")
    desk.end(1, run_s=0.001, closing=True)
    assert desk.credit() == {"gpu": 1}, "the slot is free when its process is gone, not before"
    desk.core.on_gone(desk.core.lanes.lanes["gpu"][0], __import__("ktrdr_worker.duties", fromlist=["Death"]).Death(""), desk.now)
    assert desk.turn().credit() == {"gpu": 2}
    desk.started()
    assert desk.dispatch(2, 3, tag="gpu").started() == [2]


def test_what_waits_behind_something_long_is_given_back() -> None:
    desk = quick().dispatch(2, 3, 4)
    desk.started()
    desk.tick(2.5)
    stops = desk.wanted(e.StopJob)
    assert [(stop.token, stop.interrupt) for stop in stops] == [(3, False), (4, False)]
    for token in (3, 4):
        desk.core.on_child(pipe.LeftOut(token), desk.now)
    assert desk.turn().rejects() == [(3, "PREFETCH_STALE"), (4, "PREFETCH_STALE")]
    assert desk.end(2, run_s=3.0).results() == [(1, "done"), (2, "done")]


def test_what_was_to_be_given_back_and_has_begun_can_be_drained() -> None:
    desk = quick().dispatch(2, 3)
    desk.started()
    desk.tick(2.5)
    assert [(stop.token, stop.interrupt) for stop in desk.wanted(e.StopJob)] == [(3, False)]
    desk.end(2, run_s=3.0)  # the child had begun the next one before the word came
    desk.core.begin_drain(desk.now)
    assert [(stop.token, stop.interrupt) for stop in desk.turn().wanted(e.StopJob)] == [(3, True)]


def test_a_queue_that_does_not_move_is_given_back() -> None:
    desk = Desk("cpu=1").dispatch(1, 2, 3).tick(2.5)
    assert desk.rejects() == [(2, "PREFETCH_STALE"), (3, "PREFETCH_STALE")]


def test_credit_counts_slots_not_jobs() -> None:
    desk = quick().dispatch(*range(2, 12))
    for token in range(2, 12):
        desk.end(token, run_s=0.001)
    assert desk.credit() == {"cpu": 1 + 11}


def test_a_new_session_counts_from_what_is_free() -> None:
    desk = Desk("cpu=2").dispatch(1)
    desk.sent.clear()
    desk.say(m.Nack("HELLO_REQUIRED")).welcome((1, "CONTINUE"))
    assert desk.credit() == {"cpu": 1}
    desk.end(1)
    assert desk.credit() == {"cpu": 2}


# ---------------------------------------------------------------- deaths


def test_a_crash_is_told_with_signal_and_tail() -> None:
    desk = Desk().dispatch(1).die(1, stderr_tail="Fatal Python error")
    (result,) = desk.heard(m.Result)
    failure = result.items[0].failure
    assert (result.items[0].outcome, failure.signal, failure.stderr_tail) == (Outcome.CRASHED, 11, "Fatal Python error")
    assert "SIGSEGV" in failure.message


def test_only_the_job_that_ran_is_charged_for_the_death_of_its_child() -> None:
    desk = quick().dispatch(2, 3, 4)
    desk.started()
    desk.heard(m.Result)
    desk.die(2)
    assert desk.results() == [(2, "crashed")]
    assert desk.started() == [3, 4], "the others begin anew"


def test_a_child_that_cannot_start_is_not_the_jobs_fault() -> None:
    desk = Desk().dispatch(1).die(1, began=False)
    assert (desk.results(), desk.rejects()) == ([], [(1, "CHILD_START_FAILED")])


def test_a_limit_is_an_error_of_the_job() -> None:
    desk = Desk().dispatch(1, memory_limit=1).die(1, verdict="It used more than its memory limit of 1 MiB.")
    (result,) = desk.heard(m.Result)
    assert result.items[0].outcome is Outcome.FAILED
    assert "memory limit" in result.items[0].failure.message


# ---------------------------------------------------------------- stopping


def cancel(token: int, grace: float = 1.0) -> m.Cancel:
    return m.Cancel([m.CancelItem(job_id(token), token, grace)])


def test_cancel_asks_then_kills() -> None:
    desk = Desk().dispatch(1).say(cancel(1))
    assert [(stop.token, stop.interrupt) for stop in desk.wanted(e.StopJob)] == [(1, True)]
    desk.tick(0.9)
    assert desk.wanted(e.KillChild) == []
    desk.tick(0.2)
    assert len(desk.wanted(e.KillChild)) == 1
    assert desk.results() == [], "nothing is said before the process is gone"
    assert desk.die(1).results() == [(1, "cancelled")]


def test_a_handler_that_listens_is_cancelled_without_force() -> None:
    desk = Desk().dispatch(1).say(cancel(1)).end(1, pipe.INTERRUPTED)
    assert desk.results() == [(1, "cancelled")]
    desk.tick(5.0)
    assert desk.wanted(e.KillChild) == []


def test_a_cancel_that_comes_twice_changes_nothing() -> None:
    desk = Desk().dispatch(1).say(cancel(1, 1.0)).tick(0.6).say(cancel(1, 1.0)).tick(0.6)
    assert len(desk.wanted(e.KillChild)) == 1


def test_cancel_of_a_waiting_job_needs_no_process() -> None:
    desk = Desk("cpu=1").dispatch(1, 2).say(cancel(2))
    assert desk.results() == [(2, "cancelled")]
    assert desk.started() == [1]


def test_cancel_of_a_job_that_never_came_says_that_nothing_runs() -> None:
    desk = Desk().say(cancel(9)).welcome((9, "SEND_RESULT"))
    assert desk.results() == [(9, "cancelled")]
    assert desk.dispatch(9).started() == [], "and it will not run when it comes after all"


def test_cancel_of_a_job_that_never_came_begins_a_new_session() -> None:
    """Its DISPATCH was lost: the broker counts a slot as taken that is free. A new session counts from nothing."""
    desk = Desk()
    desk.heard(m.WorkerHello)
    (hello,) = desk.say(cancel(9)).heard(m.WorkerHello)
    assert [ref.token for ref in hello.finished] == [9]


def test_the_answer_to_an_earlier_hello_is_not_taken_for_that_to_the_latest() -> None:
    """It was said twice by the network, and the latest HELLO was lost: the broker does not know what that one offered."""
    desk = Desk(live=False).tick()
    first = m.HelloOk(7, STORE, 1, 2.0, 10.0, 1 << 20, 1 << 18, hello_seq=1)
    desk.say(first).say(m.Nack("HELLO_REQUIRED"))
    assert desk.core.info.hello_seq == 2
    assert desk.say(first).core.link is not Link.LIVE
    assert desk.welcome().core.link is Link.LIVE


def test_a_ping_repeats_the_credit() -> None:
    desk = Desk("cpu=2,gpu=1")
    desk.dispatch(1, tag="gpu").tick(2.5)
    assert desk.heard(m.WorkerPing)[-1].credit == [("cpu", 2), ("gpu", 1)]


def test_a_ping_says_whether_it_is_drained() -> None:
    desk = Desk().say(m.Drain(True)).tick(2.5)
    assert desk.heard(m.WorkerPing)[-1].draining
    desk.say(m.Drain(False)).say(m.Pong(1, 7)).tick(2.5)
    assert not desk.heard(m.WorkerPing)[-1].draining


def test_a_hello_says_the_highest_token_that_was_seen() -> None:
    desk = Desk().dispatch(5).end(5).ack(5)
    desk.say(m.Nack("HELLO_REQUIRED"))
    assert desk.heard(m.WorkerHello)[-1].info.highest_token == 5
    recovered = Desk(live=False, recovered=[(m.ResultItem(job_id(8), 8, Outcome.DONE), b"")]).tick()
    assert recovered.heard(m.WorkerHello)[-1].info.highest_token == 8


def test_what_is_turned_down_between_hello_and_its_answer_is_said_afterwards() -> None:
    """HELLO has named the job, and the verdict is that it goes on: only REJECT says that it does not."""
    desk = Desk().dispatch(1, inputs=(("data", b"d" * 32),)).say(m.Nack("HELLO_REQUIRED"))
    desk.core.on_fetched(1, "no such artifact", desk.now)
    assert desk.welcome((1, "CONTINUE")).rejects() == [(1, "INPUT_UNAVAILABLE")]


def test_a_run_timeout_is_enforced_here() -> None:
    desk = Desk().dispatch(1, run_timeout=3.0)
    desk.tick(2.0).say(m.Pong(1, 7)).tick(1.1)
    assert [stop.token for stop in desk.wanted(e.StopJob)] == [1]
    desk.end(1, pipe.INTERRUPTED)
    (result,) = desk.heard(m.Result)
    assert result.items[0].outcome is Outcome.TIMED_OUT
    assert "limit of 3 s" in result.items[0].failure.message


def test_a_job_that_is_done_in_spite_of_its_timeout_is_done() -> None:
    desk = Desk().dispatch(1, run_timeout=1.0).tick(1.1).end(1)
    assert desk.results() == [(1, "done")]


def test_killing_one_job_does_not_charge_the_next() -> None:
    desk = quick().dispatch(2, 3)
    desk.started()
    desk.heard(m.Result)
    desk.say(cancel(2, 0.5)).tick(0.6)
    assert len(desk.wanted(e.KillChild)) == 1
    desk.end(2, pipe.INTERRUPTED)  # it had ended when the signal was on its way
    assert desk.results() == [(2, "cancelled")]
    desk.die(3)
    assert (desk.results(), desk.started()) == ([], [3])


# ---------------------------------------------------------------- artifacts and checkpoints


def test_artifacts_go_before_the_result() -> None:
    desk = Desk().dispatch(1).end(1, artifacts=[LOG])
    assert desk.wanted(e.Upload) == [e.Upload(1, [LOG])]
    assert desk.results() == []
    assert desk.credit() == {"cpu": 3}, "the slot is free meanwhile"
    desk.core.on_uploaded(1, 0)
    (result,) = desk.turn().heard(m.Result)
    assert result.items[0].artifacts == [LOG]


def test_a_job_that_uploads_counts_as_running() -> None:
    desk = Desk().dispatch(1).end(1, artifacts=[LOG])
    desk.heard(m.WorkerHello)
    (hello,) = desk.say(m.Nack("HELLO_REQUIRED")).heard(m.WorkerHello)
    assert [ref.token for ref in hello.running] == [1]


def test_a_missing_artifact_is_uploaded_again() -> None:
    desk = Desk().dispatch(1).end(1, artifacts=[LOG])
    desk.core.on_uploaded(1, 0)
    desk.turn().ack(1, verdict="MISSING_ARTIFACT")
    assert desk.wanted(e.Upload) == [e.Upload(1, [LOG])] * 2
    desk.results()
    desk.core.on_uploaded(1, 0)
    assert desk.turn().results() == [(1, "done")]


def test_a_product_that_cannot_be_stored_fails_the_job() -> None:
    desk = Desk().dispatch(1).end(1, artifacts=[LOG])
    desk.core.on_uploaded(1, 0, "the disk is full")
    (result,) = desk.turn().heard(m.Result)
    assert (result.items[0].outcome, result.items[0].size) == (Outcome.FAILED, 0)
    assert "the disk is full" in result.items[0].failure.message


def test_inputs_are_fetched_before_the_child_begins() -> None:
    desk = Desk().dispatch(1, inputs=(("data", b"d" * 32),))
    (fetch,) = desk.wanted(e.Fetch)
    assert (fetch.digests, desk.started()) == ([b"d" * 32], [])
    desk.core.on_fetched(1, "", desk.now)
    assert desk.turn().started() == [1]


def test_inputs_that_cannot_be_had_are_a_reason_to_turn_the_job_down() -> None:
    desk = Desk().dispatch(1, inputs=(("data", b"d" * 32),))
    desk.core.on_fetched(1, "no such artifact", desk.now)
    assert desk.turn().rejects() == [(1, "INPUT_UNAVAILABLE")]
    assert desk.credit() == {"cpu": 3}


def test_a_checkpoint_is_uploaded_then_reported() -> None:
    desk = Desk().dispatch(1)
    desk.core.on_child(pipe.Checkpointed(1, 5, CKPT), desk.now)
    assert desk.turn().wanted(e.Upload) == [e.Upload(1, [CKPT], 5)]
    assert desk.heard(m.Checkpoint) == []
    desk.core.on_uploaded(1, 5)
    (report,) = desk.turn().heard(m.Checkpoint)
    assert (report.token, report.seq, report.artifact) == (1, 5, CKPT)


def test_of_many_checkpoints_the_newest_goes_next() -> None:
    desk = Desk().dispatch(1)
    for seq in (1, 2, 3):
        desk.core.on_child(pipe.Checkpointed(1, seq, CKPT), desk.now)
    desk.turn()
    desk.core.on_uploaded(1, 1)
    assert [upload.seq for upload in desk.turn().wanted(e.Upload)] == [1, 3]


def test_a_job_is_handed_back_after_its_last_checkpoint() -> None:
    desk = Desk().dispatch(1)
    desk.core.on_child(pipe.Checkpointed(1, 1, CKPT), desk.now)
    desk.say(m.Drain(stop=True)).end(1, pipe.INTERRUPTED)
    assert desk.results() == []
    desk.core.on_uploaded(1, 1)
    order = [type(message) for message in desk.turn().sent if isinstance(message, m.Checkpoint | m.Result)]
    assert order == [m.Checkpoint, m.Result]
    assert desk.results() == [(1, "handed_back")]


# ---------------------------------------------------------------- reconnecting


@pytest.mark.parametrize(("verdict", "after"), [("CONTINUE", [(1, "done")]), ("ABORT", [])])
def test_the_verdict_on_a_running_job(verdict: str, after: list[tuple[int, str]]) -> None:
    desk = Desk().dispatch(1)
    desk.heard(m.WorkerHello)
    (hello,) = desk.say(m.Nack("HELLO_REQUIRED")).heard(m.WorkerHello)
    assert [ref.token for ref in hello.running] == [1]
    desk.welcome((1, verdict)).tick(0.1)
    assert bool(desk.wanted(e.KillChild)) == (verdict == "ABORT")
    if verdict == "ABORT":
        desk.die(1)
        assert desk.wanted(e.Discard) == [e.Discard(1)]
    else:
        desk.end(1)
    assert desk.results() == after
    assert not desk.core.duties.jobs


@pytest.mark.parametrize(("verdict", "after"), [("SEND_RESULT", [(1, "done")]), ("FORGET", [])])
def test_the_verdict_on_a_finished_job(verdict: str, after: list[tuple[int, str]]) -> None:
    desk = Desk().dispatch(1).end(1)
    desk.results()
    desk.heard(m.WorkerHello)
    (hello,) = desk.say(m.Nack("HELLO_REQUIRED")).heard(m.WorkerHello)
    assert [ref.token for ref in hello.finished] == [1]
    assert desk.welcome((1, verdict)).results() == after


def test_a_job_that_ends_while_there_is_no_session_is_told_in_the_next() -> None:
    desk = Desk().dispatch(1).say(m.Nack("HELLO_REQUIRED")).end(1)
    assert desk.results() == []
    assert desk.welcome((1, "CONTINUE")).results() == [(1, "done")]


def test_what_has_not_begun_is_not_claimed() -> None:
    desk = Desk("cpu=1").dispatch(1, 2)
    desk.heard(m.WorkerHello)
    (hello,) = desk.say(m.Nack("HELLO_REQUIRED")).heard(m.WorkerHello)
    assert [ref.token for ref in hello.running] == [1]
    desk.welcome((1, "CONTINUE"))
    assert 2 not in desk.core.duties.jobs


def test_results_of_an_earlier_process_are_announced() -> None:
    item = m.ResultItem(job_id(3), 3, Outcome.FAILED, 0, 9.0, [], Failure("E", "text"))
    desk = Desk(live=False, recovered=[(item, b"")]).tick()
    (hello,) = desk.heard(m.WorkerHello)
    assert [ref.token for ref in hello.finished] == [3]
    assert desk.welcome((3, "SEND_RESULT")).results() == [(3, "failed")]


def test_jobs_go_on_through_a_long_silence() -> None:
    desk = Desk().dispatch(1)
    desk.started()
    desk.tick(60.0)
    assert not desk.wanted(e.KillChild) + desk.wanted(e.StopJob)
    desk.welcome((1, "CONTINUE"))
    assert desk.end(1).results() == [(1, "done")]


# ---------------------------------------------------------------- drain


def test_a_cordon_turns_new_jobs_down_and_ends() -> None:
    desk = Desk().dispatch(1).say(m.Drain(on=True)).dispatch(2)
    assert desk.rejects() == [(2, "DRAINING")]
    desk.end(1)
    assert len(desk.heard(m.Drained)) == 1
    assert desk.wanted(e.Exit) == []
    desk.started()
    assert desk.say(m.Drain(on=False)).dispatch(3).started() == [3]


def test_sigterm_hands_everything_back_and_leaves() -> None:
    desk = Desk("cpu=1").dispatch(1, 2)
    desk.heard(m.WorkerHello)
    desk.core.begin_drain(desk.now)
    (hello,) = desk.turn().heard(m.WorkerHello)
    assert hello.info.draining
    assert [ref.token for ref in hello.running] == [1]
    assert [stop.token for stop in desk.wanted(e.StopJob)] == [1]
    desk.welcome((1, "CONTINUE")).end(1, pipe.INTERRUPTED)
    assert desk.results() == [(1, "handed_back")]
    assert desk.wanted(e.Exit) == [], "not before the broker has recorded it"
    desk.ack(1)
    assert len(desk.heard(m.WorkerBye)) == 1
    assert desk.wanted(e.Exit) == [e.Exit(0, "")]


def test_a_drain_kills_what_does_not_listen() -> None:
    desk = Desk(drain_grace=1.0).dispatch(1)
    desk.core.begin_drain(desk.now)
    desk.turn().welcome((1, "CONTINUE")).tick(1.1)
    assert len(desk.wanted(e.KillChild)) == 1
    assert desk.die(1).results() == [(1, "handed_back")]


def test_without_a_broker_an_idle_worker_leaves_soon_and_results_stay() -> None:
    desk = Desk(live=False).tick()
    desk.core.begin_drain(desk.now)
    desk.turn().tick(1.5)
    assert [leaving.code for leaving in desk.wanted(e.Exit)] == [0]
    item = m.ResultItem(job_id(3), 3, Outcome.DONE)
    desk = Desk(live=False, recovered=[(item, b"")]).tick()
    desk.core.begin_drain(desk.now)
    desk.turn().tick(5.0)
    assert desk.wanted(e.Exit) == []
    desk.tick(6.0)
    assert desk.heard(m.WorkerBye) == []
    assert [leaving.code for leaving in desk.wanted(e.Exit)] == [0]


# ---------------------------------------------------------------- whatever happens

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["dispatch", "end", "die", "cancel", "ack", "hello", "tick", "interrupt", "leave out", "fetch"]),
        st.integers(0, 9),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, slots=st.sampled_from(["cpu=1", "cpu=2,gpu=1"]))
def test_every_job_gets_exactly_one_end(steps: list[tuple[str, int]], slots: str) -> None:
    """Whatever comes in whatever order: invariants hold, and when all is over each job was answered once."""
    desk = Desk(slots)
    token, answered = 0, dict[int, str]()
    claimed: list[int] = []
    for what, number in steps:
        running = [job for job in desk.core.duties.jobs.values() if job.lane is not None and job.phase.name == "IN_LANE"]
        firsts = [job for job in running if job.lane is not None and job.lane.jobs[0] is job]
        if what == "dispatch":
            count = 1 + number % 4
            desk.dispatch(*range(token + 1, token + 1 + count), inputs=(("d", b"d" * 32),) if number == 9 else ())
            token += count
        elif what == "tick":
            desk.tick(number / 3)
            if desk.core.link.name == "GREETING":
                desk.welcome(*[(token, "CONTINUE") for token in claimed])
        elif what == "hello":
            desk.say(m.Nack("HELLO_REQUIRED"))
            claimed = [ref.token for hello in desk.heard(m.WorkerHello) for ref in hello.running]
            desk.welcome(*[(token, "CONTINUE") for token in claimed])
        elif what == "ack":
            desk.ack(*list(desk.core.outbox.finished)[:number])
        elif what == "fetch":
            for job in list(desk.core.duties.jobs.values()):
                desk.core.on_fetched(job.token, "gone" if number == 0 else "", desk.now)
            desk.turn()
        elif firsts:
            job = firsts[number % len(firsts)]
            if what == "end":
                desk.end(job.token, run_s=0.001 * number)
            elif what == "die":
                desk.die(job.token)
            elif what == "interrupt":
                desk.end(job.token, pipe.INTERRUPTED)
            elif what == "cancel":
                desk.say(cancel(job.token, 0.5))
            else:
                for other in running:
                    if other not in firsts and other.stop is not None:
                        desk.core.on_child(pipe.LeftOut(other.token), desk.now)
                desk.turn()
        for seen, outcome in desk.results():
            assert answered.setdefault(seen, outcome) == outcome, "an outcome never changes"
        for seen, code in desk.rejects():
            assert seen not in answered, "rejected after its outcome was told"
            answered[seen] = code
    for _ in range(200):
        for job in list(desk.core.duties.jobs.values()):
            desk.core.on_fetched(job.token, "", desk.now)
        desk.turn()
        for lane in desk.core.lanes:
            if lane.killing or lane.closing:
                desk.core.on_gone(lane, Death("killed by signal 9 (SIGKILL)", signal=9), desk.now)
                desk.turn()
            elif lane.jobs:
                desk.end(lane.jobs[0].token)
        if not desk.core.duties.jobs:
            break
    assert not desk.core.duties.jobs
    if desk.core.link.name == "LIVE":
        assert desk.core._granted == {tag: len(lanes) + desk.core._dispatched[tag] for tag, lanes in desk.core.lanes.lanes.items()}


def test_a_broker_that_never_answers_is_told_of_once() -> None:
    desk = Desk(live=False)
    desk.tick(12.0)
    assert [note.level for note in desk.wanted(e.Note)] == ["warning"]
