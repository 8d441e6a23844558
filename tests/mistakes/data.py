"""Mistakes in a file of bars, or in what is asked of it: found by the worker, so that the job fails (exit 1) and leaves nothing."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Lines = list[str]


class InData(NamedTuple):
    """One mistake: ``what`` is the matter with the file, ``make`` changes its lines; ``asked`` is what of the job's body is otherwise."""

    what: str
    make: Callable[[Lines], Lines | bytes]
    asked: dict[str, Any] | None = None


def line(row: int, change: Callable[[list[str]], Sequence[str]]) -> Callable[[Lines], Lines]:
    """Change the fields of a row, counted from 1 with the header: time, open, high, low, close, volume."""

    def made(lines: Lines) -> Lines:
        return [*lines[: row - 1], ",".join(change(lines[row - 1].split(","))), *lines[row:]]

    return made


def field(row: int, place: int, text: str) -> Callable[[Lines], Lines]:
    """Put a text into one field of a row."""
    return line(row, lambda fields: [*fields[:place], text, *fields[place + 1 :]])


def asked(**overrides: Any) -> dict[str, Any]:
    """What is set in the strategy."""
    return {"overrides": {key.replace("__", "."): value for key, value in overrides.items()}}


def same(lines: Lines) -> Lines:
    """The file is right."""
    return lines


def flat(lines: Lines) -> Lines:
    """Prices that do not move for 60 hours."""
    price = lines[300].split(",")[1]
    return [one if not 300 <= index < 360 else f"{one.split(',')[0]},{price},{price},{price},{price},0" for index, one in enumerate(lines)]


DATA = [
    InData("It is empty.", lambda _: []),
    InData("It has a header and nothing else.", lambda lines: lines[:1]),
    InData("It has no header.", lambda lines: lines[1:]),
    InData("A column is missing.", lambda lines: [one.rpartition(",")[0].rpartition(",")[0] for one in lines]),
    InData("A column is there twice.", lambda lines: [f"{lines[0]},close", *(f"{one},1" for one in lines[1:])]),
    InData("Its columns are separated by semicolons.", lambda lines: [one.replace(",", ";") for one in lines]),
    InData("A row has too many fields.", lambda lines: [*lines[:9], lines[9] + ",1,2", *lines[10:]]),
    InData("A row is empty.", lambda lines: [*lines[:9], "", *lines[9:]]),
    InData("A date is written otherwise.", field(7, 0, "02.01.2017 03:00")),
    InData("A date is none.", field(7, 0, "2017-02-30T03:00:00Z")),
    InData("A year lies beyond reason.", field(7, 0, "1017-01-02T03:00:00Z")),
    InData("A price is a word.", field(12, 4, "n/a")),
    InData("A price is missing.", field(12, 4, "")),
    InData("A price is 0.", field(12, 3, "0")),
    InData("A price is below 0.", field(12, 1, "-1.05")),
    InData("A price is infinite.", field(12, 2, "inf")),
    InData("A price has a decimal comma.", field(12, 2, '"1,0545"')),
    InData("A volume is below 0.", field(12, 5, "-3")),
    InData("A high lies below the close.", line(20, lambda f: [f[0], f[1], f[3], f[3], f[4], f[5]])),
    InData("A low lies above the open.", line(20, lambda f: [f[0], f[1], f[2], f[2], f[4], f[5]])),
    InData("A time is there twice.", lambda lines: [*lines[:30], lines[29], *lines[30:]]),
    InData("Two rows stand in the wrong order.", lambda lines: [*lines[:30], lines[31], lines[30], *lines[32:]]),
    InData("Bars of another timeframe.", field(31, 0, "2017-01-03T03:30:00Z")),
    InData("A time that is no full hour.", line(9, lambda f: [f[0].replace(":00:00", ":07:00"), *f[1:]])),
    InData("It is compressed.", lambda lines: gzip.compress("\n".join(lines).encode(), mtime=0)),
    InData("It is a workbook.", lambda _: b"PK\x03\x04" + bytes(60)),
    InData("It is UTF-16.", lambda lines: "\n".join(lines).encode("utf-16")),
    InData("It is in some old encoding.", lambda lines: b"# caf\xe9\n" + "\n".join(lines).encode()),
    InData("It has zero octets.", lambda lines: "\n".join(lines[:50]).encode() + bytes(100)),
    InData("It is too short for the indicators.", lambda lines: lines[:20]),
    InData("It is too short for three parts.", lambda lines: lines[:90]),
    InData("It has less history than the strategy requires.", same, asked(training_data__history_required=9000)),
    InData("It has no whole week.", lambda lines: lines[:100], asked(training_data__timeframes__timeframe="1w")),
    InData("Nothing lies between start and end.", same, {"start": "2018-06-01T00:00:00+00:00"}),
    InData("The prices stand still.", flat),
    InData("Every label is the same.", same, asked(training__labels__threshold=100.0)),
    InData("A bar lies across the end of a day.", lambda lines: [lines[0], *lines[2:402:4]], {
        **asked(training_data__timeframes__timeframe="1d"), "source": "4h",
    }),
]  # fmt: skip
