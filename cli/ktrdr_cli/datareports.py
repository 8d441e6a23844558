"""How sets of bars, imports and checks are shown to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ktrdr_cli.blocks import DASH, Block, Column, Fields, Table
from ktrdr_cli.texts import as_text, moment_text, octets

if TYPE_CHECKING:
    from ktrdr_zmq.datasets import Dataset
    from ktrdr_zmq.views import JobInfo


def dataset_table(found: Sequence[Dataset]) -> Table:
    """Sets of bars, one a row."""
    columns = [
        Column("SYMBOL", whole=True), Column("BARS OF", whole=True), Column("FROM", whole=True), Column("VERSION", right=True),
        Column("SIZE", right=True), Column("SOURCE"),
    ]  # fmt: skip
    rows = [
        [
            each.symbol, each.timeframe, each.origin, f"{each.version}{'' if each.current else ' (former)'}" if each.version else DASH,
            octets(each.size), each.about or each.path,
        ]
        for each in found
    ]  # fmt: skip
    return Table(columns, rows)


def import_report(result: Mapping[str, Any], info: JobInfo, saved: Sequence[str] = ()) -> list[Block]:
    """What an import made."""
    changed = {
        key.replace("_", " "): count for key, count in result["changed"].items() if count and key not in ("rows_read", "rows_written")
    }
    rows = [
        ("job", info.id),
        ("file", f"{result['filename']}, {result['changed']['rows_read']:,} rows"),
        ("changed", ", ".join(f"{what}: {count:,}" for what, count in changed.items()) or "nothing but the form"),
        ("digest", result["digest"]),
        *[("saved", path) for path in saved],
    ]
    title = f"Imported {result['symbol']} {result['timeframe']}: jobs of anybody find it now"
    return [Fields(rows, title=title), *summary_blocks(result["summary"]), *_notes(result["warnings"])]


def check_report(result: Mapping[str, Any]) -> list[Block]:
    """What a check found."""
    name = f"{result['filename']} ({result['symbol']} {result['timeframe']})"
    if result["good"]:
        return [f"{name} is good.", *summary_blocks(result["summary"])]
    columns = [Column("ROW", right=True), Column("TIMES", right=True), Column("PROBLEM")]
    rows = [[str(each["row"] or DASH), f"{each['times']:,}", each["text"]] for each in result["problems"]]
    hints = list(dict.fromkeys(each["hint"] for each in result["problems"] if each["hint"]))
    many = f"{len(rows)} kinds of problems" if len(rows) > 1 else "one kind of problem"
    return [Table(columns, rows, title=f"{name} has {many}; where it is first:"), *hints]


def dataset_report(found: Dataset, result: Mapping[str, Any]) -> list[Block]:
    """A set of bars, and what it has."""
    rows = [("from", found.origin), ("file", found.path or f"{found.filename}, version {found.version}"), ("size", octets(found.size))]
    if found.job_id:
        rows += [
            ("imported", f"{moment_text(found.imported)}, job {found.job_id}"),
            ("of", f"{result['filename']}, {result['source_digest']}"),
            ("written", written(result["format"])),
        ]
    rows.append(("digest", result["digest"]))
    rows += [(word, value) for word, value in (("source", found.about), ("licence", found.licence)) if value]
    blocks: list[Block] = [Fields(rows, title=f"{found.symbol} {found.timeframe}")]
    if not result.get("good", True):
        return [*blocks, *check_report(result)]
    return [*blocks, *summary_blocks(result["summary"])]


def written(form: Mapping[str, Any]) -> str:
    """What a person said of a file, where that differs from a canonical one."""
    from ktrdr_zmq.strategy.formats import CANONICAL

    said = {key: value for key, value in form.items() if value != getattr(CANONICAL, key)}
    return "\n".join(f"{key.replace('_', ' ')}: {as_text(value)}" for key, value in said.items()) or "as a canonical file"


def summary_blocks(summary: Mapping[str, Any]) -> list[Block]:
    """Range, gaps, and what can be made."""
    rows = [
        ("bars", f"{summary['bars']:,}, {summary['first']} to {summary['last']}"),
        ("gaps", f"{summary['gaps']:,} places, {summary['missing_bars']:,} bars" if summary["gaps"] else "none"),
    ]
    blocks: list[Block] = [Fields(rows)]
    if summary["largest_gaps"]:
        gaps = [[gap["after"], gap["before"], f"{gap['bars']:,}"] for gap in summary["largest_gaps"]]
        title = "The largest gaps; holidays are not known, and count"
        blocks.append(Table([Column("AFTER", whole=True), Column("BEFORE", whole=True), Column("BARS", right=True)], gaps, title=title))
    if summary["derived"]:
        made = [[each["timeframe"], f"{each['bars']:,}" if not each["why_not"] else DASH, each["why_not"]] for each in summary["derived"]]
        blocks.append(Table([Column("MAKES", whole=True), Column("BARS", right=True), Column("WHY NOT")], made))
    return blocks


def _notes(texts: Sequence[str]) -> list[Block]:
    return ["\n".join(f"Note: {text}" for text in texts)] if texts else []
