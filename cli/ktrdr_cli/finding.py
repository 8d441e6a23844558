"""Which model is meant: a training that has not ended is waited for, and shown meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktrdr_cli.common import Face
from ktrdr_cli.watching import follow_all
from ktrdr_zmq.errors import UnknownJob

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.handles import AsyncJob
    from ktrdr_zmq.views import JobInfo


async def find(client: AsyncClient, model: str, shown: Face) -> JobInfo:
    """The training behind a model's name; one that has not ended is waited for, and shown meanwhile."""
    from ktrdr_zmq.recipes import find_model

    try:
        job = await client.job(await _newest(client) if model == "last" else model)
    except UnknownJob:
        return await find_model(client, model)
    info = await job.status()
    if info.kind == "training" and not info.terminal:
        await _await_training(client, job, info, shown)
    return await find_model(client, job)


async def _newest(client: AsyncClient) -> str:
    """The newest training that is done or under way.

    Raises
    ------
    UnknownJob
    """
    for info in await client.jobs(kinds=["training"], limit=1000):
        if not info.terminal or info.state.value == "done":
            return info.id
    raise UnknownJob


async def _await_training(client: AsyncClient, job: AsyncJob, info: JobInfo, shown: Face) -> None:
    if info.state.value == "queued":
        shown.out.note(f"Training {info.id[:8]} waits in the queue; this begins after it. {(await client.explain(info.id)).text}")
    else:
        shown.out.note(f"Training {info.id[:8]} still runs; waiting for it.")
    with shown.out.progress() as meter:
        await follow_all([job], meter)
