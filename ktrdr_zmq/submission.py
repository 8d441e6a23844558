"""The way of one job into the broker: a request checked and encoded, offered until it is acknowledged, its inputs uploaded when asked for.

Knows no job that is there already: watching is the client's.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from ktrdr_zmq import messages as m
from ktrdr_zmq import payload
from ktrdr_zmq.artifacts import file_digest
from ktrdr_zmq.errors import PayloadError, Refused, UsageError
from ktrdr_zmq.handles import JobRequest
from ktrdr_zmq.jobs import JOB_ID_SIZE, LANE_SIZE, Device, JobSpec
from ktrdr_zmq.link import Link, refusal

MAX_JOB_BODY: Final = 1 << 20
UPLOADS: Final = 3
"""How often an input is uploaded for one submission: more would mean that the broker loses what it acknowledges."""


class Prepared(NamedTuple):
    """A job that can be offered to the broker, again and again: its id is fixed."""

    request: JobRequest
    job_id: bytes
    spec: bytes
    body: bytes
    sources: dict[bytes, Path | bytes]


async def prepare(request: JobRequest, submitter: str, lane: bytes) -> Prepared:
    """Encode a request; whatever is wrong with it shows here.

    Raises
    ------
    UsageError
        When something in it makes no sense.
    PayloadError
        When the body cannot be encoded, or is larger than 1 MiB.
    """
    body = payload.pack(request.body)
    if len(body) > MAX_JOB_BODY:
        raise PayloadError(
            f"The job's body has {len(body):,} octets; the limit is {MAX_JOB_BODY:,}.",
            hint="Give large data as inputs.",
            code="TOO_LARGE",
        )
    sources, inputs = await _digests(request.inputs) if request.inputs else ({}, ())
    job_id = octets(request.job_id, JOB_ID_SIZE, "A job id") if request.job_id else new_job_id(lane)
    return Prepared(request, job_id, msgspec.msgpack.encode(_spec(request, inputs, submitter)), body, sources)


async def offer(link: Link, job: Prepared) -> m.SubmitReply:
    """SUBMIT until it is acknowledged: upload what is missing, wait out refusals that pass.

    Raises
    ------
    NoCapableWorker, Refused, BrokerUnreachable
    """
    uploads = 0
    while True:
        reply = await link.offer(job.job_id, job.spec, job.body)
        if reply.code == "OK":
            return reply
        if reply.code == "MISSING_ARTIFACT" and reply.missing and all(digest in job.sources for digest in reply.missing):
            uploads += 1
            if uploads <= UPLOADS:
                for digest in reply.missing:
                    await link.bulk.put(job.sources[digest], digest)
                continue
        error = refusal(reply.code, reply.text, retryable=reply.retryable, retry_after=reply.retry_after)
        wait = job.request.wait_refusals
        if not wait or not isinstance(error, Refused) or not error.retryable or reply.code == "MISSING_ARTIFACT":
            raise error
        if callable(wait):
            wait(error)
        await asyncio.sleep(error.retry_after or 2.0)


def new_job_id(lane: bytes) -> bytes:
    """An id that nobody has, in a client's lane: one subscription hears of all its jobs."""
    return secrets.token_bytes(JOB_ID_SIZE - LANE_SIZE) + lane


def octets(text: str, size: int, what: str) -> bytes:
    """Read an id or a digest that a person wrote in hex digits; ``what`` names it.

    Raises
    ------
    UsageError
        When it is none of ``size`` octets.
    """
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != size:
        raise UsageError(f"{what} has {2 * size} hex digits, not {text!r}.")
    return found


def _spec(request: JobRequest, inputs: tuple[tuple[str, bytes], ...], submitter: str) -> JobSpec:
    try:
        device = Device(request.device)
    except ValueError:
        raise UsageError(f"There is no device {request.device!r}; choose auto, gpu or cpu.") from None
    if not all(text.isprintable() and len(text) <= 200 for text in (request.name, *request.labels, *request.labels.values())):
        raise UsageError("A name or label must be printable, in one line, of at most 200 characters.")
    return JobSpec(
        kind=request.kind, schema=request.schema, device=device, gpu_wait=float(request.gpu_wait), priority=request.priority,
        name=request.name, labels=tuple(sorted((str(k), str(v)) for k, v in request.labels.items())), submitter=submitter,
        run_timeout=float(request.run_timeout), queue_timeout=float(request.queue_timeout), reclaim_after=float(request.reclaim_after),
        max_crashes=request.max_crashes, max_losses=request.max_losses, threads=request.threads, memory_limit=request.memory_limit,
        inputs=inputs, queue=request.queue,
    )  # fmt: skip


async def _digests(inputs: Mapping[str, Any]) -> tuple[dict[bytes, Path | bytes], tuple[tuple[str, bytes], ...]]:
    """What may have to be uploaded by digest, and the names that the job gives it."""
    sources: dict[bytes, Path | bytes] = {}
    named = []
    for name, source in inputs.items():
        if isinstance(source, str):
            digest = octets(source, 32, "A digest")
        else:
            digest = await asyncio.to_thread(file_digest, source) if isinstance(source, Path) else hashlib.sha256(source).digest()
            sources[digest] = source
        named.append((name, digest))
    return sources, tuple(named)
