"""What commands show to people: texts, tables, and names with values; and their plain form. Pure: prints nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ktrdr_zmq import figures

DASH: Final = figures.DASH
"""Stands where there is no value."""


class Column(NamedTuple):
    """A column of a table. ``right`` aligns numbers, which are never cut; nor is ``whole``."""

    title: str
    right: bool = False
    whole: bool = False


class Table(NamedTuple):
    """Rows under titles; ``empty`` is said instead where there are none. ``strong`` rows are emphasised."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""
    empty: str = ""
    strong: frozenset[int] = frozenset()


class Fields(NamedTuple):
    """Names and values; a value with several lines is indented."""

    rows: Sequence[tuple[str, str]]
    title: str = ""


Block = str | Table | Fields


def clean(text: str) -> str:
    """A text without control characters: a job's name must not steer the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def spaced(blocks: Sequence[Block]) -> Iterator[tuple[str, Block]]:
    """Blocks with what stands before each: an empty line, but not between two texts."""
    before: Block | None = None
    for block in blocks:
        if block != "":
            yield "" if before is None or (isinstance(before, str) and isinstance(block, str)) else "\n", block
            before = block


def plain_text(block: Block) -> str:
    """A block without colour, and with nothing cut."""
    if isinstance(block, str):
        return clean(block)
    lines = [clean(block.title)] if block.title else []
    if isinstance(block, Fields):
        width = max((len(name) for name, _ in block.rows), default=0) + 2
        return "\n".join([*lines, *(_field(name, value, width) for name, value in block.rows)])
    if not block.rows:
        return "\n".join([*lines, block.empty]) if block.empty else "\n".join(lines)
    table = [[column.title for column in block.columns], *([clean(cell) for cell in row] for row in block.rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(block.columns))]
    for row in table:
        cells = [
            cell.rjust(width) if column.right else cell.ljust(width) for cell, width, column in zip(row, widths, block.columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _field(name: str, value: str, width: int) -> str:
    first, _, rest = clean(value).partition("\n")
    line = f"{name:<{width}}{first}".rstrip()
    return f"{line}\n{textwrap.indent(rest, ' ' * width)}" if rest else line
