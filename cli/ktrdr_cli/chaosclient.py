"""The second client of ``ktrdr chaos``: a process that is killed or stopped while it submits and waits.

    python -m ktrdr_cli.chaosclient ADDRESS < REQUESTS

It reads a JSON list of the jobs to submit, submits each, waits for it, and prints ``a ID`` when it was acknowledged and ``e ID STATE`` when
it ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from ktrdr_zmq.client import AsyncClient
from ktrdr_zmq.handles import JobRequest


async def serve(address: str, requests: list[dict[str, Any]]) -> None:
    """Submit all and wait for all."""
    async with AsyncClient(address) as client, asyncio.TaskGroup() as group:
        for request in requests:
            group.create_task(_one(client, JobRequest(**request)))


async def _one(client: AsyncClient, request: JobRequest) -> None:
    job = await client.submit_request(request)
    _say("a", job.id)
    info = await job.wait()
    _say("e", job.id, info.state.value)


def _say(*words: str) -> None:
    """One write for each line: whole, or not at all."""
    os.write(sys.stdout.fileno(), " ".join(words).encode() + b"\n")


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], json.load(sys.stdin)))
