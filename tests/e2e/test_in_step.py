"""An agent with real children, its broker spoken by hand: whatever is killed or called off, agent and children agree on their jobs.

After every turn the jobs that the core has in a lane are compared with those that the executor has given to the lane's child. At the end
every job has come to something.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ktrdr_worker.core import WorkerConfig
from ktrdr_worker.effects import Send
from ktrdr_worker.executor import ExecutorConfig
from ktrdr_worker.lanes import Phase
from ktrdr_worker.server import Agent, AgentSettings
from ktrdr_worker.state import StateFolder
from ktrdr_zmq import messages as m
from ktrdr_zmq import payload
from ktrdr_zmq.config import Endpoint
from ktrdr_zmq.jobs import JobSpec

SECONDS = 8.0
FAULTS_A_SECOND = 40.0
SLOW_SECONDS = 60.0
"""How much longer it may take, with fewer faults, until every kind of end has been seen: on a slow machine no child comes up in between."""
SLOW_FAULTS_A_SECOND = 4.0
QUIET = 60.0


def job_id(token: int) -> bytes:
    return token.to_bytes(16, "big")


class Watched(Agent):
    """An agent without a network that looks at itself after each turn."""

    def __init__(self, folder: Path, broker: ByHand) -> None:
        slots = (("cpu", 2),)
        self.info = m.WorkerInfo("w", b"i" * 16, 0, [1], list(slots), [("tally", 1, 1)])
        executor = ExecutorConfig({"tally": "tally:handler"}, environment={"PYTHONPATH": str(Path(__file__).parent)})
        settings = AgentSettings(Endpoint("127.0.0.1", 1), WorkerConfig(slots=slots), executor)
        self.state = StateFolder(folder)
        super().__init__(settings, self.info, self.state)
        self.broken: list[str] = []
        self._broker = broker

    def _reconnect(self) -> None:
        return

    def _send(self, effect: Send) -> None:
        self._broker.hear(effect.message)

    def _turn(self) -> None:
        super()._turn()
        self.broken += self.core.check()
        for lane in self.core.lanes:
            child = self.executor._children.get(lane)
            given = [job.token for job in child.jobs] if child is not None else []
            known = [job.token for job in lane.jobs if job.phase is Phase.IN_LANE]
            if given != known and lane not in self.executor._barren:
                self.broken.append(f"{lane!r}: the child has {given[:5]}, the core {known[:5]}")

    def tell(self, message: m.Message, bodies: list[bytes]) -> None:
        """The broker says something."""
        self.core.on_message(message, bodies, time.monotonic())
        self._wake()


class ByHand:
    """A broker that dispatches many short jobs, some long, too long or deadly, and answers everything."""

    def __init__(self, chance: random.Random, mark: Path) -> None:
        self.live: set[int] = set()
        self.ends: collections.Counter[str] = collections.Counter()
        self.answers: list[tuple[m.Message, list[bytes]]] = []
        self._chance = chance
        self._mark = str(mark)
        self._session = 0
        self._token = 7 << 32
        self._granted = self._sent = 0

    def hear(self, message: m.Message) -> None:
        if isinstance(message, m.WorkerHello):
            self._welcome(message)
        elif isinstance(message, m.Result):
            self._grant(message.credit)
            for item in message.items:
                self._end(item.token, item.outcome.value)
            self.answers.append((m.ResultAck([m.Verdict(item.job_id, item.token, "RECORDED") for item in message.items]), []))
        elif isinstance(message, m.Reject):
            for refused in message.items:
                self._end(refused.token, refused.code)
        elif isinstance(message, m.Credit):
            self._grant(message.totals)

    def _welcome(self, hello: m.WorkerHello) -> None:
        self._session += 1
        self._granted = self._sent = 0
        verdicts = []
        for job in hello.running:
            verdict = self._chance.choice(["KEEP", "KEEP", "KEEP", "ABORT"])
            verdicts.append(m.Verdict(job.job_id, job.token, verdict))
            if verdict == "ABORT":
                self._end(job.token, "aborted")
        named = {job.token for job in [*hello.running, *hello.finished]}
        for token in self.live - named:
            self._end(token, "not begun")
        seq = hello.info.hello_seq
        self.answers.append((m.HelloOk(7, b"s" * 16, self._session, 0.3, 1.5, 1 << 20, 1 << 18, verdicts, hello_seq=seq), []))

    def _end(self, token: int, how: str) -> None:
        if token in self.live:
            self.live.remove(token)
            self.ends[how] += 1

    def _grant(self, totals: list[tuple[str, int]]) -> None:
        for _, total in totals:
            self._granted = max(self._granted, total)

    def feed(self) -> None:
        """Dispatch what there is room for, and some more."""
        count = min(self._granted - self._sent + 64, 80 - len(self.live))
        if not self._granted or count <= 0:
            return
        items, bodies = [], []
        for _ in range(count):
            self._token += 1
            spec, body = self._job()
            items.append(m.DispatchItem(job_id(self._token), self._token, 1, "cpu", msgspec.msgpack.encode(spec), len(body)))
            bodies.append(body)
            self.live.add(self._token)
        self._sent += count
        self.answers.append((m.Dispatch(self._session, items), bodies))

    def _job(self) -> tuple[JobSpec, bytes]:
        body: dict[str, Any] = {"number": self._token & 0xFFFFFFFF, "mark": self._mark}
        spec = JobSpec("tally")
        drawn = self._chance.random()
        if drawn < 0.01:
            body["seconds"] = self._chance.random() * 0.5
        elif drawn < 0.012:
            body["poison"] = True
        elif drawn < 0.02:
            spec, body["seconds"] = JobSpec("tally", run_timeout=0.1), 0.3
        elif drawn < 0.03:
            spec = JobSpec("tally", memory_limit=1 << 30)
        return spec, payload.pack(body)

    @property
    def enough(self) -> bool:
        """Whether there has been every kind of end."""
        return self.ends["done"] > 100 and self.ends.keys() >= {"done", "cancelled", "crashed", "aborted"}

    def cancel(self) -> None:
        """Call some jobs off."""
        tokens = self._chance.sample(sorted(self.live), min(len(self.live), self._chance.choice([1, 5, 60])))
        grace = self._chance.choice([0.0, 0.05, 1.0])
        self.answers.append((m.Cancel([m.CancelItem(job_id(token), token, grace) for token in tokens]), []))


class Rehearsal:
    """The agent, the broker, and the hand that disturbs them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.broker = ByHand(self.chance, folder / "mark")
        self.agent = Watched(folder / "state", self.broker)
        self._stopped: dict[int, float] = {}

    async def pass_on(self) -> None:
        """A little time, and what the broker has said."""
        await asyncio.sleep(self.chance.choice([0.0, 0.001, 0.003]))
        self.agent.core._heard = time.monotonic()  # its heartbeats
        answers, self.broker.answers = self.broker.answers, []
        for message, bodies in answers:
            self.agent.tell(message, bodies)
        for pid in [pid for pid, due in self._stopped.items() if time.monotonic() > due]:
            del self._stopped[pid]
            self._signal(pid, signal.SIGCONT)

    def disturb(self) -> None:
        """One fault."""
        pids = self.agent.executor.pids()
        fault = self.chance.choice(["kill", "kill", "stop", "term", "cancel", "cancel", "greet", "stall", "drain", "drained"])
        if fault in ("kill", "stop", "term") and pids:
            pid = self.chance.choice(pids)
            self._signal(pid, {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}[fault])
            if fault == "stop":
                self._stopped[pid] = time.monotonic() + self.chance.random() * 3
        elif fault == "cancel":
            self.broker.cancel()
        elif fault == "greet":
            self.agent.core._lose(time.monotonic())
        elif fault == "stall":
            time.sleep(self.chance.random() * 0.2)  # the whole agent stands still
        elif fault == "drain":
            self.agent.tell(m.Drain(on=True, stop=self.chance.random() < 0.5, leave=False), [])
        elif fault == "drained":
            self.agent.tell(m.Drain(on=False, stop=False, leave=False), [])

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def calm(self) -> None:
        """Whatever stands still goes on."""
        self._stopped = dict.fromkeys(self._stopped, 0.0)
        self.agent.tell(m.Drain(on=False, stop=False, leave=False), [])


