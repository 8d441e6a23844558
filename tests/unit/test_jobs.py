"""The table of states, and the names that docs, database and wire share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_zmq.jobs import (
    HELD,
    JOB_ID_SIZE,
    LANE_SIZE,
    TERMINAL,
    TRANSITIONS,
    Device,
    JobSpec,
    JobState,
    Outcome,
    Reason,
    job_topic,
    lane,
    lane_topic,
    no_workers_text,
)


def reachable(start: JobState) -> set[JobState]:
    found: set[JobState] = set()
    coming = [start]
    while coming:
        for state in TRANSITIONS[coming.pop()] - found:
            found.add(state)
            coming.append(state)
    return found


def test_the_table_speaks_of_every_state_and_of_no_other() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert set().union(*TRANSITIONS.values()) <= set(JobState)


def test_nothing_leaves_a_terminal_state() -> None:
    assert all(TRANSITIONS[state] == frozenset() for state in TERMINAL)
    assert {state for state, following in TRANSITIONS.items() if not following} == TERMINAL


def test_no_state_leads_to_itself() -> None:
    assert [state for state, following in TRANSITIONS.items() if state in following] == []


@pytest.mark.parametrize("state", sorted(set(JobState) - TERMINAL))
def test_every_job_can_end(state: JobState) -> None:
    assert reachable(state) & TERMINAL


def test_every_end_can_be_reached() -> None:
    assert reachable(JobState.QUEUED) >= TERMINAL


def test_a_cancellation_ends_in_nothing_but_cancelled() -> None:
    assert reachable(JobState.CANCELLING) == {JobState.CANCELLED}


def test_what_waits_does_not_end_done_or_failed() -> None:
    """A result needs a lease: a job is taken up again before its outcome is recorded."""
    assert TRANSITIONS[JobState.QUEUED].isdisjoint({JobState.RUNNING, JobState.DONE, JobState.FAILED, JobState.CANCELLING})


def test_a_lease_exists_between_waiting_and_the_end() -> None:
    assert set(JobState) - TERMINAL - HELD == {JobState.QUEUED}


@pytest.mark.parametrize("names", [JobState, Outcome, Device])
def test_words_on_the_wire_are_lower_case(names: type) -> None:
    assert all(name.value == name.name.lower() for name in names)  # type: ignore[attr-defined]


def test_reasons_are_their_own_names() -> None:
    assert all(reason.value == reason.name for reason in Reason)


def test_texts_for_a_cluster_without_workers() -> None:
    assert no_workers_text("training") == "No training workers available. Start GPU or CPU training workers."
    assert no_workers_text("backtesting") == "No workers available for backtesting. Start a backtesting worker."
    assert no_workers_text("echo") == "No workers available for echo. Start a worker that offers echo."


def test_a_job_that_says_nothing_gets_modest_defaults() -> None:
    spec = JobSpec("echo")
    assert (spec.device, spec.threads, spec.max_crashes, spec.max_losses, spec.queue) == (Device.AUTO, 1, 3, 20, False)
    assert (spec.run_timeout, spec.queue_timeout, spec.gpu_wait, spec.memory_limit) == (0, 0, 0, 0)


@given(job_id=st.binary(min_size=JOB_ID_SIZE, max_size=JOB_ID_SIZE))
def test_a_lane_is_a_prefix_of_the_topics_of_its_jobs(job_id: bytes) -> None:
    topic = job_topic(job_id)
    assert len(lane(job_id)) == LANE_SIZE
    assert topic.startswith(lane_topic(lane(job_id)))
    assert topic == b"j.%s.%s." % (job_id[-LANE_SIZE:].hex().encode(), job_id.hex().encode())


@given(first=st.binary(min_size=JOB_ID_SIZE, max_size=JOB_ID_SIZE), second=st.binary(min_size=JOB_ID_SIZE, max_size=JOB_ID_SIZE))
def test_no_topic_is_a_prefix_of_another(first: bytes, second: bytes) -> None:
    assert first == second or not job_topic(first).startswith(job_topic(second))
    assert lane(first) == lane(second) or not job_topic(first).startswith(lane_topic(lane(second)))
