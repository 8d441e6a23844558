"""A client's connection while nobody answers."""

from __future__ import annotations

import asyncio

import pytest

from ktrdr_zmq import messages as m
from ktrdr_zmq.config import Endpoint
from ktrdr_zmq.errors import BrokerUnreachable
from ktrdr_zmq.link import Link


async def test_who_repeats_a_submission_that_was_given_up_waits_for_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """And sleeps meanwhile: one wait, not one in each turn of the loop."""
    waits = []
    wait = asyncio.wait

    async def counted(futures: list[asyncio.Future[m.SubmitReply]]) -> None:
        waits.append(futures)
        await wait(futures)

    monkeypatch.setattr("ktrdr_zmq.link.asyncio.wait", counted)
    link = Link(Endpoint("127.0.0.1", 1), m.ClientInfo(versions=[m.MAJOR]))
    first = asyncio.create_task(link.offer(b"i" * 16, b"spec", b""))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(link.offer(b"i" * 16, b"spec", b""))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(waits) == 1
    await link.close()
    with pytest.raises(BrokerUnreachable):
        await second
