"""``ktrdr up`` and ``ktrdr down``: the local cluster in this terminal or in the background."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ktrdr_cli.blocks import Block
from ktrdr_cli.common import Command, Face, face
from ktrdr_cli.local import LocalRefused, Stop, already, free_port, running, sole, start_in_background, stop_running
from ktrdr_cli.output import Board, PipeClosed, clock
from ktrdr_cli.texts import end_line, job_table
from ktrdr_cli.workers import worker_table
from ktrdr_zmq.errors import BrokerUnreachable, KtrdrError
from ktrdr_zmq.notify import ReadyLine

if TYPE_CHECKING:
    from ktrdr_zmq.blocking import Client
    from ktrdr_zmq.cluster import LocalCluster
    from ktrdr_zmq.views import JobInfo, WorkerInfo

REFRESH_S: Final = 1.0
JOBS_SHOWN: Final = 8
RECENT: Final = 3
DRAIN_S: Final = 30.0
DEMO_WORKERS: Final[list[dict[str, Any]]] = [
    {"id": "trainer", "kinds": ["training"], "slots": "cpu=1"},
    {
        "id": "tester",
        "kinds": ["backtesting", "report", "check-lookahead", "check-warmup", "data-import", "data-check", "echo", "noop"],
        "slots": "cpu=1",
    },
]
"""Each kind of the demo has one worker, so that the model travels; together they offer all that there is, to whoever keeps them."""


@click.command("up", cls=Command)
@click.option("--workers", type=click.IntRange(0, 64), metavar="N", default=1, show_default=True, help="How many workers to start.")
@click.option("--data-dir", metavar="D", help="Folder of the cluster's data (default: see 'ktrdr config show').")
@click.option("--detach", "-d", is_flag=True, help="Start it in the background, and return when it is ready.")
@click.option("--demo-workers", is_flag=True, hidden=True, help="Start the workers of the demo.")
@click.option("--ready-fd", type=int, default=-1, hidden=True, help="Write a JSON line to this descriptor when ready.")
def up(workers: int, data_dir: str | None, detach: bool, demo_workers: bool, ready_fd: int) -> None:
    """Start a broker and workers on this machine, for you alone; every other command finds them.

    It serves on loopback, at port 5555 and the three after it, or at the next free ones. Ctrl+C ends it in good order: workers hand their
    jobs back, and the jobs go on after the next 'ktrdr up'. A second Ctrl+C kills it. A broker or worker that is killed meanwhile is
    started again.
    """
    from ktrdr_zmq.config import folders, load_settings

    shown = face()
    load_settings()  # the daemons read the configuration too: its mistakes are told before anything starts
    folder = (Path(data_dir).expanduser() if data_dir else folders().data / "up").absolute()
    if detach:
        there = start_in_background(["--workers", str(workers), "--data-dir", str(folder)], folder / "up.log")
        text = f"Broker at {there['broker']}, workers: {', '.join(there['workers']) or 'none'}.\nData in {folder}. Stop it with: ktrdr down"
        shown.out.show(there, text, essence=[there["broker"]])
        return
    ready = ReadyLine(ready_fd)
    try:
        serve(shown, DEMO_WORKERS if demo_workers else workers_of(workers), folder, ready)
    except KtrdrError as error:
        ready.say(error.as_dict())
        raise


def workers_of(count: int) -> list[dict[str, Any]]:
    """What each worker is to be: several share the processors between them; one alone takes all that the machine has."""
    if count <= 1:
        return [{"id": "worker-1"}] * count
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = f"cpu={max(cpus // count, 1)}"
    return [{"id": "worker-1"}, *({"id": f"worker-{n + 1}", "slots": share} for n in range(1, count))]


def serve(shown: Face, workers: Sequence[dict[str, Any]], folder: Path, ready: ReadyLine) -> None:
    """Run the one local cluster until a signal.

    Raises
    ------
    LocalRefused
        When another one runs, or when the broker ends by itself.
    """
    from ktrdr_zmq.cluster import LocalCluster
    from ktrdr_zmq.config import DEFAULT_PORT

    if running() is not None:
        raise already()
    with sole() as publish, Stop() as stop:
        shown.out.note("Starting a broker and workers ...")
        cluster = LocalCluster(workers, folder, base_port=free_port(DEFAULT_PORT))
        try:
            stop.hurry = lambda: _kill(cluster)
            stop.ready()
            names = [process.name for process in cluster.processes[1:]]
            document = {"schema": 1, "broker": cluster.broker, "pid": os.getpid(), "data_dir": str(folder), "workers": names}
            publish({key: document[key] for key in ("broker", "pid", "data_dir")})
            ready.say(document)
            if shown.json:
                shown.out.line(document)
            _watch(shown, cluster, stop)
        finally:
            with contextlib.suppress(PipeClosed):  # whatever became of the terminal, the cluster is ended
                shown.out.note("Ending: workers hand their jobs back. Ctrl+C again kills them.")
            cluster.stop(timeout=DRAIN_S)
    shown.out.note("Stopped.")


def _kill(cluster: LocalCluster) -> None:
    for process in cluster.processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _watch(shown: Face, cluster: LocalCluster, stop: Stop) -> None:
    """Show what goes on until a signal comes."""
    from ktrdr_zmq.blocking import Client

    title = f"ktrdr up: broker at {cluster.broker}, data in {cluster.folder}. Ctrl+C ends it."
    news = News(shown)
    with Client(cluster.broker) as client, shown.out.board() as board:
        if not board.live:
            shown.out.note(title)
        while not stop.asked:
            _look(client, cluster, board, news, title)
            stop.wait(REFRESH_S)


def _look(client: Client, cluster: LocalCluster, board: Board, news: News, title: str) -> None:
    revived = [f"{process.name} {process.fate}, and was started again as process {process.pid}" for process in cluster.revive()]
    news.recent = (news.recent + revived)[-RECENT:]
    if not cluster.processes[0].alive:
        raise LocalRefused("The broker has ended by itself.", hint=f"Its log says more: {cluster.processes[0].log}")
    try:
        workers, jobs = client.workers(), client.jobs(limit=JOBS_SHOWN)
    except BrokerUnreachable:
        return
    gone = [f"{p.name} has ended (exit code {p.exit_code}); its log: {p.log}" for p in cluster.processes[1:] if not p.alive]
    if board.live:
        blocks: list[Block] = [title, worker_table(workers, title="Workers")]
        board.draw(
            *blocks,
            job_table(jobs, title="Newest jobs", empty="No jobs yet. Try: ktrdr models train --strategy neuro_mean_reversion"),
            *gone,
            *news.recent,
        )
    else:
        news.tell(workers, jobs, [*gone, *revived])


class News:
    """What has changed since the last look, as log lines: for `up` without a terminal.

    Attributes
    ----------
    recent : list of str
        The latest of what a board should still show.
    """

    def __init__(self, shown: Face) -> None:
        self._shown = shown
        self._said: set[str] = set()
        self._jobs: dict[str, tuple[str, int]] = {}
        self.recent: list[str] = []

    def tell(self, workers: Sequence[WorkerInfo], jobs: Sequence[JobInfo], gone: Sequence[str]) -> None:
        """Say what is new."""
        for worker in workers:
            kinds = ", ".join(sorted(worker.kinds))
            self._once(f"{worker.worker_id} is {worker.state} and takes {kinds}")
        for line in gone:
            self._once(line)
        for job in reversed(jobs):
            state = (job.state.value, job.attempt)
            if self._jobs.get(job.id) != state:
                self._jobs[job.id] = state
                where = f" on {job.worker_id} ({job.tag})" if job.worker_id else ""
                self._say(end_line(job) if job.terminal else f"{job.id[:8]} {job.kind} {job.name}: {job.state.value}{where}")

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _say(self, text: str) -> None:
        self._shown.out.note(f"{clock()} {text}")


@click.command("down", cls=Command)
@click.option("--timeout", type=click.FloatRange(min=1), default=90.0, show_default=True, metavar="S", help="Seconds to wait for its end.")
def down(timeout: float) -> None:
    """Stop what 'ktrdr up' started: workers hand their jobs back, and the jobs go on after the next 'ktrdr up'."""
    there = stop_running(timeout)
    if there is None:
        face().out.show({"schema": 1, "stopped": False}, "No local cluster is running.")
    else:
        face().out.show({"schema": 1, "stopped": True, **there}, f"Stopped the cluster at {there.get('broker', '?')}.")
