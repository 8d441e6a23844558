"""``ktrdr status``: how the broker is, in one page."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from ktrdr_cli.blocks import DASH, Block, Fields
from ktrdr_cli.common import Command, face, talk
from ktrdr_cli.texts import ago, octets
from ktrdr_cli.workers import worker_table

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.views import WorkerInfo


@click.command("status", cls=Command)
def status() -> None:
    """Show the broker's jobs, workers and disk use. With --json everything that it counts."""
    shown = face()

    async def work(client: AsyncClient) -> tuple[str, dict[str, Any], list[WorkerInfo]]:
        return str(client.endpoint), await client.status(), await client.workers()

    endpoint, document, workers = talk(work)
    whole = {"schema": 1, "broker": endpoint, **document, "worker_list": [worker.to_dict() for worker in workers]}
    shown.out.show(whole, *overview(endpoint, document), worker_table(workers, title="Workers"), essence=[endpoint])


def overview(endpoint: str, document: dict[str, Any]) -> list[Block]:
    """The broker's own account."""
    disk = document.get("disk", {})
    queued = sum(document.get("queued", {}).values()) if isinstance(document.get("queued"), dict) else int(document.get("queued", 0))
    started = dt.datetime.fromtimestamp(document["started_at"] / 1e6, dt.UTC) if document.get("started_at") else None
    states = {**document.get("states", {})}
    running = states.get("running", 0) + states.get("leased", 0) + states.get("cancelling", 0)
    kept = disk.get("jobs", {})
    rows = [
        ("broker", f"{endpoint}, version {document.get('version', '?')}, up for {ago(started)}"),
        ("dispatch", "paused; go on with: ktrdr broker unpause" if document.get("paused") else "on"),
        ("jobs now", f"{running} running, {states.get('queued', queued)} waiting"),
        ("jobs kept", ", ".join(f"{count} {state}" for state, count in sorted(kept.items())) if kept else DASH),
        ("storage", str(document.get("storage", "ok"))),
    ]
    if disk:
        used = disk.get("database_octets", 0) + disk.get("artifact_octets", 0)
        parts = (
            f"database {octets(disk.get('database_octets', 0))}, {disk.get('artifacts', 0)} files {octets(disk.get('artifact_octets', 0))}"
        )
        free = octets(disk.get("disk_free_octets", 0))
        rows.append(("disk", f"{octets(used)} used in {disk.get('data_dir', '?')}: {parts}; {free} free"))
    return [Fields(rows)]
