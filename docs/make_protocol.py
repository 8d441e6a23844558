"""Write the generated parts of docs/protocol.md: ``python docs/make_protocol.py``; with ``--check`` only say whether they are up to date.

The tables between ``<!-- generated: NAME -->`` and ``<!-- end -->`` come from ktrdr_zmq/messages.py, ktrdr_zmq/jobs.py and the settings of
broker and worker; what a field means is said here, once for each name. Everything else on the page is written by hand.
"""

from __future__ import annotations

import difflib
import enum
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

PAGE = Path(__file__).with_name("protocol.md")
sys.path[:0] = [str(PAGE.parents[1] / folder) for folder in ("", "broker", "worker")]

from ktrdr_broker import bulk, intake, store
from ktrdr_broker.config import BrokerConfig
from ktrdr_worker.core import WorkerConfig
from ktrdr_worker.duties import Timing
from ktrdr_zmq import jobs, payload
from ktrdr_zmq import messages as m

DIRECTIONS: Mapping[str, Mapping[int, type[m.Message]]] = {
    "worker to broker (port P)": m.FROM_WORKER,
    "broker to worker (port P)": m.TO_WORKER,
    "client to broker (port P+1)": m.FROM_CLIENT,
    "broker to client (port P+1)": m.TO_CLIENT,
    "broker to subscribers (port P+2)": m.EVENTS,
    "peer to broker (port P+3)": m.BULK_TO_BROKER,
    "broker to peer (port P+3)": m.BULK_FROM_BROKER,
}

