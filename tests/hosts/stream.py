"""A client that submits one backtest after another and writes down what it was told. Run on a host; ends when the stop file is there.

    python -m tests.hosts.stream BROKER MODEL LEDGER STOP

Every line of the ledger is a JSON list, on disk before anything else happens: ``["sent", n, id]``, ``["acknowledged", n, id]``,
``["ended", n, id, state, trades]``. A submission that was not answered is repeated under its id, as any careful client does.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from pathlib import Path

from ktrdr_zmq import AsyncClient, AsyncJob, BrokerUnreachable

PAUSE = 0.5
AT_ONCE = 4


class Ledger:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, *entry: object) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


async def one(client: AsyncClient, ledger: Ledger, model: str, number: int, places: asyncio.Semaphore) -> None:
    async with places:
        job_id = secrets.token_hex(16)
        ledger.write("sent", number, job_id)
        while True:
            try:
                job = await client.backtest(model, job_id=job_id, name=f"stream-{number}", wait_refusals=True)
                break
            except BrokerUnreachable:
                await asyncio.sleep(PAUSE)
        ledger.write("acknowledged", number, job_id)
        info = await job.wait()
        ledger.write("ended", number, job_id, info.state.value, await trades(job))


async def trades(job: AsyncJob) -> int:
    while True:
        try:
            return int((await job.result())["metrics"]["trades"])
        except BrokerUnreachable:
            await asyncio.sleep(PAUSE)


async def main(broker: str, model: str, ledger: Ledger, stop: Path) -> None:
    places = asyncio.Semaphore(AT_ONCE)
    async with AsyncClient(broker, connect_timeout=60) as client, asyncio.TaskGroup() as tasks:
        number = 0
        while not stop.exists():  # noqa: ASYNC240  # a stat of a local file takes no time
            tasks.create_task(one(client, ledger, model, number, places))
            number += 1
            await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Ledger(Path(sys.argv[3])), Path(sys.argv[4])))
