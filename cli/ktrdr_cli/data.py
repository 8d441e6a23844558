"""``ktrdr data``: the bars that jobs can use from here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ktrdr_cli.blocks import DASH, Column, Table
from ktrdr_cli.common import face, group
from ktrdr_cli.submitting import data_folder
from ktrdr_cli.texts import octets
from ktrdr_zmq.errors import UsageError


@group("data")
def data() -> None:
    """List the bars that jobs can use."""


@data.command("list")
@click.option("--data-dir", metavar="D", help="Folder with your own bars, named SYMBOL_TIMEFRAME.csv.")
def list_(data_dir: str | None) -> None:
    """List your own files of bars and the built-in ones. Your own come first; longer bars are made from shorter ones."""
    from ktrdr_zmq.samples import list_samples

    documents: list[dict[str, Any]] = []
    folder = data_folder(data_dir)
    if folder is not None:
        documents += own_files(Path(folder).expanduser())
    for sample in list_samples():
        documents.append({
            "symbol": sample.symbol, "timeframe": sample.timeframe, "origin": "built-in", "path": str(sample.path), "bars": sample.bars,
            "first": sample.first, "last": sample.last, "source": sample.source, "licence": str(sample.licence),
            "size": Path(sample.path).stat().st_size,
        })  # fmt: skip
    columns = [
        Column("SYMBOL", whole=True), Column("BARS OF", whole=True), Column("FROM", whole=True), Column("BARS", right=True),
        Column("FIRST"), Column("LAST"), Column("SIZE", right=True), Column("SOURCE"),
    ]  # fmt: skip
    rows = [
        [
            d["symbol"], d["timeframe"], d["origin"], f"{d['bars']:,}" if "bars" in d else DASH, str(d.get("first", DASH))[:10],
            str(d.get("last", DASH))[:10], octets(d["size"]), d.get("source", d["path"]),
        ]
        for d in documents
    ]  # fmt: skip
    essence = [f"{d['symbol']} {d['timeframe']} {d['path']}" for d in documents]
    face().out.show({"schema": 1, "data": documents}, Table(columns, rows), essence=essence)


def own_files(folder: Path) -> list[dict[str, Any]]:
    """Files of bars in a folder, by their names; they are read by a worker when a job needs them.

    Raises
    ------
    UsageError
        When there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"The data folder {folder} does not exist.")
    from ktrdr_zmq.strategy.timeframes import MINUTES

    found = []
    for path in sorted(folder.glob("*_*.csv")):
        symbol, _, timeframe = path.stem.rpartition("_")
        if timeframe not in MINUTES or not path.is_file():  # jobs do not see it either
            continue
        found.append({"symbol": symbol, "timeframe": timeframe, "origin": "data-dir", "path": str(path), "size": path.stat().st_size})
    return found
