"""``ktrdr workers``: the machines that do the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ktrdr_cli.blocks import DASH, Column, Fields, Table
from ktrdr_cli.common import face, group, talk
from ktrdr_cli.texts import moment_text, octets, seconds
from ktrdr_zmq.errors import UsageError

if TYPE_CHECKING:
    from ktrdr_zmq.views import WorkerInfo


@group("workers")
def workers() -> None:
    """List, show and drain workers."""


def gpu_text(worker: WorkerInfo) -> str:
    """What GPUs a worker has; a simulated one says so."""
    if not worker.gpu:
        return DASH
    return f"{worker.gpu_count} {worker.gpu_type}" if worker.gpu_count != 1 else str(worker.gpu_type)


def state_text(worker: WorkerInfo) -> str:
    """A worker's state, and whether it takes no more jobs."""
    return f"{worker.state}, draining" if worker.draining else worker.state


def slots_text(worker: WorkerInfo) -> str:
    """Its slots, as the option --slots takes them."""
    return ",".join(f"{tag}={count}" for tag, count in sorted(worker.slots.items())) or DASH


def worker_table(found: list[WorkerInfo], *, title: str = "") -> Table:
    """Workers as a table."""
    columns = [
        Column("WORKER", whole=True), Column("STATE", whole=True), Column("ADDRESS"), Column("GPU", whole=True),
        Column("SLOTS", whole=True),        Column("RUNS", right=True), Column("KINDS"),
    ]  # fmt: skip
    rows = [
        [w.worker_id, state_text(w), w.address or DASH, gpu_text(w), slots_text(w), str(len(w.running)), ",".join(sorted(w.kinds))]
        for w in found
    ]
    return Table(columns, rows, title=title, empty="There are no workers. Start one with: ktrdr worker run")


@workers.command("list")
def list_() -> None:
    """List the workers that the broker knows."""
    shown = face()
    found = talk(lambda client: client.workers())
    document = {"schema": 1, "workers": [worker.to_dict() for worker in found]}
    shown.out.show(document, worker_table(found), essence=[worker.worker_id for worker in found])


@workers.command("show")
@click.argument("worker")
def show(worker: str) -> None:
    """Show everything that is known of a worker."""
    shown = face()
    found = talk(lambda client: client.workers())
    info = next((one for one in found if one.worker_id == worker), None)
    if info is None:
        there = ", ".join(one.worker_id for one in found) or "none"
        raise UsageError(f"There is no worker {worker!r}; there are: {there}.")
    rows = [
        ("worker", info.worker_id),
        ("state", f"{state_text(info)}, last heard {seconds(info.silent_s)} ago"),
        ("host", f"{info.hostname} ({info.address or 'address not known'}), process {info.pid}"),
        ("since", moment_text(info.connected_at)),
        ("GPU", gpu_text(info) + (" (its jobs run on the CPU)" if info.simulated_gpu else "")),
        ("slots", slots_text(info)),
        ("machine", f"{info.cpus} processors, {octets(info.memory)} memory, load {info.load:.2f}"),
        ("kinds", ", ".join(f"{kind} (schema {low} to {high})" for kind, (low, high) in sorted(info.kinds.items()))),
        ("running", "\n".join(info.running) or DASH),
        ("loop lag", seconds(info.lag)),
        ("software", "\n".join(f"{name} {version}" for name, version in sorted(info.software.items())) or DASH),
        ("numeric", info.numeric or DASH),
    ]
    shown.out.show(info.to_dict(), Fields(rows), essence=[info.worker_id])


@workers.command("drain")
@click.argument("worker")
@click.option("--stop", is_flag=True, help="Also hand back the jobs that run there; they go on elsewhere.")
@click.option("--leave", is_flag=True, help="Let the worker exit when it is done.")
def drain(worker: str, stop: bool, leave: bool) -> None:
    """Let a worker take no more jobs; those that run there end first."""
    answer = _admin("drain", worker_id=worker, stop=stop, leave=leave)
    running = int(answer["running"])
    rest = f" {running} {'job still runs' if running == 1 else 'jobs still run'} there." if running else ""
    face().out.show(
        {"schema": 1, **answer}, f"{worker} takes no more jobs.{rest} Undo it with: ktrdr workers undrain {worker}", essence=[worker]
    )


@workers.command("undrain")
@click.argument("worker")
def undrain(worker: str) -> None:
    """Let a drained worker take jobs again."""
    answer = _admin("undrain", worker_id=worker)
    face().out.show({"schema": 1, **answer}, f"{worker} takes jobs again.", essence=[worker])


def _admin(action: str, **args: Any) -> dict[str, Any]:
    return talk(lambda client: client.admin(action, **args))
