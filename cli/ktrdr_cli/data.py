"""``ktrdr data``: the bars that jobs can use: one's own, those in the cluster, the built-in ones; importing, checking, removing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from ktrdr_cli.common import face, finish, group, talk
from ktrdr_cli.datareports import check_report, dataset_report, dataset_table, import_report
from ktrdr_cli.submitting import DATA_DIR, cluster_data, data_folder, key_values, see_through, show_detached, submit, with_options
from ktrdr_cli.watching import detachable, outcome
from ktrdr_zmq.errors import EXIT_FAILED, UsageError

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.datasets import Dataset
    from ktrdr_zmq.handles import JobRequest

F = TypeVar("F", bound=Callable[..., Any])

FORMAT: tuple[Callable[[F], F], ...] = (
    click.option(
        "--columns", metavar="FIELD=NAME,...",
        help="The file's names for time, open, high, low, close, volume, as in time=Date,open=O; time=Date+Time joins two; #1, #2 and so "
        "on are the columns of a file without a header.",
    ),
    click.option("--timezone", metavar="ZONE", help="Of times without an offset: Europe/Berlin, or +02:00 all year. UTC by default."),
    click.option("--separator", metavar="SIGN", help="Between columns; tab for a tabulator. A comma by default."),
    click.option("--decimal", metavar="SIGN", help="Before decimals: . or , (a point by default)."),
    click.option("--thousands", metavar="SIGN", help="Between thousands, as in 1,234.5; none by default."),
    click.option(
        "--date-format", metavar="FORMAT",
        help="How times are written, as for strptime: '%d.%m.%Y %H:%M'; or unix, unix-ms, unix-us. ISO 8601 by default.",
    ),
    click.option(
        "--duplicates", type=click.Choice(["error", "first", "last", "identical"]),
        help="A time that is there twice: an error (the default), keep the first or the last row, or drop only rows that say the same.",
    ),
    click.option("--bar-time", type=click.Choice(["open", "close"]), help="Whether a time is that of a bar's open (the default) or close."),
)  # fmt: skip

SENDING: tuple[Callable[[F], F], ...] = (
    click.option("--queue", is_flag=True, help="Let the job wait if no worker can run it now, instead of being refused."),
    click.option("--detach", "-d", is_flag=True, help="Return as soon as the broker has the job."),
)


@group("data")
def data() -> None:
    """Import, list, show, check and remove bars that jobs can use.

    A job that names symbol and timeframe finds its bars in your own folder (--data-dir or KTRDR_DATA_DIR), else among those that were
    imported into the cluster, else among the built-in ones. Longer bars are made from shorter ones.
    """


def format_of(options: dict[str, Any]) -> dict[str, Any]:
    """Take what was said of a file out of a command's options."""
    said = {
        name: options.pop(name)
        for name in ("timezone", "separator", "decimal", "thousands", "date_format", "duplicates", "bar_time")
    }  # fmt: skip
    columns = options.pop("columns")
    if said["separator"] in ("tab", "\\t"):
        said["separator"] = "\t"
    form = {name: value for name, value in said.items() if value is not None}
    return form | ({"columns": key_values(columns.split(","), "--columns")} if columns else {})


@data.command("import")
@click.argument("file", type=click.Path(dir_okay=False), metavar="FILE")
@click.option("--symbol", required=True, metavar="SYMBOL", help="Whose bars they are, for example EURUSD.")
@click.option("--timeframe", required=True, metavar="T", help="Length of a bar in the file, for example 1h.")
@with_options(FORMAT)
@click.option("--output", type=click.Path(file_okay=False), metavar="FOLDER", help="Also save the canonical file in this folder.")
@with_options(SENDING)
def import_(file: str, symbol: str, timeframe: str, output: str | None, queue: bool, detach: bool, **options: Any) -> None:
    """Import a file of bars (CSV or Parquet): a worker checks it and makes the canonical file, which jobs of anybody find then.

    Nothing is guessed, repaired or filled in; the first thing that is wrong ends it ('ktrdr data check' shows all). What was changed is
    counted. A later import of the same symbol and timeframe takes the place of the former.
    """
    from ktrdr_zmq.datasets import BARS, importing

    shown = face()
    request = importing(file, symbol, timeframe, format_of(options), queue=queue)
    if output is not None and detach:
        raise UsageError("--output waits for the file; leave --detach away.")
    folder = Path(output).expanduser() if output is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    ids: list[str] = []

    async def work(client: AsyncClient) -> None:
        job = await submit(client, request, shown, ids)
        if detach:
            show_detached(shown, await job.status())
            return
        result, info = await see_through(job, shown, f"importing {request.name}")
        saved = []
        if folder is not None:
            saved.append(str(await job.artifact(BARS, folder / f"{request.name}.csv")))
        document = {**outcome(info), "result": dict(result), "saved": saved}
        shown.out.show(document, *import_report(dict(result), info, saved), essence=[job.id])

    with detachable(lambda: ids):
        talk(work)


