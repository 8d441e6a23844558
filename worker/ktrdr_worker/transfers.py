"""Artifacts between this worker and the broker's bulk port, beside the agent's other work: each transfer is a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from ktrdr_worker.spool import LOG
from ktrdr_zmq.artifacts import ArtifactCache, BulkClient
from ktrdr_zmq.errors import BrokerUnreachable, ProtocolError, Refused
from ktrdr_zmq.jobs import Artifact

log = logging.getLogger(__name__)

AT_ONCE: Final = 4
PAUSE: Final = 2.0


class Transfers:
    """Downloads of inputs and uploads of products.

    Parameters
    ----------
    bulk : BulkClient
    cache : ArtifactCache
        Where inputs are kept.
    """

    def __init__(self, bulk: BulkClient, cache: ArtifactCache) -> None:
        self.cache = cache
        self._bulk = bulk
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[int, set[asyncio.Task[None]]] = {}
        self._in_use: dict[int, frozenset[bytes]] = {}

    def fetch(self, token: int, digests: list[bytes], done: Callable[[str], None]) -> None:
        """Bring artifacts here, then call ``done`` with an empty text, or with what went wrong."""
        self._in_use[token] = frozenset(digests)
        self._begin(token, self._fetch(digests, done))

    def upload(self, token: int, artifacts: list[Artifact], path: Callable[[Artifact], Path], done: Callable[[str], None]) -> None:
        """Store artifacts at the broker, then call ``done``. A log that the broker does not want is taken out of the list."""
        self._begin(token, self._upload(artifacts, path, done))

    def drop(self, token: int) -> None:
        """End the transfers of a job, and let its inputs go."""
        self._in_use.pop(token, None)
        for task in self._tasks.pop(token, ()):
            task.cancel()

    def close(self) -> None:
        """End all transfers."""
        for token in list(self._tasks):
            self.drop(token)
        self._bulk.close()

    def _begin(self, token: int, work: Coroutine[Any, Any, None]) -> None:
        tasks = self._tasks.setdefault(token, set())
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not tasks and self._tasks.get(token) is tasks:
                del self._tasks[token]

        task.add_done_callback(ended)

    async def _fetch(self, digests: list[bytes], done: Callable[[str], None]) -> None:
        try:
            for digest in digests:
                known = self.cache.path(digest).exists()
                async with self._room:
                    path = await self.cache.fetch(self._bulk, digest)
                if not known:
                    path.chmod(0o444)
                    self.cache.trim(frozenset().union(*self._in_use.values()))
        except (Refused, BrokerUnreachable, ProtocolError) as error:  # the last one: it arrived damaged, again and again
            done(error.message)
        except OSError as error:
            done(f"An input cannot be stored here: {error}")
        else:
            done("")

    async def _upload(self, artifacts: list[Artifact], path: Callable[[Artifact], Path], done: Callable[[str], None]) -> None:
        for artifact in list(artifacts):
            error = await self._put(path(artifact), artifact.digest)
            if error and artifact.name == LOG:
                log.warning("a job's log could not be stored: %s", error)
                artifacts.remove(artifact)
            elif error:
                done(f"{artifact.name}: {error}")
                return
        done("")

    async def _put(self, path: Path, digest: bytes) -> str:
        """Upload one file, for as long as it takes; the text is why it will never be stored."""
        while True:
            pause = PAUSE
            try:
                async with self._room:
                    await self._bulk.put(path, digest)
                return ""
            except Refused as error:
                if not error.retryable:
                    return error.message
                pause = max(error.retry_after, PAUSE)
            except BrokerUnreachable as error:
                log.warning("%s", error)
            except OSError as error:
                return f"its file cannot be read: {error}"
            await asyncio.sleep(pause)