MEANING: Mapping[str, str] = {
    "action": "what to do, see [administration](#administration)",
    "address": "IP address of the connection",
    "after_seq": "only jobs behind this `seq`; 0: from the beginning",
    "args": "arguments of the action",
    "artifact": "the stored file",
    "artifacts": "the job's files",
    "at": "when, by the broker's clock",
    "attempt": "number of the attempt, from 1",
    "attempts": "history; only if details were asked for",
    "before_seq": "only jobs before this `seq`; 0: from the newest",
    "checkpoint": "the newest checkpoint of an earlier attempt",
    "checkpoint_seq": "number of the newest saved checkpoint; 0: none",
    "client": "which client asked; to be echoed as it came",
    "code": "what is wrong, see [refusals](#refusals)",
    "connected_at": "when the session began",
    "cpus": "CPUs that the worker may use",
    "crashes": "unexplained deaths of the job's own process",
    "credit": "see [credit](#credit-and-dispatch)",
    "dead_after": "seconds of silence after which the worker counts as dead",
    "details": "also the history of attempts and the inputs",
    "device": "`auto`, `gpu` or `cpu`",
    "devices": "accelerators",
    "digest": "SHA-256 of the content, 32 octets",
    "digests": "SHA-256 of each artifact asked about",
    "document": "the answer, see [administration](#administration)",
    "draining": "whether it takes no more jobs",
    "dropped": "the job had a result, which is not kept any more",
    "ended": "nothing will follow",
    "ended_at": "when the attempt ended; 0: not yet",
    "epoch": "the broker's epoch, see [epochs](#epochs-stores-sessions-tokens)",
    "error": "name of the error's class",
    "errors": "references that name no job, or several",
    "exit_code": "of the job's process; 0 where it does not apply",
    "failure": "why it did not succeed",
    "finished": "jobs whose results are not acknowledged yet",
    "finished_at": "when the job ended; 0: not yet",
    "fraction": "0 to 1, over the whole job",
    "gpu": "whether it has GPU slots",
    "gpu_count": "how many GPUs",
    "gpu_type": "`CUDA`, `MPS`, `simulated`, or nil",
    "gpu_wait": "seconds for which `auto` waits for a busy GPU before it takes a CPU",
    "grace": "seconds between SIGTERM and SIGKILL",
    "hello_seq": "grows with every HELLO of this process",
    "highest_epoch": "highest epoch of this store that the peer has seen",
    "hint": "what to do about it",
    "host": "host name",
    "hostname": "host name, for people",
    "index": "number of the device on its host",
    "info": "who speaks",
    "inputs": "name and SHA-256 of each input artifact",
    "instance": "random octets, new for every process of the worker",
    "items": "one for each job",
    "job": "the job as it stands",
    "job_id": "16 octets",
    "jobs": "the jobs",
    "kind": "kind of job, `[a-z][a-z0-9_.-]{0,62}`",
    "kinds": "kind, lowest and highest schema of its body",
    "labels": "key and value",
    "lag": "how late the agent's own loop was at most, in seconds",
    "leased_at": "when it was dispatched",
    "leave": "exit when nothing runs any more",
    "limit": "how many at most",
    "load": "load average of the host over one minute",
    "losses": "lost workers",
    "max_crashes": "the job fails with this many crashes",
    "max_inline_result": "octets of a result; larger things are artifacts",
    "max_losses": "the job fails with more losses than this",
    "max_message": "octets of a frame; larger ones end the connection without a word",
    "media_type": "MIME type",
    "memory": "octets of memory",
    "memory_limit": "octets that the job's processes may use, enforced by the worker; 0: no limit",
    "message": "what went wrong, for people",
    "metrics": "numbers to show, by name",
    "missing": "inputs to upload before the job can be accepted",
    "name": "name, for people",
    "new_id": "id of the new job, chosen by the client",
    "next_after": "`after_seq` of the next page; 0: this was the last",
    "next_before": "`before_seq` of the next page; 0: this was the last",
    "nonce": "what stood behind `s.` in the subscription",
    "note": "not used yet",
    "notice": "something that the submitter should know",
    "number": "number of the attempt, from 1",
    "numeric": "fingerprint of hardware and software that numbers depend on",
    "offset": "octets from the beginning",
    "ok": "saved; false: this token does not hold the job",
    "on": "begin the drain, or end it",
    "outcome": "see [outcomes](#outcomes)",
    "pid": "process id, for people",
    "ping_interval": "seconds between two PINGs",
    "present": "those that are stored",
    "priority": "higher first, -1000 to 1000",
    "queue": "accept the job even if no worker can run it now",
    "queue_timeout": "seconds that it may wait at a stretch; 0: no limit",
    "reason": "see [reasons](#reasons)",
    "reclaim_after": "seconds for which a silent worker may keep the job; 0: by its run time",
    "ref": "reference of a job, see [references](#references)",
    "refs": "references of jobs, see [references](#references)",
    "request": "number chosen by the asking side, echoed in the answer",
    "result_size": "octets of the job's result; 0: none",
    "resumes": "not used yet",
    "pending": "kinds of which it is just finding out whether it can do them",
    "resume": "whether to go on from the last checkpoint of the ended job",
    "retry_after": "seconds after which to try again; 0: not said",
    "retry_of": "the job that this one repeats; empty: none",
    "retryable": "the same may be accepted later",
    "returns_in": "seconds until it means to be back; negative: not known",
    "rev": "grows with every change of state",
    "run_s": "seconds that the last attempt ran, by the worker's clock",
    "run_timeout": "seconds that an attempt may run, enforced by the worker; 0: no limit",
    "running": "jobs in its hands",
    "schema": "version of the body's layout",
    "seq": "the broker's order of acceptance",
    "session": "the session that this belongs to, from HELLO_OK",
    "signal": "number of the signal that ended the job's process; 0 where it does not apply",
    "silent_s": "seconds since it was last heard",
    "simulated_gpu": "its GPU slots are make-believe",
    "since": "only jobs submitted at or after this time (UTC microseconds)",
    "size": "octets of this part of the body",
    "slots": "tag and number",
    "software": "versions, for people",
    "spec": "octets of a [JobSpec](#jobspec)",
    "stage": "what is being done, for people",
    "started_at": "when it was first accepted by a worker; 0: not yet",
    "state": "see [states](#states)",
    "states": "states to list",
    "stderr_tail": "end of what the job's process printed",
    "stop": "also hand running jobs back",
    "store_id": "identity of the broker's database, 16 octets",
    "stored": "it is there already: send nothing, PUT_DONE follows",
    "submitted_at": "when it was accepted",
    "submitter": "whose job it is, for fairness",
    "tag": "kind of slot: `gpu` or `cpu`",
    "text": "for people",
    "threads": "threads for the job's numerical libraries",
    "token": "fencing token of one dispatch",
    "tokens": "tokens of jobs accepted more than 10 s ago and not concluded",
    "total": "octets of the whole artifact",
    "totals": "tag and total, see [credit](#credit-and-dispatch)",
    "traceback": "of the handler, if it was an unexpected exception",
    "type": "`CUDA` or `MPS`",
    "uuid": "the device's own id",
    "verb": "the verb that was refused; 0: not known",
    "verdict": "see [verdicts](#verdicts)",
    "verdicts": "one for each job named in HELLO",
    "version": "release of the broker",
    "versions": "major versions that are spoken",
    "worker_id": "`[a-z0-9][a-z0-9._-]{0,62}`",
    "workers": "the workers",
}
"""What a field means, by its name."""