@data.command("list")
@DATA_DIR
def list_(data_dir: str | None) -> None:
    """List your own files of bars, those in the cluster and the built-in ones, in the order in which jobs look for them."""
    from ktrdr_zmq.datasets import built_in, own

    shown = face()
    mine = own(data_folder(data_dir))
    found = [*mine, *cluster_data(shown), *built_in()]
    documents = [msgspec.to_builtins(each) for each in found]
    shown.out.show({"schema": 1, "data": documents}, dataset_table(found), essence=[f"{each.origin} {each.name}" for each in found])


@data.command("show")
@click.argument("name", metavar="SYMBOL[_TIMEFRAME]")
@DATA_DIR
def show(name: str, data_dir: str | None) -> None:
    """Show what a set of bars has: range, gaps, digest, source, and the timeframes that can be made of it.

    For an import this is known; your own and the built-in files are read by a worker.
    """
    from ktrdr_zmq import payload
    from ktrdr_zmq.artifacts import file_digest
    from ktrdr_zmq.datasets import built_in, checking, known_to, named, own

    shown = face()
    mine = own(data_folder(data_dir))

    async def work(client: AsyncClient) -> tuple[Dataset, dict[str, Any]]:
        found = named(name, [*mine, *await known_to(client), *built_in()])[0]
        if found.job_id:
            return found, dict(payload.unpack(await client.fetch_result(found.job_id)))
        job = await client.submit_request(checking(found.source, found.filename, found.symbol, found.timeframe))
        result, _ = await see_through(job, shown, f"reading {found.filename}")
        return found, {**result, "digest": file_digest(Path(found.path)).hex()}

    found, result = talk(work)
    shown.out.show(
        {"schema": 1, "dataset": msgspec.to_builtins(found), "result": result}, *dataset_report(found, result), essence=[found.name]
    )
    finish(0 if result.get("good", True) else EXIT_FAILED)


@data.command("check")
@click.argument("source", metavar="FILE|SYMBOL[_TIMEFRAME]")
@click.option("--symbol", default="", metavar="SYMBOL", help="Whose bars they are, if the file's name does not say it.")
@click.option("--timeframe", default="", metavar="T", help="Length of a bar in the file, if its name does not say it.")
@with_options(FORMAT)
@DATA_DIR
@with_options(SENDING)
def check(source: str, symbol: str, timeframe: str, data_dir: str | None, queue: bool, detach: bool, **options: Any) -> None:
    """Check a file of bars on a worker, and show every kind of problem with its first row. Exit code 1 if there is any.

    The file is read as a job would read it; with options of 'ktrdr data import', as that would.
    """
    from ktrdr_zmq.datasets import built_in, known_to, own, to_check

    shown = face()
    form, mine = format_of(options), own(data_folder(data_dir))
    ids: list[str] = []

    def make(known: list[Dataset]) -> JobRequest:
        return to_check(source, symbol, timeframe, [*mine, *known, *built_in()], form, queue=queue)

    async def work(client: AsyncClient) -> bool:
        job = await submit(client, make(await known_to(client)), shown, ids)
        if detach:
            show_detached(shown, await job.status())
            return True
        result, info = await see_through(job, shown, f"checking {Path(source).name}")
        shown.out.show(
            {**outcome(info), "result": dict(result)}, *check_report(dict(result)), essence=["good" if result["good"] else "bad"]
        )
        return bool(result["good"])

    with detachable(lambda: ids):
        good = talk(work)
    finish(0 if good else EXIT_FAILED)


@data.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="SYMBOL_TIMEFRAME[@N]...")
def rm(names: tuple[str, ...]) -> None:
    """Remove imported bars: all versions of a name, the N-th, or one by its import's id. Nothing else removes them.

    Models and results that were made of them stay.
    """
    from ktrdr_zmq.datasets import known_to, named

    shown = face()

    async def work(client: AsyncClient) -> tuple[list[Dataset], int]:
        there = await known_to(client)
        found = list({each.job_id: each for name in names for each in named(name, there)}.values())
        return found, int((await client.admin("rm", refs=[each.job_id for each in found]))["removed"])

    found, removed = talk(work)
    words = [f"{each.name}@{each.version}" for each in found]
    document = {"schema": 1, "removed": removed, "data": words, "job_ids": [each.job_id for each in found]}
    shown.out.show(document, f"Removed {removed} of {len(found)}: {', '.join(words)}", essence=words)
