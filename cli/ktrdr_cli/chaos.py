"""``ktrdr chaos``: harmless jobs and a mild storm on a cluster of one's own, and a ledger at the end.

It does what any client may do (submit twice, cancel, retry, vanish, drain a worker and let it return); with ``--kill`` it also kills and
stops the processes of the running ``ktrdr up``.
"""

from __future__ import annotations

import asyncio
import secrets
import sys

import click

from ktrdr_cli.blocks import Fields
from ktrdr_cli.common import Command, face, finish
from ktrdr_zmq.errors import EXIT_FAILED, UsageError


@click.command("chaos", cls=Command)
@click.option(
    "--minutes", type=click.FloatRange(min=0.01, max=10_000), default=1.0, show_default=True, metavar="N", help="How long to disturb it."
)
@click.option(
    "--rate", type=click.FloatRange(min=0.1, max=500), default=5.0, show_default=True, metavar="R", help="Jobs to submit a second."
)
@click.option(
    "--pause", type=click.FloatRange(min=0.05), default=2.0, show_default=True, metavar="S", help="Mean seconds between disturbances."
)
@click.option(
    "--patience", type=click.FloatRange(min=1), default=120.0, show_default=True, metavar="S", help="Seconds to wait for the last jobs."
)
@click.option("--seed", type=int, metavar="N", help="Draw the same disturbances in the same order again.")
@click.option("--kill", is_flag=True, help="Also kill and stop the processes of the 'ktrdr up' on this machine.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before --kill.")
def chaos(minutes: float, rate: float, pause: float, patience: float, seed: int | None, kill: bool, yes: bool) -> None:
    """Disturb a cluster for a while, and count what became of every job.

    It submits jobs that do nothing, each with a number of its own, and meanwhile submits some again, cancels and retries some, drops its
    connections, kills and stops a second client of its own, and drains a worker for some seconds. Then it waits for every job to end and
    compares: what was acknowledged has ended, and once. Exit code 1 if that is not so.

    Other jobs on the cluster go on, but for --kill: that counts against the jobs that run, as any crash does.
    """
    from ktrdr_cli.chaosbook import LABEL
    from ktrdr_cli.chaosrun import Run

    shown = face()
    if kill and not yes:
        if not sys.stdin.isatty():
            raise UsageError("--kill kills and stops processes of your cluster.", hint="Say --yes if that is what you want.")
        click.confirm("This kills and stops processes of your 'ktrdr up', whatever they are running. Go on?", abort=True, err=True)
    run = Run(shown, seed if seed is not None else secrets.randbelow(1_000_000), rate, pause, kill=kill)
    sums = asyncio.run(run.go(minutes * 60.0, patience))
    document = {
        "schema": 1, "run": run.name, "seed": run.seed, "minutes": minutes, "ok": not sums.broken, **sums.counts,
        "disturbances": dict(run.did), "broken": sums.broken,
    }  # fmt: skip
    rows = [(name.replace("_", " "), f"{count:,}") for name, count in sums.counts.items()]
    rows.append(("disturbances", ", ".join(f"{count} {name}" for name, count in sorted(run.did.items())) or "none"))
    end = "Nothing was lost and nothing was doubled." if not sums.broken else "\n".join(f"BROKEN: {line}" for line in sums.broken)
    more = f"The jobs: ktrdr jobs list --label {LABEL}={run.name}"
    shown.out.show(
        document,
        Fields(rows, title=f"Ledger of run {run.name} (seed {run.seed})"),
        end,
        more,
        essence=["ok" if not sums.broken else "broken"],
    )
    finish(EXIT_FAILED if sums.broken else 0)