SPECIAL: Mapping[str, str] = {
    "Artifact.name": "name within its job",
    "Bye.code": "`SHUTTING_DOWN`, `SUPERSEDED` or `DUPLICATE_WORKER_ID`",
    "Checkpoint.seq": "grows over all attempts of a job",
    "CheckpointAck.seq": "as in CHECKPOINT",
    "Credit.totals": "tag and cumulative number of slots granted in this session",
    "DispatchItem.tag": "the kind of slot that the job is to use",
    "ExplainReply.workers": "worker id, and why it cannot take the job now (empty: it could)",
    "Get.credit": "how many chunks may be sent, 1 to 64",
    "JobEvent.size": "octets of the body: the result, if it is small",
    "JobSpec.device": "which slots it may use: `gpu`, `cpu`, or `auto` for a GPU first",
    "JobSpec.name": "at most 200 characters",
    "JobSpec.labels": "at most 64, each part at most 200 characters",
    "JobView.inputs": "name and SHA-256; only if details were asked for",
    "List.limit": "1 to 1000",
    "List.name": "exactly this name",
    "List.kinds": "kinds to list",
    "List.labels": "labels that a job must all have",
    "LogTail.request": "as in TAIL",
    "Logs.limit": "octets, 1 to 1 MiB",
    "ProgressItem.seq": "grows within an attempt",
    "ProgressEvent.seq": "grows within an attempt",
    "PutReady.credit": "how many chunks more may be sent",
    "RejectItem.code": "`DRAINING`, `UNFIT`, `PREFETCH_STALE`, `INPUT_UNAVAILABLE` or `CHILD_START_FAILED`",
    "Result.credit": "as in CREDIT",
    "ResultItem.artifacts": "stored before RESULT is sent",
    "ResultItem.reason": "`RESULT_TOO_LARGE`, or empty",
    "Snapshot.limit": "1 to 1000",
    "SubmitReply.code": "`OK`, or see [refusals](#refusals)",
    "Tail.limit": "octets",
    "Tail.request": "to be echoed",
    "HelloOk.hello_seq": "of the HELLO that it answers; others than that to the latest are to be ignored",
    "Verdict.verdict": "see [verdicts](#verdicts)",
    "WorkerEvent.state": "see [liveness](#heartbeats-and-liveness)",
    "WorkerHello.running": "jobs that have begun and are not concluded, uploads included",
    "WorkerInfo.host": "equal for all processes of one host, different elsewhere",
    "WorkerInfo.store_id": "the store that it last worked for; empty: none",
    "WorkerInfo.highest_token": "the highest token that it has seen in a DISPATCH or CANCEL of this store",
    "WorkerPing.credit": "the totals granted in this session, once more",
    "WorkerPing.draining": "whether it was told to take no jobs, or means to leave",
    "WorkerPing.gpu": "health of the GPU in words; not used yet",
    "WorkerPing.seq": "echoed in PONG",
    "Pong.seq": "as in PING",
    "WorkerView.state": "see [liveness](#heartbeats-and-liveness)",
}
"""What a field means where its name alone does not say it."""

