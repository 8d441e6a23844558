"""How things are written for people: times, sizes, figures by their unit, and the story of a job's attempts."""

from __future__ import annotations

import datetime as dt
import re
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ktrdr_cli.blocks import DASH, Column, Table
from ktrdr_zmq.errors import UsageError

if TYPE_CHECKING:
    from ktrdr_zmq.jobs import Failure
    from ktrdr_zmq.views import AttemptInfo, JobInfo

_WORDS: Final = {"leased": "starting", "timed_out": "timed out", "cancelling": "stopping"}

REASONS: Final = {
    "COMPLETED": "completed",
    "HANDLER_ERROR": "the job itself reported an error",
    "RESULT_TOO_LARGE": "its result was too large",
    "CRASHED": "its process died",
    "CRASH_LIMIT": "its process died, as often as it may",
    "WORKER_GONE": "the worker left",
    "WORKER_LOST": "the worker was lost",
    "LOSS_LIMIT": "its worker was lost, as often as may be",
    "REJECTED": "the worker did not take it",
    "HANDED_BACK": "the worker handed it back",
    "RETRY_LATER": "it asked to be tried again later",
    "RETRY_LIMIT": "it asked to be tried again too often",
    "CANCELLED": "cancelled",
    "CANCEL_REQUESTED": "a cancellation was asked for",
    "RUN_TIMEOUT": "it ran longer than it may",
    "QUEUE_TIMEOUT": "it waited longer than it may",
    "SUBMITTED": "submitted",
    "DISPATCHED": "sent to a worker",
    "ACCEPTED": "taken by the worker",
}
"""Reason codes in words."""


def job_word(state: str) -> str:
    """A job's state as a word."""
    return _WORDS.get(state, state)


def reason_text(reason: str) -> str:
    """A reason code in words; one that is not known is spelt: ``some reason``."""
    return REASONS.get(reason) or reason.replace("_", " ").lower()


def state_text(state: str, reason: str) -> str:
    """A job's state with the reason, where that says more: ``done``, ``failed: its process died``."""
    word, why = job_word(state), reason_text(reason)
    return word if state == "done" or why in ("", word) else f"{word}: {why}"


def seconds(value: float | None) -> str:
    """A duration, short: ``0.4 s``, ``12 s``, ``3:05 min``, ``2:10 h``, ``3 d``."""
    if value is None:
        return DASH
    if value < 10:
        return f"{value:.1f} s"
    if value < 100:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 100:
        return f"{minutes}:{rest:02} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02} h" if hours < 48 else f"{hours // 24} d"


def ago(moment: dt.datetime | None, now: dt.datetime | None = None) -> str:
    """How long something is past: ``3 min``, ``5 h``, ``12 d``."""
    if moment is None:
        return DASH
    past = max(((now or dt.datetime.now(dt.UTC)) - moment).total_seconds(), 0.0)
    for limit, unit, size in ((100, "s", 1), (6000, "min", 60), (172_800, "h", 3600)):
        if past < limit:
            return f"{past / size:.0f} {unit}"
    return f"{past / 86_400:.0f} d"


def moment_text(moment: dt.datetime | None) -> str:
    """A time in this person's time zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %z") if moment is not None else DASH


def octets(size: float) -> str:
    """A size with a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def span(text: str) -> dt.timedelta | None:
    """Read ``90s``, ``30m``, ``12h``, ``7d`` or ``2w``; None if it is none of these."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if match is None:
        return None
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[match.group(2)]
    try:
        return dt.timedelta(**{unit: float(match.group(1))})
    except OverflowError:
        return None


def past_moment(text: str, option: str) -> dt.datetime:
    """Read a time in the past: how long ago, or a date.

    Raises
    ------
    UsageError
        When it is neither.
    """
    length = span(text)
    try:
        if length is not None:
            return dt.datetime.now(dt.UTC) - length
        moment = dt.datetime.fromisoformat(text)
        return moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text!r} is neither a time such as 12h or 7d nor a date such as 2026-06-30.") from None


def pairs(given: Mapping[str, str]) -> str:
    """Labels as ``a=1, b=2``."""
    return ", ".join(f"{key}={value}" for key, value in given.items()) or DASH


# ---------------------------------------------------------------------------------------------------------------- jobs

_LIST: Final = (
    Column("JOB", whole=True), Column("KIND"), Column("NAME"), Column("STATE", whole=True), Column("WORKER"),
    Column("AGE", right=True), Column("RAN", right=True),
)  # fmt: skip


def job_row(info: JobInfo) -> list[str]:
    """A job as a row of a list."""
    state = job_word(info.state.value)
    if info.state.value == "running":
        state = f"{state} {info.fraction:.0%}"
    ran = seconds(info.run_s) if info.run_s else DASH
    return [info.id[:8], info.kind, info.name or DASH, state, info.worker_id or DASH, ago(info.submitted), ran]


def job_table(infos: list[JobInfo], *, title: str = "", empty: str = "There are no jobs.") -> Table:
    """Jobs as a table."""
    return Table(_LIST, [job_row(info) for info in infos], title=title, empty=empty)


def end_line(info: JobInfo) -> str:
    """How a job ended, in one line."""
    what = f"{info.kind} {info.name}".strip()
    word = job_word(info.state.value)
    text = f"{info.id[:8]} {what}: {word}"
    if info.run_s:
        text += f" after {seconds(info.run_s)}"
    if info.worker_id:
        text += f" on {info.worker_id}" + (f" ({info.tag})" if info.tag else "")
    if info.failure is not None:
        text += f": {info.failure.message}"
    elif info.state.value != "done" and reason_text(info.reason) not in ("", word):
        text += f": {reason_text(info.reason)}"
    return text


def signal_name(number: int) -> str:
    """A signal's name, for example SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def failure_text(failure: Failure | None) -> str:
    """What a worker said of an attempt that did not succeed; several lines."""
    if failure is None:
        return ""
    lines = [f"{failure.error}: {failure.message}" if failure.error not in failure.message else failure.message]
    if failure.signal and signal_name(failure.signal) not in failure.message:
        lines.append(f"The process was ended by {signal_name(failure.signal)}.")
    elif failure.exit_code and not failure.signal:
        lines.append(f"The process ended with exit code {failure.exit_code}.")
    if failure.hint:
        lines.append(failure.hint)
    for title, text in (("", failure.traceback), ("last lines on stderr:", "" if failure.traceback else failure.stderr_tail)):
        if text.strip():
            lines += [*([title] if title else []), *(f"  {line}" for line in text.strip().splitlines()[-20:])]
    return "\n".join(lines)


def attempt_story(attempt: AttemptInfo) -> tuple[str, str]:
    """A name and a text for one attempt."""
    where = f"{attempt.worker_id} ({attempt.tag})" if attempt.tag else attempt.worker_id
    text = f"on {where}, from {moment_text(attempt.started)}"
    if attempt.ended is None:
        text += ", not ended"
    else:
        took = (attempt.ended - attempt.started).total_seconds() if attempt.started is not None else None
        text += f", for {seconds(took)}: {reason_text(attempt.reason)}"
    why = failure_text(attempt.failure)
    return f"attempt {attempt.number}", f"{text}\n{why}" if why else text


def as_text(value: Any) -> str:
    """A value of a setting or a job's body."""
    if value is None or value in ("", (), {}, []):
        return DASH
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
