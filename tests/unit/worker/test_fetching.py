"""An input that cannot be had is told, whatever the reason: a job that waits for it would wait for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ktrdr_worker.transfers import Transfers
from ktrdr_zmq.errors import BrokerUnreachable, KtrdrError, ProtocolError, Refused


class Cache:
    """A cache into which nothing can be fetched."""

    def __init__(self, folder: Path, error: Exception) -> None:
        self._folder = folder
        self._error = error

    def path(self, digest: bytes) -> Path:
        return self._folder / digest.hex()

    async def fetch(self, bulk: Any, digest: bytes) -> Path:
        raise self._error

    def trim(self, kept: frozenset[bytes]) -> None: ...


@pytest.mark.parametrize(
    "error",
    [
        ProtocolError("Artifact ab arrived damaged 3 times.", code="BAD_DIGEST"),
        Refused("This artifact is not stored.", code="MISSING_ARTIFACT"),
        BrokerUnreachable("Nothing moved."),
        OSError(28, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_the_reason_reaches_whoever_waits(tmp_path: Path, error: Exception) -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    transfers = Transfers(None, Cache(tmp_path, error))  # type: ignore[arg-type]
    transfers.fetch(1, [b"\1" * 32], told.set_result)
    text = await asyncio.wait_for(told, 10)
    assert (error.message if isinstance(error, KtrdrError) else "No space left") in text
