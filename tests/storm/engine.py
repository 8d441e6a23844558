"""Carries a schedule of faults out on real processes while jobs flow, then lets everything come to rest and asks the ledger."""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ktrdr_zmq import Client
from tests.e2e import crowd
from tests.e2e.clock import FakeClock
from tests.e2e.house import Daemon, House, eventually
from tests.e2e.tally import content
from tests.storm import jobs
from tests.storm.ledger import Book, Verdict, executions, judge, rows
from tests.storm.plan import Fault
from tests.storm.watch import Watch

FAST = {"KTRDR_PING_INTERVAL": "0.3", "KTRDR_DEAD_AFTER": "1.5"}
"""A broker that loses patience quickly, so that a stop of a few seconds is longer than every limit."""
SUPERSEDED = 3
ROOT = Path(__file__).parents[2]


class Setting(NamedTuple):
    """What a storm is made of."""

    seed: int
    jobs: int
    workers: int = 3
    slots: int = 2
    submitters: int = 2
    window: int = 100
    patience: float = 600.0
    say: Callable[[str], None] = lambda text: None


class Storm:
    """A broker, workers and submitters, and the hand that disturbs them."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.setting = setting
        self.house = House(folder)
        self.house.env |= FAST
        self.house.env["PYTHONPATH"] += os.pathsep + str(ROOT)
        self.clock = FakeClock(folder / "clock")
        self.house.env |= self.clock.env
        self.mark = folder / "executions"
        self.quota = folder / "quota"
        self.done: dict[str, int] = {}
        self.surprises: list[str] = []
        self._folder = folder
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._workers: dict[str, list[Daemon]] = {}
        self._away: set[str] = set()
        self._twins: set[str] = set()
        self._submitters: dict[int, Daemon] = {}
        self.broker = self.house.broker()
        self.watch = Watch(self.house.port, self._alive)

    # ------------------------------------------------------------ life

    def run(self, plan: list[Fault]) -> Verdict:
        """The storm, the calm, the verdict."""
        self.watch.start()
        begun = time.monotonic()
        for number in range(self.setting.workers):
            self._start_worker(f"w{number + 1}")
        for number in range(self.setting.submitters):
            self._start_submitter(number)
        told = begun
        for number, fault in enumerate(plan):
            self._allow((number + 1) / len(plan))
            self._wait_until(begun + fault.at)
            getattr(self, f"_{fault.what.replace('-', '_')}")(fault)
            self.done[fault.what] = self.done.get(fault.what, 0) + 1
            if time.monotonic() > told + 15.0:
                told = time.monotonic()
                self.setting.say(f"{number + 1} of {len(plan)} faults")
        self.setting.say("the storm is over; waiting for what is left")
        self._calm()
        return self._judge()

    def close(self) -> None:
        """End all processes, whatever became of the storm."""
        self.watch.stop()
        self.house.close()

    def _allow(self, share: float) -> None:
        temporary = self.quota.with_suffix(".new")
        temporary.write_text(str(int(share * 1_000_000)))
        temporary.replace(self.quota)

    def _wait_until(self, moment: float) -> None:
        while True:
            self._tend()
            now = time.monotonic()
            if now >= moment:
                return
            time.sleep(min(0.05, moment - now))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (time.monotonic() + seconds, self._count, action))

    def _tend(self) -> None:
        """What is due, and whoever has ended is started again."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        if self.broker.process.poll() is not None:
            self._surprise(self.broker)
            self.broker = self.house.broker()
        for name, daemons in self._workers.items():
            for daemon in [daemon for daemon in daemons if daemon.process.poll() is not None]:
                daemons.remove(daemon)
                if not (daemon.process.returncode == SUPERSEDED and name in self._twins):
                    self._surprise(daemon)
            if not daemons and name not in self._away:
                self._start_worker(name)
        for number, daemon in self._submitters.items():
            if daemon.process.poll() not in (None, 0):
                self._surprise(daemon)
                self._start_submitter(number)

    def _surprise(self, daemon: Daemon) -> None:
        self.surprises.append(f"{daemon.name} ended by itself with code {daemon.process.returncode}")

    def _calm(self) -> None:
        self._allow(1.0)
        end = time.monotonic() + self.setting.patience
        while self._due:
            self._wait_until(self._due[0][0])
        while any(daemon.process.poll() is None for daemon in self._submitters.values()):
            self._tend()
            if time.monotonic() > end:
                self.surprises.append(f"not all jobs had ended {self.setting.patience:.0f} s after the storm")
                return
            time.sleep(0.1)
        self.setting.say("every job has ended")
        with Client(self.house.address) as client:
            self._check_files(client)
            eventually(lambda: not client.status()["states"])
            self.watch.settle()
            self.broker_says = client.status()

    def _check_files(self, client: Client) -> None:
        """Some of the files that jobs have left, octet for octet."""
        left = [info for info in client.jobs(kinds=["tally"], states=["done"], limit=5000) if jobs.octets(int(info.name))]
        for info in left[:20]:
            number = int(info.name)
            if client.job(info.id).artifact("file", self._folder / "file").read_bytes() != content(number, jobs.octets(number)):
                self.surprises.append(f"the file of job {number} is another one")

    def _judge(self) -> Verdict:
        self.watch.stop()
        for daemons in self._workers.values():
            for daemon in daemons:
                daemon.kill(signal.SIGTERM)
        self.broker.kill(signal.SIGTERM)
        self.setting.say("all processes have ended")
        books = [Book(self._book(number)) for number in self._submitters]
        for book in books:
            book.close()
        verdict = judge(books, rows(self._folder / "broker" / "broker.sqlite3"), executions(self.mark), self.watch.ends)
        numbers = {n for book in books for n in book.acknowledged}
        missing = set(range(self.setting.jobs // self.setting.submitters * self.setting.submitters)) - numbers
        if missing:
            self.surprises.append(f"never acknowledged: {len(missing)}")
        return Verdict({"submitted": len(numbers | missing), **verdict.counts}, [*verdict.broken, *self.surprises, *self.watch.broken()])

    # ------------------------------------------------------------ processes

    def _alive(self) -> dict[str, int]:
        """The pids to watch, by name."""
        found = {"broker": self.broker.pid}
        found |= {f"worker {name}": daemon.pid for name, daemons in list(self._workers.items()) for daemon in daemons[:1]}
        return found | {f"client {number}": daemon.pid for number, daemon in list(self._submitters.items())}

    def _start_worker(self, name: str, folder: str = "") -> None:
        options = ["--slots", f"cpu={self.setting.slots}", "--handlers", "tally=tally:handler", "--log-level", "warning"]
        if folder:
            options += ["--state-dir", str(self._folder / folder)]
        self._workers.setdefault(name, []).append(self.house.worker(name, *options, wait=False, kinds="tally"))

    def _book(self, number: int) -> Path:
        return self._folder / f"book-{number}"

    def _start_submitter(self, number: int) -> None:
        """Those with odd numbers leave the ids to the library: what was not acknowledged is then submitted as another job."""
        setting = self.setting
        count = setting.jobs // setting.submitters
        argv = [
            sys.executable, "-m", "tests.storm.submitter", "--broker", self.house.address, "--book", str(self._book(number)),
            "--mark", str(self.mark), "--quota", str(self.quota), "--first", str(number * count), "--count", str(count),
            "--window", str(setting.window), "--seed", str(setting.seed), *(["--own-ids"] if number % 2 == 0 else []),
        ]  # fmt: skip
        self._submitters[number] = self.house.start(f"client-{number}", argv)

    def _worker(self, fault: Fault) -> tuple[str, Daemon] | None:
        found = [(name, daemon) for name, daemons in self._workers.items() for daemon in daemons if daemon.process.poll() is None]
        return found[fault.who % len(found)] if found else None

    def _child(self, fault: Fault) -> int:
        """A process that runs jobs; 0 if there is none at the moment."""
        found = [pid for daemons in self._workers.values() for daemon in daemons for pid in daemon.children() if _runs_jobs(pid)]
        return found[fault.who % len(found)] if found else 0

    # ------------------------------------------------------------ faults

    def _broker_kill(self, fault: Fault) -> None:
        self.broker.kill()
        self.broker = self.house.broker()

    def _broker_term(self, fault: Fault) -> None:
        self.broker.process.send_signal(signal.SIGCONT)
        self.broker.kill(signal.SIGTERM)
        self.broker = self.house.broker()

    def _broker_stop(self, fault: Fault) -> None:
        self._stop(self.broker, fault.hold)

    def _worker_kill(self, fault: Fault) -> None:
        found = self._worker(fault)
        if found is not None:
            name, daemon = found
            daemon.kill()
            self._workers[name].remove(daemon)

    def _worker_away(self, fault: Fault) -> None:
        """Killed, and back only when the broker has long given it up."""
        found = self._worker(fault)
        if found is not None:
            name, daemon = found
            daemon.kill()
            self._workers[name].remove(daemon)
            self._away.add(name)
            self._later(fault.hold, lambda: self._away.discard(name))

    def _worker_term(self, fault: Fault) -> None:
        found = self._worker(fault)
        if found is not None:
            name, daemon = found
            daemon.process.send_signal(signal.SIGCONT)
            daemon.kill(signal.SIGTERM)
            self._workers[name].remove(daemon)
            if daemon.process.returncode not in (0, SUPERSEDED, -signal.SIGTERM):  # before its handlers stand, SIGTERM just ends it
                self._surprise(daemon)

    def _worker_stop(self, fault: Fault) -> None:
        found = self._worker(fault)
        if found is not None:
            self._stop(found[1], fault.hold)

    def _worker_twin(self, fault: Fault) -> None:
        """A second process with the same id: one of the two has to go."""
        found = self._worker(fault)
        if found is not None:
            self._twins.add(found[0])
            self._start_worker(found[0], f"twin-{self._count}-{fault.who}")

    def _child_kill(self, fault: Fault) -> None:
        pid = self._child(fault)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _child_stop(self, fault: Fault) -> None:
        pid = self._child(fault)
        if pid:
            _signal(pid, signal.SIGSTOP)
            self._later(fault.hold, lambda: _signal(pid, signal.SIGCONT))

    def _client_kill(self, fault: Fault) -> None:
        number = fault.who % len(self._submitters)
        if self._submitters[number].process.poll() is None:
            self._submitters[number].kill()
            self._start_submitter(number)

    def _client_stop(self, fault: Fault) -> None:
        self._stop(self._submitters[fault.who % len(self._submitters)], fault.hold)

    def _joins(self, fault: Fault) -> None:
        with crowd.Crowd(self.house.port, 100) as visitors:
            visitors.greet()

    def _clock(self, fault: Fault) -> None:
        self.clock.set((-3600, 0, 3600)[fault.who % 3])

    def _stop(self, daemon: Daemon, seconds: float) -> None:
        daemon.process.send_signal(signal.SIGSTOP)
        self._later(seconds, lambda: daemon.process.send_signal(signal.SIGCONT))


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _runs_jobs(pid: int) -> bool:
    """Whether it is a child that runs jobs, and not one that finds out what the worker can do."""
    with contextlib.suppress(OSError):
        return b"ktrdr_worker.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def conditions() -> dict[str, Any]:
    """What the figures depend on."""
    import platform

    return {"cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1), "python": platform.python_version()}


def random_seed() -> int:
    """A seed that can be typed."""
    return random.SystemRandom().randrange(1, 1_000_000)