@pytest.mark.timeout(180)
async def test_agent_and_children_stay_in_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rehearsal = Rehearsal(tmp_path, seed := random.randrange(1 << 30))
    print(f"seed {seed}")
    broker, agent = rehearsal.broker, rehearsal.agent
    wrong: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: wrong.append(f"{what.get('message')} {what.get('exception')!r}"))
    served = asyncio.create_task(agent.run(lambda: None))
    agent.offer(agent.info, complete=True)
    begun = time.monotonic()
    next_fault = begun + 1.0
    while (gone := time.monotonic() - begun) < SECONDS or (gone < SECONDS + SLOW_SECONDS and not broker.enough):
        broker.feed()
        await rehearsal.pass_on()
        if time.monotonic() > next_fault:
            often = FAULTS_A_SECOND if gone < SECONDS else SLOW_FAULTS_A_SECOND
            next_fault = time.monotonic() + rehearsal.chance.expovariate(often)
            rehearsal.disturb()
    rehearsal.calm()
    quiet = time.monotonic() + QUIET
    while broker.live and time.monotonic() < quiet:
        await rehearsal.pass_on()
    agent._ended.set_result(0)
    await served
    agent.state.release()
    assert not agent.broken, agent.broken[:3]
    assert not wrong, wrong[:3]
    assert not broker.live, f"{len(broker.live)} jobs came to nothing"
    assert "out of step" not in caplog.text
    assert "could not be dealt with" not in caplog.text
    assert broker.enough, broker.ends
