"""From a file to columns of numbers; what cannot be read becomes problems. Knows the names of columns, judges no row by another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars import parquet
from ktrdr_worker.trading.bars.checks import Columns, Problem, problem
from ktrdr_worker.trading.bars.moments import Moments, read_moments
from ktrdr_worker.trading.bars.table import PRICES, DataError
from ktrdr_worker.trading.bars.text import PIECE, limit, read_fast, read_texts, refuse_others, separator_hint, to_numbers
from ktrdr_zmq.strategy.formats import CANONICAL, BarFormat

TIME_NAMES: Final = ("timestamp", "time", "date", "datetime")
NUMBERS: Final = (*PRICES, "volume")


class Reading(NamedTuple):
    """A file as columns, what could not be read, ignored columns, how many local times were converted, whether volume is there."""

    columns: Columns
    problems: list[Problem]
    ignored: list[str]
    converted: int
    volume: bool


def read(
    path: Path, name: str, timeframe: str, form: BarFormat = CANONICAL, tick: Callable[[float], None] = lambda _share: None
) -> Reading:
    """Read a file of bars, CSV or Parquet.

    Parameters
    ----------
    path : Path
    name : str
        What to call it in messages.
    timeframe : str
        Of its bars.
    form : BarFormat
        How it is written.
    tick : callable, optional
        Gets the share that is read, 0 to 1, again and again, and may raise to stop.

    Raises
    ------
    DataError
        When it is no such file as a whole: no regular CSV, no readable Parquet, columns that are missing or doubled, no rows.
    """
    if parquet.is_parquet(path):
        return _read_parquet(path, name, timeframe, form)
    refuse_others(path, name)
    first_row = 1 if form.headless else 2
    if form == CANONICAL:
        head = list(read_texts(path, name, form, nrows=2).columns)
        fields = _fields(head, form, name)
        fast = read_fast(path, {field: head.index(column) for field, (column,) in fields.items()}, lambda share: tick(0.75 * share))
        if fast is not None:
            rows = _rows(len(fast["time"]), first_row)
            moments = _in_pieces(fast["time"], rows, form, timeframe, lambda share: tick(0.75 + share / 4))
            return _put_together(fast, [], _ignored(head, fields), rows, timeframe, form, moments)
    table = read_texts(path, name, form)
    fields = _fields(list(table.columns), form, name)
    if table.empty:
        raise DataError(f"{name} has a header and no rows.")
    rows = _rows(len(table), first_row)
    blank = (table == "").all(axis=1).to_numpy()
    found = problem("empty_row", blank, rows, lambda _: "the row is empty.")
    table, rows = table[~blank].reset_index(drop=True), rows[~blank]
    raw = {field: _joined(table, columns) for field, columns in fields.items()}
    return _put_together(raw, found, _ignored(list(table.columns), fields), rows, timeframe, form)


def _read_parquet(path: Path, name: str, timeframe: str, form: BarFormat) -> Reading:
    columns = parquet.read_columns(path, name)
    fields = _fields(list(columns), form, name)
    raw: dict[str, Any] = {}
    for field, parts in fields.items():
        if any(columns[part] is None for part in parts):
            raise DataError(f"{name}: the column {parts[0]} has a type that cannot be a bar's {field}.")
        raw[field] = _joined(columns, parts) if len(parts) > 1 else columns[parts[0]]
    if not len(raw["time"]):
        raise DataError(f"{name} has no rows.")
    return _put_together(raw, [], _ignored(list(columns), fields), _rows(len(raw["time"]), 1), timeframe, form)


def _rows(count: int, first: int) -> Array:
    return np.arange(first, first + count, dtype=np.int64)


def _joined(table: Any, columns: Sequence[str]) -> Any:
    """One column, or two texts with a space between."""
    joined = table[columns[0]]
    for column in columns[1:]:
        joined = joined.str.strip() + " " + table[column].str.strip()
    return joined


def _ignored(names: Sequence[str], fields: dict[str, list[str]]) -> list[str]:
    used = {column for columns in fields.values() for column in columns}
    return [column for column in names if column not in used]


def _fields(names: Sequence[str], form: BarFormat, name: str) -> dict[str, list[str]]:
    """Which columns of a file are a bar's time, prices and volume."""
    found: dict[str, list[str]] = {}
    missing = []
    for field in ("time", *NUMBERS):
        said = [part.strip().lower() for part in form.columns.get(field, "").split("+")] if field in form.columns else None
        usual = [column for column in TIME_NAMES if column in names][:1] if field == "time" else [field]
        columns = said or usual
        if columns and all(column in names for column in columns):
            found[field] = columns
        elif said is not None or field != "volume":  # only volume may be absent, if nobody spoke of it
            missing += [column for column in columns if column not in names] or ["timestamp"]
    doubled = [column for columns in found.values() for column in columns if names.count(column) > 1]
    if doubled:
        raise DataError(f"{name} has the column {doubled[0]} twice.")
    if missing:
        hint = separator_hint(names[0], form) if len(names) == 1 else ""
        if not hint and not form.columns:
            hint = "ktrdr data import --columns time=Date,open=O,... says which is which."
        raise DataError(f"{name} lacks the columns: {', '.join(missing)}. It has: {', '.join(names)[:200]}.", hint=hint)
    return found


def _in_pieces(texts: Any, rows: Array, form: BarFormat, timeframe: str, tick: Callable[[float], None]) -> Moments:
    """`read_moments`, a piece at a time; where one has a problem, all at once, so that it is told as a whole."""
    parts = []
    for start in range(0, len(rows), PIECE):
        tick(start / len(rows))
        part = slice(start, start + PIECE)
        parts.append(read_moments(texts.iloc[part].reset_index(drop=True), rows[part], form, timeframe))
        if parts[-1].problems:
            return read_moments(texts, rows, form, timeframe)
    return Moments(np.concatenate([part.opens for part in parts]), [], sum(part.converted for part in parts))


def _put_together(
    raw: dict[str, Any], problems: list[Problem], ignored: list[str], rows: Array, timeframe: str, form: BarFormat,
    moments: Moments | None = None,
) -> Reading:  # fmt: skip
    moments = moments or read_moments(raw["time"], rows, form, timeframe)
    problems = problems + moments.problems
    numbers: dict[str, Array] = {}
    for field in NUMBERS:
        column = raw.get(field)
        if column is None:
            numbers[field] = np.zeros(len(rows))
        elif isinstance(column, pd.Series) and not pd.api.types.is_float_dtype(column):
            numbers[field], found = to_numbers(column, field, rows, form)
            problems += found
        else:
            values = np.asarray(column, dtype=np.float64)
            numbers[field], found = limit(values, field, rows, lambda row, values=values: f"{values[row]:g}", form)
            problems += found
    columns = Columns(moments.opens, **numbers, rows=rows)
    return Reading(columns, problems, ignored, moments.converted, "volume" in raw)
