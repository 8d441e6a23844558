"""Commands about backtests that are done: ``ktrdr backtest report``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ktrdr_cli.common import Command, Face, face, talk
from ktrdr_cli.reports import page_report
from ktrdr_cli.submitting import NAMING, WAITING, Submission, see_through, show_detached, submit, with_options
from ktrdr_cli.watching import detachable, follow_all, outcome
from ktrdr_zmq.errors import UsageError

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.handles import AsyncJob


@click.command("report", cls=Command)
@click.argument("job", default="last")
@click.option("--output", "-o", metavar="FILE", help="The file to write; report-JOB.html in this folder by default.")
@click.option("--open", "open_", is_flag=True, help="Open the page in a browser when it is there.")
@with_options(NAMING, WAITING)
def report(job: str, output: str | None, open_: bool, **options: Any) -> None:
    """Make a page of a backtest, of the last one by default: figures, curves, trades, conventions, training, provenance.

    A worker renders it; what comes is one file of HTML that needs no network. It replaces a file of that name.
    """
    shown = face()
    how = Submission(**options)
    _target(output, "")  # a place that cannot be written to is told before anything is done
    ids: list[str] = []

    async def work(client: AsyncClient) -> None:
        from ktrdr_zmq.followups import report

        backtest = await client.job("last:backtesting" if job == "last" else job)
        await _await(backtest, shown)
        target = _target(output, backtest.id)
        request = await report(client, backtest, **{**how.request_options(shown), "device": "cpu"}, name=how.name)
        making = await submit(client, request, shown, ids)
        if how.detach:
            show_detached(shown, await making.status())
            return
        result, info = await see_through(making, shown, f"report {request.name}")
        await making.artifact("report", target)
        where = f"The page is {target}"
        shown.out.show({**outcome(info), "result": dict(result), "path": str(target)}, *page_report(result.document, info), where,
                       essence=[str(target)])  # fmt: skip
        if open_:
            _open(target, shown)

    with detachable(lambda: ids):
        talk(work)


def _target(output: str | None, job_id: str) -> Path:
    """Where the page goes.

    Raises
    ------
    UsageError
        When nothing can be written there.
    """
    target = Path(output or f"report-{job_id[:8]}.html").absolute()
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file, as in -o {target / 'report.html'}.")
    if not target.parent.is_dir():
        raise UsageError(f"The folder {target.parent} does not exist.")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"The folder {target.parent} cannot be written to.")
    return target


async def _await(job: AsyncJob, shown: Face) -> None:
    """Watch a backtest that still runs to its end; anything else is told by who looks at it next."""
    info = await job.status()
    if info.kind == "backtesting" and not info.terminal:
        shown.out.note(f"Backtest {info.id[:8]} is {info.state.value}; waiting for it.")
        with shown.out.progress() as meter:
            await follow_all([job], meter)


def _open(page: Path, shown: Face) -> None:
    import webbrowser

    if not webbrowser.open(page.as_uri()):
        shown.out.note("No browser could be opened here.")
