"""Opens CSV files: columns of texts, or at once of numbers where all is as it should be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars.checks import Problem, problem
from ktrdr_worker.trading.bars.table import DataError
from ktrdr_zmq.strategy.formats import CANONICAL, BarFormat

MAGIC: Final = (
    (b"\x1f\x8b", "is compressed by gzip; unpack it first."),
    (b"PK\x03\x04", "is a ZIP archive or an Excel workbook, and no CSV; unpack it, or save it as CSV."),
    (b"\xff\xfe", "is no UTF-8 text but UTF-16; save it as UTF-8."),
    (b"\xfe\xff", "is no UTF-8 text but UTF-16; save it as UTF-8."),
)
EXACT: Final[dict[str, Any]] = {} if int(pd.__version__.partition(".")[0]) >= 3 else {"float_precision": "round_trip"}
"""How pandas reads a number as Python does, to the last bit: the same bars everywhere."""
PIECE: Final = 200_000
"""Rows that are read at a time: some tenths of a second."""
FIELDS: Final = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
SIGNS: Final = 4
"""Separators that the first line of a file of bars has at least: a time and four prices."""
NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


def refuse_others(path: Path, name: str) -> None:
    """Raise for a file that is obviously no CSV.

    Raises
    ------
    DataError
    """
    with path.open("rb") as file:
        head = file.read(65_536)
    for magic, what in MAGIC:
        if head.startswith(magic):
            raise DataError(f"{name} {what}")
    if b"\0" in head:
        raise DataError(f"{name} is no text: it has a zero octet at {head.index(bytes(1))}.")


def read_texts(path: Path, name: str, form: BarFormat, **options: Any) -> pd.DataFrame:
    """All columns as texts; those of a file with a header are named by it, in small letters, others ``#1``, ``#2`` and so on.

    Raises
    ------
    DataError
        When it is no regular CSV.
    """
    try:
        table = pd.read_csv(
            path, sep=form.separator, header=None, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig",
            encoding_errors="strict", **options,
        )  # fmt: skip
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is no UTF-8 text: {error.reason} at octet {error.start}.") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{name} is empty.") from None
    except pd.errors.ParserError as error:
        raise _irregular(path, name, form, str(error).strip()) from None
    table = table.fillna("")
    if form.headless:
        table.columns = [f"#{number}" for number in range(1, table.shape[1] + 1)]
        return table
    table.columns = [str(column).strip().lower() for column in table.iloc[0]]  # by hand, because pandas would rename doubles
    return table.iloc[1:].reset_index(drop=True)


def _irregular(path: Path, name: str, form: BarFormat, told: str) -> DataError:
    """What pandas told, in our words."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        hint = separator_hint(file.readline(), form)
    counts = FIELDS.search(told)
    if counts is None:
        return DataError(f"{name} is no regular CSV: {told}", hint=hint)
    expected, row, seen = counts.groups()
    return DataError(f"{name}, row {row}: it has {seen} fields, where {expected} were expected.", hint=hint)


def separator_hint(header: str, form: BarFormat) -> str:
    """What to say where a file's first line is obviously separated by another sign; else empty."""
    for sign, said in ((";", "';'"), ("\t", "tab"), ("|", "'|'"), (",", "','")):
        if form.separator not in header and header.count(sign) >= SIGNS:
            return (
                f"Its columns seem to be separated otherwise: ktrdr data import --separator {said}, and --decimal ',' if prices have one."
            )
    return ""


def read_fast(path: Path, places: dict[str, int], tick: Callable[[float], None]) -> dict[str, Any] | None:
    """Columns of a canonical file, numbers as numbers; None where anything is unusual, so that the slow way has to say what.

    Parameters
    ----------
    places : dict of str to int
        Which column each field is, from 0.
    tick : callable
        Gets the share that is read, about, before each piece, and may raise to stop.
    """
    types = {place: str if field == "time" else np.float64 for field, place in places.items()}
    try:
        pieces: list[pd.DataFrame] = []
        with path.open("rb") as file, pd.read_csv(
            file, header=None, skiprows=1, dtype=types, keep_default_na=False, skip_blank_lines=False, low_memory=False,
            encoding="utf-8-sig", encoding_errors="strict", chunksize=PIECE, **EXACT,
        ) as reader:  # fmt: skip
            size = path.stat().st_size
            tick(0.0)
            for piece in reader:
                pieces.append(piece)
                tick(file.tell() / size)
        table = pd.concat(pieces, ignore_index=True)
        found = {field: table[place] for field, place in places.items()}
    except (ValueError, KeyError, pd.errors.ParserError, pd.errors.EmptyDataError):
        return None
    clean = all(in_bounds(column.to_numpy(), field).all() for field, column in found.items() if field != "time")
    return found if clean else None


def to_numbers(texts: Any, field: str, rows: Array, form: BarFormat) -> tuple[Array, list[Problem]]:
    """A column of texts as numbers, NaN where one is none that this field may have."""
    plain = texts.str.strip()
    if form.thousands:
        sign, point = "\\" + form.thousands, "\\" + form.decimal
        grouped = plain.str.fullmatch(rf"[+-]?\d{{1,3}}(?:{sign}\d{{3}})+(?:{point}\d+)?")
        plain = plain.where(~grouped, plain.str.replace(form.thousands, "", regex=False))
    if form.decimal != ".":
        plain = plain.where(~plain.str.contains(".", regex=False), "")  # a point is no decimal sign here
        plain = plain.str.replace(form.decimal, ".", regex=False)
    right = plain.str.fullmatch(NUMBER)
    values: Array = plain.where(right, "nan").to_numpy(dtype=object).astype(np.float64)
    return limit(values, field, rows, lambda row: repr(texts.iloc[row][:40]), form)


def limit(values: Array, field: str, rows: Array, show: Any, form: BarFormat) -> tuple[Array, list[Problem]]:
    """Leave only what a field may have: prices above 0, volumes of 0 or more; NaN stands for the rest."""
    wrong = ~in_bounds(values, field)
    what = "a number of 0 or more" if field == "volume" else "a price above 0"

    def describe(row: int) -> str:
        return f"the {field} {show(row)} is not {what}."

    found = problem(f"{'volume' if field == 'volume' else 'price'}", wrong, rows, describe)
    if found and form == CANONICAL and any(sign in show(int(np.flatnonzero(wrong)[0]))[1:-1] for sign in (",", "'", " ")):
        found = [found[0]._replace(hint="ktrdr data import has --decimal and --thousands for numbers that are written in another way.")]
    return (np.where(wrong, np.nan, values) if found else values), found


def in_bounds(values: Array, field: str) -> Array:
    """Which of these a price or a volume may be."""
    right: Array = np.isfinite(values) & ((values >= 0) if field == "volume" else (values > 0))
    return right