REASONS: Mapping[str, str] = {
    "SUBMITTED": "accepted",
    "DISPATCHED": "sent to a worker",
    "ACCEPTED": "the worker has it in its hands",
    "COMPLETED": "the handler returned a result",
    "HANDLER_ERROR": "the handler raised an error, or broke a limit",
    "RESULT_TOO_LARGE": "the handler's result is larger than `max_inline_result`",
    "CRASHED": "its process died unexplained; it runs again",
    "CRASH_LIMIT": "its process died unexplained for the `max_crashes`-th time",
    "WORKER_GONE": "its worker left, or came back without it; it runs again",
    "WORKER_LOST": "its worker was silent for too long; it runs again",
    "LOSS_LIMIT": "it lost more than `max_losses` workers",
    "REJECTED": "the worker did not take it; it waits again",
    "HANDED_BACK": "the worker gave it back, because it is being drained; it waits again",
    "RETRY_LATER": "the handler asked for a later attempt; it waits again after a pause",
    "RETRY_LIMIT": "the handler asked for one more attempt than are granted",
    "CANCEL_REQUESTED": "its worker was told to stop it",
    "CANCELLED": "it was cancelled, and nothing of it runs",
    "RUN_TIMEOUT": "it ran longer than its `run_timeout`",
    "QUEUE_TIMEOUT": "it waited longer than its `queue_timeout`",
}

OUTCOMES: Mapping[str, str] = {
    "done": "a result",
    "failed": "the handler raised an error, or broke a limit: the job ends FAILED",
    "crashed": "the process died unexplained: the job runs again, up to its limit",
    "cancelled": "stopped because of CANCEL, or never begun here; unless the job is CANCELLING, this counts as handed back",
    "timed_out": "stopped because of `run_timeout`: the job ends TIMED_OUT",
    "handed_back": "stopped because the worker is being drained: the job waits again, nothing is charged",
    "retry": "the handler asks to be tried again later: the job waits again after a pause, up to a limit",
}

STATES: Mapping[str, str] = {
    "queued": "waits for a worker",
    "leased": "sent to a worker, which has not said yet that it has it; saved, not published",
    "running": "in the hands of a worker",
    "cancelling": "its worker was told to stop it",
    "done": "ended with a result",
    "failed": "ended without one",
    "cancelled": "ended because somebody wanted it to",
    "timed_out": "ended because it waited or ran for too long",
}

CORE: Mapping[str, str] = {
    "ping_interval": "seconds between a worker's PINGs; told in HELLO_OK",
    "suspect_intervals": "so many intervals of silence make a worker SUSPECT",
    "dead_after": "seconds of silence that make a worker DEAD; told in HELLO_OK",
    "reclaim_max": "longest time in seconds that a silent worker may keep a job without a `reclaim_after` of its own",
    "backoff_cap": "longest pause in seconds between two HELLOs of a worker that finds no broker",
    "backoff_cap_intervals": "the same in intervals; the shorter one holds",
    "long_after": "seconds after which a running job is named in its worker's PINGs",
    "accept_timeout": "seconds after which a DISPATCH without an answer makes the broker ask for HELLO",
    "cancel_resend": "seconds after which CANCEL is said again, with a heartbeat",
    "reject_pause": "seconds for which a job is kept away from a worker that rejected it",
    "forget_worker_after": "seconds after which a worker that is gone and holds nothing is forgotten",
    "forget_client_after": "seconds of silence after which a client must say HELLO again",
    "artifact_grace": "seconds for which an artifact that nothing names is kept",
    "retention": "seconds for which an ended job is kept",
    "retry_base": "first pause in seconds before a handler's retry; doubled each time",
    "retry_cap": "longest such pause",
    "max_retries": "retries that a handler may ask for",
    "max_queued_jobs": "jobs that may wait",
    "max_queued_octets": "octets that the bodies of waiting jobs may have together",
    "max_workers": "workers that are known at a time",
    "max_clients": "clients that are known at a time; beyond, those silent for longest must say HELLO again",
    "max_body": "octets of a job's body",
    "max_message": "octets of a frame; told in HELLO_OK",
    "max_inline_result": "octets of a result; told in HELLO_OK, enforced by the worker",
    "max_event_body": "octets of a result that rides in its event",
    "prefetch": "most jobs of a short kind at one worker and tag",
    "short_job": "a kind is short if its jobs run for less than this many seconds in the mean",
}

