"""Deliberate bugs as edits of the source: one function, a piece of its text, and what stands there instead.

The piece must be there exactly once. If the source changes, the edit fails its test, and whoever changed it finds the bug a new place.
"""

from __future__ import annotations
import __future__

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ktrdr_broker import leases, ledger, queues, workerdesk
from ktrdr_worker import core, duties, lanes
from ktrdr_zmq import events, session
from tests.sim.mutating import replaced

Desk, Leases = workerdesk.WorkerDesk, leases.Leases


class Edit(NamedTuple):
    """A bug, and what it breaks."""

    name: str
    breaks: str
    function: Callable[..., Any]
    old: str
    new: str
    also: tuple[Callable[..., Any], str, str] | None = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """The bug is there as long as this lasts."""
        with contextlib.ExitStack() as stack:
            for change in ((self.function, self.old, self.new), self.also):
                if change is not None:
                    stack.enter_context(edited(self.name, *change))
            yield


def edited(title: str, function: Callable[..., Any], old: str, new: str) -> contextlib.AbstractContextManager[None]:
    """A function with one piece of its source changed."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{title}: {old!r} is not once in {function.__qualname__}"
    made: dict[str, Any] = {}
    exec(compile(source.replace(old, new), title, "exec", __future__.annotations.compiler_flag), function.__globals__, made)
    module, (*owners, name) = sys.modules[function.__module__], function.__qualname__.split(".")
    return replaced(getattr(module, owners[0]) if owners else module, name, made[name])


EDITS = (
    Edit("outcomes_acknowledged_before_the_commit", "RESULT_ACK overtakes a commit that fails.", Desk._result,
         "m.ResultAck(verdicts))", "m.ResultAck(verdicts), urgent=True)"),
    Edit("checkpoints_acknowledged_and_not_saved", "CHECKPOINT_ACK without the checkpoint.", Desk._checkpoint,
         "self._ledger.replace_checkpoint(job, message.artifact, message.seq)", "pass"),
    Edit("checkpoints_without_a_token", "A zombie overwrites its successor's checkpoint.", Desk._checkpoint,
         "job = self._leases.owned(message.job_id, message.token)", "job = self._ledger.jobs.get(message.job_id)"),
    Edit("attempts_that_begin_anew", "The next attempt does not get the checkpoint.", Leases.dispatch,
         "len(job.body), job.checkpoint))", "len(job.body), None))"),
    Edit("results_judged_by_their_session", "What a stale session has finished is thrown away.", Leases.outcome,
         "job = self.owned(item.job_id, item.token)", "job = self.owned(item.job_id, item.token) if worker is not None else None"),
    Edit("results_counted_twice", "A repeated RESULT of a job that waits again counts once more.", Leases.owned,
         "(job.state is JobState.QUEUED and job.reason == Reason.WORKER_LOST)", "job.state is JobState.QUEUED"),
    Edit("no_grace", "A restarted broker gives running jobs to others at once.", Leases.restore,
         "self._hold(job, self._registry.expect(job, ledger.now))",
         "self.lost(self._hold(job, self._registry.expect(job, ledger.now)), Reason.WORKER_LOST)"),
    Edit("stalls_blamed_on_workers", "A broker that stood still takes everybody for dead.", Desk.excuse,
         "worker.last_seen = min(worker.last_seen + stall, self._ledger.now)", "pass"),
    Edit("run_time_counts_for_nothing", "A long training is given up as soon as a short job.", Leases.presume_dead,
         "max(wanted, config.dead_after)", "config.dead_after"),
    Edit("work_for_drained_workers", "A drained worker gets jobs.", queues._slot_misfit,
         "if worker.draining or worker.cordoned:", "if False:"),
    Edit("pauses_ignored", "Jobs are given away although dispatch is paused.", queues.Queues.assign,
         "if self.paused or not self._lines:", "if not self._lines:"),
    Edit("clones_take_over", "A cloned container kills a training.", Desk._admits,
         "if (info.host, address) != (worker.info.host, worker.address):", "if False:"),
    Edit("poison_without_a_limit", "A poison job kills child after child.", Leases._crashed,
         "if job.crashes >= job.spec.max_crashes:", "if False:"),
    Edit("losses_without_a_limit", "A job may lose any number of workers.", Leases.lost,
         "if job.losses > job.spec.max_losses:", "if False:"),
    Edit("retries_without_a_limit", "A handler may ask for ever to be tried again.", Leases._retry_later,
         "if job.retries > config.max_retries:", "if False:"),
    Edit("losses_counted_as_crashes", "A lost worker is charged to the job.", Leases.lost,
         "job.losses += 1", "job.losses += 1; job.crashes += 1"),
    Edit("cancelled_jobs_come_back", "A job that was being cancelled runs again when its worker is lost.", Leases.lost,
         "if job.state is JobState.CANCELLING:", "if False:"),
    Edit("late_outcomes_obeyed", "A job that was being cancelled ends as its worker says.", Leases._record,
         "if job.state is JobState.CANCELLING:", "if False:"),
    Edit("named_garbage", "Artifacts are deleted that rows name.", ledger.Ledger.collect_garbage, "if not self.users.get(d) and ", "if "),
    Edit("checkpoints_nobody_keeps", "The checkpoint that a resumed job goes on from is garbage.", ledger.Ledger.add,
         "if job.spec.inputs or job.checkpoint is not None:", "if job.spec.inputs:"),
    Edit("inputs_unchecked", "A job is accepted whose inputs are not stored.", ledger.Ledger.missing,
         "return [digest for digest in digests if digest not in self.artifacts]", "return []"),
    Edit("older_copies_go_on", "A restored database forgets what was acknowledged, and nobody notices.", Desk._seen_before,
         "epoch, token = info.highest_epoch, info.highest_token", "epoch, token = 0, 0"),
    Edit("zombies_may_go_on", "A worker is told to go on with a job that was given to another.", Desk._reconcile,
         'm.Verdict(ref.job_id, ref.token, "ABORT")', 'm.Verdict(ref.job_id, ref.token, "CONTINUE")'),
    Edit("returning_workers_are_not_believed", "A worker that was cut off loses its job.", Desk._reconcile,
         "for ref in hello.running:\n        job = leases.owned(ref.job_id, ref.token)", "for ref in hello.running:\n        job = None"),
    Edit("grants_said_once", "A slot whose grant was lost is never used again.", Desk._ping, "worker.grant(ping.credit)", "pass"),
    Edit("lost_dispatches_unnoticed", "The slot of a DISPATCH that was lost and cancelled is never used again.", core.WorkerCore._cancel,
         "self._hello(now)", "pass"),
    Edit("cancels_not_obeyed", "A worker takes no notice of CANCEL.", core.WorkerCore._cancel,
         "self.duties.stop(item.token, Stop.CANCEL, item.grace, now)", "pass"),
    Edit("finished_work_unnamed", "HELLO does not name results that are on disk.", core.WorkerCore._hello,
         "for entry in self.outbox.finished.values()]", "for entry in ()]"),
    Edit("stale_dispatches_obeyed", "A worker takes jobs that an earlier session was given.", core.WorkerCore.on_message,
         "if self.link is Link.LIVE and message.session == self.session:", "if True:"),
    Edit("good_bye_with_results_in_hand", "A worker says BYE before its results are acknowledged.", core.WorkerCore._drained,
         "if not self.outbox.finished and self.link is Link.LIVE:", "if self.link is Link.LIVE:"),
    Edit("slots_free_before_their_process", "A slot is granted while its process is still being replaced.", lanes.Lanes.outstanding,
         "len(lane.jobs) or lane.busy", "len(lane.jobs)"),
    Edit("drains_are_charged", "A job that was handed back counts as crashed.", duties.Duties._interrupted,
         "outcome = Outcome.HANDED_BACK", "outcome = Outcome.CRASHED"),
    Edit("neighbours_are_charged", "Jobs behind one whose child died are charged as well.", duties.Duties.on_gone,
         "self.lanes.queues[job.tag].appendleft(job)", "self._bury(job, death, run_s, now)"),
    Edit("deaf_clients", "A client takes no notice when it is asked for HELLO.", session.ClientSession._refused,
         "self._hello(now)", "pass"),
    Edit("events_trusted", "A lost event is never made good.", events.Tracker.due,
         "if watched.acknowledged and watched.heard_at <= horizon:", "if False:"),
    Edit("impatience", "Whoever is silent for three intervals is dead.", Desk.watch, "silent > config.dead_after", "silent > 3.0",
         also=(Leases.presume_dead, "worker.last_seen + max(wanted, config.dead_after)", "0.0")),
)  # fmt: skip
