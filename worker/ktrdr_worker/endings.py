"""Jobs that are over, with artifacts or a last checkpoint still on their way to the broker: those go first, then the outcome. Pure."""

from __future__ import annotations

from ktrdr_worker.checkpoints import Checkpoints
from ktrdr_worker.effects import Effect, Note, Send, Upload
from ktrdr_worker.lanes import Assignment, Phase
from ktrdr_worker.outbox import Outbox
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Failure, JobSpec, Outcome


class _Ending:
    """The outcome of one job, and whether its artifacts are stored."""

    __slots__ = ("body", "item", "stored")

    def __init__(self, item: m.ResultItem, body: bytes, *, stored: bool) -> None:
        self.item = item
        self.body = body
        self.stored = stored

    def give_up_artifacts(self, error: str) -> None:
        """The broker will not have them: a success without its products is none."""
        self.item.artifacts = []
        if self.item.outcome is Outcome.DONE:
            self.item.outcome, self.item.size, self.body = Outcome.FAILED, 0, b""
            self.item.failure = Failure("ArtifactError", f"What the job produced could not be stored: {error}")


class Endings:
    """All jobs that are over and not yet finished. They stay in the book, ``jobs``, until their outcome is in the outbox."""

    def __init__(self, jobs: dict[int, Assignment], checkpoints: Checkpoints, outbox: Outbox) -> None:
        self._jobs = jobs
        self._checkpoints = checkpoints
        self._outbox = outbox
        self._waiting: dict[int, _Ending] = {}

    def begin(self, job: Assignment, item: m.ResultItem, body: bytes, now: float) -> list[Effect]:
        """An attempt is over: its artifacts and last checkpoint go first, then the result."""
        job.body = b""
        if item.outcome in (Outcome.DONE, Outcome.FAILED):
            self._checkpoints.drop(job.token)
        ending = _Ending(item, body, stored=not item.artifacts)
        if ending.stored and not self._checkpoints.pending(job.token):
            self._finish(job.token, ending)
            return []
        if not job.accepted:
            self._outbox.accept(job, now)
        return self._wait(job, ending)

    def uploaded(self, token: int, seq: int, error: str) -> list[Effect]:
        """Artifacts, or the checkpoint ``seq``, are stored at the broker (``error`` empty), or never will be."""
        if seq:
            if error:
                self._checkpoints.drop(token)
                return [Note("warning", f"A checkpoint could not be stored: {error}")]
            self._checkpoints.uploaded(token, seq)
            return []
        ending = self._waiting.get(token)
        if ending is not None:
            ending.stored = True
            if error:
                ending.give_up_artifacts(error)
            if not self._checkpoints.pending(token):
                self._finish(token, ending)
        return []

    def reports(self, session: int) -> tuple[list[Send], list[Upload]]:
        """CHECKPOINT messages to send now, before any result, and uploads that waited for them; who waited for the last one is finished."""
        sends, uploads = self._checkpoints.reports(session)
        for token, ending in list(self._waiting.items()):
            if ending.stored and not self._checkpoints.pending(token):
                self._finish(token, ending)
        return sends, uploads

    def resume(self, token: int) -> list[Effect]:
        """The broker lacks artifacts of a result that it was sent, or of a checkpoint: upload them once more."""
        entry = self._outbox.settle(token)
        if entry is None:
            return [*self._checkpoints.again(token)]
        job = self._jobs[token] = Assignment(entry.item.job_id, token, 0, "", JobSpec(""), b"", None, 0.0)
        return self._wait(job, _Ending(entry.item, entry.body, stored=False))

    def drop(self, token: int) -> None:
        """Nobody wants to hear of the job any more."""
        self._waiting.pop(token, None)

    def _wait(self, job: Assignment, ending: _Ending) -> list[Effect]:
        job.phase = Phase.UPLOADING
        self._waiting[job.token] = ending
        return [] if ending.stored else [Upload(job.token, ending.item.artifacts)]

    def _finish(self, token: int, ending: _Ending) -> None:
        self._jobs.pop(token, None)
        self._waiting.pop(token, None)
        self._checkpoints.drop(token)
        self._outbox.finish(ending.item, ending.body)
