"""The one tree of errors that a person or a program meets.

Each class says in its docstring what happened; the docstring's first line is the default message. ``exit_code`` is what the
command line returns, ``code`` is the machine-readable word in ``--json`` output and in NACKs, ``hint`` says what to do next.
This module imports nothing of the project, so that every room can raise from it.
"""

from __future__ import annotations

from typing import Any, ClassVar

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_UNREACHABLE = 4
EXIT_CANCELLED = 5
EXIT_TIMED_OUT = 6
EXIT_INTERRUPTED = 130


class KtrdrError(Exception):
    """Something went wrong in ktrdr-zmq."""

    code: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = EXIT_FAILED
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str = "", *, hint: str = "", code: str = "") -> None:
        text = message or (type(self).__doc__ or "").strip().partition("\n")[0]
        super().__init__(text)
        self.message = text
        self.hint = hint or self.default_hint
        if code:
            self.code = code  # type: ignore[misc]  # one instance may carry a finer code than its class

    def as_dict(self) -> dict[str, Any]:
        """The form printed on stderr by ``--json`` commands."""
        return {"error": self.message, "code": self.code, "hint": self.hint}


class UsageError(KtrdrError):
    """The command or call was given something it cannot use."""

    code = "USAGE"
    exit_code = EXIT_USAGE


class ConfigError(UsageError):
    """The configuration is wrong."""

    code = "CONFIG"


class UnknownJob(UsageError):
    """No job has this id."""

    code = "UNKNOWN_JOB"
    default_hint = "See the jobs there are with: ktrdr jobs list"


class AmbiguousJob(UsageError):
    """Several jobs begin with this id."""

    code = "AMBIGUOUS_JOB"
    default_hint = "Give more digits of the id."


class ProtocolError(KtrdrError):
    """A peer sent something that does not follow the protocol."""

    code = "BAD_FRAME"

    def __init__(self, message: str = "", *, hint: str = "", code: str = "", verb: int = 0) -> None:
        super().__init__(message, hint=hint, code=code)
        self.verb = verb


class PayloadError(KtrdrError):
    """A job or result body cannot be encoded or decoded."""

    code = "BAD_PAYLOAD"
    exit_code = EXIT_USAGE


class NewerSchema(KtrdrError):
    """A document was written by a newer release than this one."""

    code = "NEWER_SCHEMA"
    exit_code = EXIT_USAGE
    default_hint = "Upgrade ktrdr-zmq here."


class BrokerUnreachable(KtrdrError):
    """The broker does not answer."""

    code = "BROKER_UNREACHABLE"
    exit_code = EXIT_UNREACHABLE


class Refused(KtrdrError):
    """The broker refused the request.

    Attributes
    ----------
    retryable : bool
        Whether the same request may be accepted later.
    retry_after : float
        Seconds after which to try again; 0 where the broker gave none.
    """

    code = "REFUSED"
    exit_code = EXIT_REFUSED

    def __init__(self, message: str = "", *, hint: str = "", code: str = "", retryable: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(message, hint=hint, code=code)
        self.retryable = retryable
        self.retry_after = retry_after


class NoCapableWorker(Refused, RuntimeError):
    """No connected worker can run this kind of job."""

    code = "NO_CAPABLE_WORKER"


class JobEnded(KtrdrError):
    """A job ended without a result."""

    def __init__(self, message: str = "", *, hint: str = "", code: str = "", job_id: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.job_id = job_id


class JobFailed(JobEnded):
    """The job failed.

    Attributes
    ----------
    traceback : str
        Of the handler, on the worker; empty for a user's mistake and for crashes.
    stderr_tail : str
        The last lines that the job's process wrote to stderr.
    """

    code = "JOB_FAILED"

    def __init__(
        self, message: str = "", *, hint: str = "", code: str = "", job_id: str = "", traceback: str = "", stderr_tail: str = ""
    ) -> None:
        super().__init__(message, hint=hint, code=code, job_id=job_id)
        self.traceback = traceback
        self.stderr_tail = stderr_tail


class JobCancelled(JobEnded):
    """The job was cancelled."""

    code = "JOB_CANCELLED"
    exit_code = EXIT_CANCELLED


class JobTimedOut(JobEnded):
    """The job ran out of its time."""

    code = "JOB_TIMED_OUT"
    exit_code = EXIT_TIMED_OUT


class WaitTimedOut(KtrdrError):
    """The wait was given up; the job goes on."""

    code = "WAIT_TIMED_OUT"
    exit_code = EXIT_TIMED_OUT