WORKER: Mapping[str, str] = {
    "hello_timeout": "seconds without HELLO_OK after which a worker takes a new socket",
    "hello_timeout_intervals": "the same in intervals; the shorter one holds, but a second at least",
    "backoff_base": "first pause in seconds before HELLO on a new socket; doubled each time, times a random number from 0 to 1",
    "silent_intervals": "so many intervals without a word of the broker make a worker take a new socket",
    "progress_every": "seconds between two PROGRESS messages",
    "resend_after": "seconds after which an unacknowledged RESULT is sent again; doubled each time",
}

TIMING: Mapping[str, str] = {
    "accept_delay": "seconds after which a job that runs is accepted; a result before that implies it",
    "prefetch_stale": "seconds after which a job that waits at a worker is given back",
    "stop_grace": "seconds between SIGTERM and SIGKILL at a run timeout",
}

OTHERS: Mapping[str, tuple[int, str]] = {
    "MAX_SPEC": (intake.MAX_SPEC, "octets of a job's specification"),
    "TOMBSTONE_US": (store.TOMBSTONE_US, "microseconds for which the id of a removed job is remembered"),
    "CHUNK": (bulk.CHUNK, "octets of a bulk chunk; only the last one may be smaller"),
    "UPLOAD_CREDIT": (bulk.UPLOAD_CREDIT, "chunks that a PUT may send at first"),
    "MAX_ARTIFACT": (bulk.MAX_ARTIFACT, "octets of an artifact"),
    "MAX_UPLOADS": (bulk.MAX_UPLOADS, "uploads at a time"),
    "IDLE_UPLOAD_S": (int(bulk.IDLE_UPLOAD_S), "seconds after which an upload that stands still is given up"),
    "RESERVE": (bulk.RESERVE, "octets that stay free on the broker's disk"),
}


# ---------------------------------------------------------------------------------------------------------------- types


def anchor(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def written(kind: Any) -> str:
    """A type as MessagePack has it."""
    simple = {int: "int", float: "float", bool: "bool", str: "str", bytes: "bin", Any: "any", type(None): "nil"}
    if kind in simple:
        return simple[kind]
    arguments = [written(part) for part in typing.get_args(kind) if part is not Ellipsis]
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(arguments)
    if origin is dict:
        return f"map of {arguments[0]} to {arguments[1]}"
    if origin is list or (origin is tuple and typing.get_args(kind)[-1] is Ellipsis):
        return f"array of {arguments[0]}"
    if origin is tuple:
        return f"({', '.join(arguments)})"
    if issubclass(kind, enum.Enum):
        return "str"
    return anchor(kind.__name__)


def meaning(owner: str, name: str) -> str:
    return SPECIAL.get(f"{owner}.{name}") or MEANING[name]


def default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return ""
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, bytes):
        return value.hex() or "empty"
    return json.dumps(value).replace("null", "nil")  # an enum of strings is a string


def fields(struct: type[msgspec.Struct]) -> Iterator[str]:
    positional = struct.__struct_config__.array_like
    hints = typing.get_type_hints(struct)
    yield f"| {'#' if positional else 'key'} | field | type | default | meaning |" if positional else "| key | type | default | meaning |"
    yield "|---|---|---|---|---|" if positional else "|---|---|---|---|"
    for number, field in enumerate(msgspec.structs.fields(struct)):
        cells = [f"`{field.name}`", written(hints[field.name]), default(field), meaning(struct.__name__, field.name)]
        yield "| " + " | ".join([str(number), *cells] if positional else cells) + " |"


def sentence(struct: type[msgspec.Struct]) -> str:
    """The docstring as one paragraph, in Markdown."""
    return re.sub(r"\s+", " ", struct.__doc__ or "").strip().replace("``", "`")


# ---------------------------------------------------------------------------------------------------------------- parts


def verbs() -> Iterator[str]:
    yield "| verb | message | direction |"
    yield "|---|---|---|"
    for direction, table in DIRECTIONS.items():
        for verb, struct in table.items():
            yield f"| `0x{verb:02x}` | {anchor(struct.__name__)} | {direction} |"


