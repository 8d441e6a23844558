"""What a worker has to tell the broker, gathered over one turn and sent in as few messages as possible. Pure.

Results stay here until the broker has acknowledged them; they are sent again in each new session, and after a while within one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ktrdr_worker import pipe
from ktrdr_worker.effects import Send
from ktrdr_worker.lanes import Assignment
from ktrdr_zmq import messages as m

Totals = list[tuple[str, int]]


class Finished:
    """An outcome that the broker has not acknowledged yet."""

    __slots__ = ("body", "due", "item", "tries")

    def __init__(self, item: m.ResultItem, body: bytes) -> None:
        self.item = item
        self.body = body
        self.due = 0.0
        self.tries = 0


class Outbox:
    """Accepts, rejections, progress and results on their way to the broker.

    Parameters
    ----------
    progress_every : float
        Seconds between two PROGRESS messages.
    resend_after : float
        Seconds after which an unacknowledged result is sent again; doubled each time.
    """

    def __init__(self, progress_every: float, resend_after: float) -> None:
        self._progress_every = progress_every
        self._resend_after = resend_after
        self._accepts: list[m.JobRef] = []
        self._rejects: list[m.RejectItem] = []
        self._progress: dict[int, tuple[Assignment, pipe.Progress]] = {}
        self._progress_due = 0.0
        self._fresh: list[Finished] = []
        self._resend_due = math.inf
        self.finished: dict[int, Finished] = {}

    # ------------------------------------------------------------ gathering

    def accept(self, job: Assignment, now: float) -> None:
        """The job has begun."""
        job.accepted = now
        self._accepts.append(m.JobRef(job.job_id, job.token))

    def reject(self, job_id: bytes, token: int, code: str, text: str = "") -> None:
        """The job will not run here."""
        self._rejects.append(m.RejectItem(job_id, token, code, text))

    def progress(self, job: Assignment, frame: pipe.Progress) -> None:
        """Keep the latest of each job."""
        self._progress[job.token] = (job, frame)

    def finish(self, item: m.ResultItem, body: bytes) -> None:
        """An attempt has ended, and its artifacts are stored."""
        self._progress.pop(item.token, None)
        entry = self.finished[item.token] = Finished(item, body)
        self._fresh.append(entry)

    def settle(self, token: int) -> Finished | None:
        """The broker has recorded the result, or does not want it."""
        return self.finished.pop(token, None)

    def greet(self) -> None:
        """HELLO is being said, and settles what has begun and what was turned down so far."""
        self._accepts.clear()
        self._rejects.clear()

    def renew(self) -> None:
        """A new session has begun: every result is said again."""
        self._fresh = list(self.finished.values())
        for entry in self._fresh:
            entry.tries = 0

    def forget_progress(self, token: int) -> None:
        """The job is over; nobody cares how far it was."""
        self._progress.pop(token, None)

    # ------------------------------------------------------------ sending

    def next_deadline(self) -> float:
        """When something is due that only time brings about."""
        resend = self._resend_due if self.finished else math.inf
        return min(resend, self._progress_due) if self._progress else resend

    def flush(self, session: int, now: float, totals: Totals | None, max_octets: int) -> list[Send]:
        """Everything that is to be sent now, in the order in which the broker should read it.

        Parameters
        ----------
        totals : list of (tag, number), optional
            Credit to grant; None if nothing has changed.
        max_octets : int
            Most octets of results in one message.
        """
        sends: list[Send] = []
        if self._accepts:
            still = [ref for ref in self._accepts if ref.token not in self.finished]  # RESULT implies ACCEPT
            self._accepts = []
            if still:
                sends.append(Send(m.Accept(session, still)))
        if self._rejects:
            sends.append(Send(m.Reject(session, self._rejects)))
            self._rejects = []
        if self._progress and now >= self._progress_due:
            sends.append(Send(m.Progress(session, self._take_progress())))
            self._progress_due = now + self._progress_every
        batches = self._batches(self._due(now), max_octets)
        for number, batch in enumerate(batches, 1):
            for entry in batch:
                entry.tries += 1
                entry.due = now + self._resend_after * 2 ** min(entry.tries - 1, 6)
                self._resend_due = min(self._resend_due, entry.due)
            result = m.Result(session, [entry.item for entry in batch])
            if number == len(batches) and totals:
                result.credit, totals = totals, None
            sends.append(Send(result, tuple([entry.body for entry in batch])))
        if totals:
            sends.append(Send(m.Credit(session, totals)))
        return sends

    def _take_progress(self) -> list[m.ProgressItem]:
        items = []
        for job, frame in self._progress.values():
            job.progress_seq += 1
            items.append(m.ProgressItem(job.job_id, job.token, job.progress_seq, frame.fraction, frame.stage, frame.text, frame.metrics))
        self._progress.clear()
        return items

    def _due(self, now: float) -> list[Finished]:
        """Fresh results, and those that wait for an acknowledgement for too long."""
        due = [entry for entry in self._fresh if entry.item.token in self.finished]
        self._fresh = []
        if now >= self._resend_due:
            waiting = [entry for entry in self.finished.values() if entry.tries]
            late = [entry for entry in waiting if entry.due <= now and entry not in due]
            self._resend_due = min((entry.due for entry in waiting if entry.due > now), default=math.inf)
            due += late
        return due

    @staticmethod
    def _batches(entries: Sequence[Finished], max_octets: int) -> list[list[Finished]]:
        batches: list[list[Finished]] = []
        octets = 0
        for entry in entries:
            size = len(entry.body) + 400
            if entry.item.failure is not None:
                size += len(entry.item.failure.traceback) + len(entry.item.failure.stderr_tail)
            if not batches or octets + size > max_octets or len(batches[-1]) >= 1000:
                batches.append([])
                octets = 0
            batches[-1].append(entry)
            octets += size
        return batches
