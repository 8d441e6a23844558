"""Checkpoints between a job and the broker: upload, report, acknowledgement; the newest replaces what waits. Pure."""

from __future__ import annotations

from ktrdr_worker.effects import Send, Upload
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Artifact


class _Line:
    """The checkpoints of one job. At most one is under way, and one waits."""

    __slots__ = ("artifact", "job_id", "reported", "seq", "uploaded", "waiting")

    def __init__(self, job_id: bytes, seq: int, artifact: Artifact) -> None:
        self.job_id = job_id
        self.seq = seq
        self.artifact = artifact
        self.uploaded = False
        self.reported = False
        self.waiting: tuple[int, Artifact] | None = None


class Checkpoints:
    """All checkpoints that the broker has not acknowledged."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}

    def saved(self, job_id: bytes, token: int, seq: int, artifact: Artifact) -> list[Upload]:
        """A job has saved one: upload it, after the one that is being uploaded."""
        line = self._lines.get(token)
        if line is not None and not line.uploaded:
            line.waiting = (seq, artifact)
            return []
        self._lines[token] = _Line(job_id, seq, artifact)
        return [Upload(token, [artifact], seq)]

    def uploaded(self, token: int, seq: int) -> None:
        """It is stored; `reports` tells the broker."""
        line = self._lines.get(token)
        if line is not None and line.seq == seq:
            line.uploaded = True

    def reports(self, session: int) -> tuple[list[Send], list[Upload]]:
        """CHECKPOINT messages that are to be sent now, and the uploads that had to wait for them."""
        sends: list[Send] = []
        uploads: list[Upload] = []
        for token, line in list(self._lines.items()):
            if line.uploaded and not line.reported:
                line.reported = True
                sends.append(Send(m.Checkpoint(session, line.job_id, token, line.seq, line.artifact)))
                if line.waiting is not None:
                    uploads += self.saved(line.job_id, token, *line.waiting)
        return sends, uploads

    def acknowledged(self, token: int, seq: int) -> None:
        """The broker has it, or will never want it."""
        line = self._lines.get(token)
        if line is not None and line.seq == seq:
            del self._lines[token]

    def again(self, token: int) -> list[Upload]:
        """The broker misses the artifact: upload it once more."""
        line = self._lines.get(token)
        if line is None or not line.uploaded:
            return []
        line.uploaded = line.reported = False
        return [Upload(token, [line.artifact], line.seq)]

    def renew(self) -> None:
        """A new session: report again what was not acknowledged."""
        for line in self._lines.values():
            line.reported = False

    def pending(self, token: int) -> bool:
        """Whether something of this job must be reported before its end is."""
        line = self._lines.get(token)
        return line is not None and not line.reported

    def drop(self, token: int) -> None:
        """The job is over, and so are its checkpoints."""
        self._lines.pop(token, None)

    def __bool__(self) -> bool:
        return bool(self._lines)