def messages() -> Iterator[str]:
    seen = set()
    for direction, table in DIRECTIONS.items():
        fresh = {verb: struct for verb, struct in table.items() if struct not in seen}
        if fresh:
            yield f"### {direction[0].upper()}{direction[1:]}"
            yield ""
        for verb, struct in fresh.items():
            seen.add(struct)
            yield f"#### {struct.__name__}"
            yield ""
            also = [other for other, entries in DIRECTIONS.items() if struct in entries.values() and other != direction]
            yield f"Verb `0x{verb:02x}`. {sentence(struct)}" + (f" Also {', '.join(also)}." if also else "")
            yield ""
            yield from fields(struct)
            yield ""


def structures() -> Iterator[str]:
    for struct in parts():
        shape = "array" if struct.__struct_config__.array_like else "map"
        yield f"#### {struct.__name__}"
        yield ""
        yield f"{shape.capitalize()}. {sentence(struct)}"
        yield ""
        yield from fields(struct)
        yield ""


def parts() -> list[type[msgspec.Struct]]:
    """Everything that messages are made of, in the order in which it is met."""
    found: list[type[msgspec.Struct]] = [jobs.JobSpec]

    def walk(kind: Any) -> None:
        for part in typing.get_args(kind):
            walk(part)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            if not issubclass(kind, m.Message) and kind not in found:
                found.append(kind)
            for hint in typing.get_type_hints(kind).values():
                walk(hint)

    for table in DIRECTIONS.values():
        for struct in table.values():
            walk(struct)
    return found


def states() -> Iterator[str]:
    yield "| state | meaning | may become |"
    yield "|---|---|---|"
    order = list(jobs.JobState)
    for state, following in jobs.TRANSITIONS.items():
        names = ", ".join(f"`{other.value}`" for other in sorted(following, key=order.index))
        yield f"| `{state.value}` | {STATES[state.value]} | {names or 'nothing: terminal'} |"


def reasons() -> Iterator[str]:
    yield from table("reason", ((reason.value, REASONS[reason.value]) for reason in jobs.Reason))


def outcomes() -> Iterator[str]:
    yield from table("outcome", ((outcome.value, OUTCOMES[outcome.value]) for outcome in jobs.Outcome))


def table(head: str, rows: Any) -> Iterator[str]:
    yield f"| {head} | meaning |"
    yield "|---|---|"
    yield from (f"| `{name}` | {text} |" for name, text in rows)


def numbers() -> Iterator[str]:
    broker, worker = BrokerConfig()._asdict(), WorkerConfig()._asdict()
    timing = Timing()._asdict()
    yield "| number | of whom | value | meaning |"
    yield "|---|---|---|---|"
    yield from (f"| `{name}` | broker | {shown(value)} | {CORE[name]} |" for name, value in broker.items())
    yield from (f"| `{name}` | broker | {shown(value)} | {text} |" for name, (value, text) in OTHERS.items())
    yield from (f"| `{name}` | worker | {shown(worker[name])} | {text} |" for name, text in WORKER.items())
    yield from (f"| `{name}` | worker | {shown(timing[name])} | {text} |" for name, text in TIMING.items())
    yield f"| `MAX_BODY` | all | {shown(payload.MAX_BODY)} | octets of a body that this implementation decodes |"


def shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.12g}"


PARTS: Mapping[str, Callable[[], Iterator[str]]] = {
    "verbs": verbs, "messages": messages, "structures": structures, "states": states, "reasons": reasons, "outcomes": outcomes,
    "numbers": numbers,
}  # fmt: skip


def renewed(page: str) -> str:
    """The page with its generated parts as they should be."""

    def put(match: re.Match[str]) -> str:
        body = "\n".join(PARTS[match[1]]()).strip("\n")
        return f"<!-- generated: {match[1]} -->\n\n{body}\n\n<!-- end -->"

    return re.sub(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", put, page, flags=re.DOTALL)


def main(argv: list[str]) -> int:
    old = PAGE.read_text(encoding="utf-8")
    new = renewed(old)
    if argv == ["--check"]:
        sys.stdout.writelines(
            difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), "protocol.md", "generated")
        )
        return int(old != new)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
