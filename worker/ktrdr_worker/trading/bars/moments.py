"""Reads the times of a file: ISO 8601, other forms, numbers; without an offset or with one. Guesses nothing: what can be read in two ways
is a problem.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from ktrdr_worker.trading.arrays import Array
from ktrdr_worker.trading.bars.checks import Problem, problem
from ktrdr_worker.trading.bars.table import NO_TIME, DataError
from ktrdr_zmq.strategy.formats import EPOCHS, OFFSET, BarFormat
from ktrdr_zmq.strategy.timeframes import MINUTES

ISO: Final = r"(?:19|20|21)\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.0{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?"
"""Whole seconds of the years 1900 to 2199."""
HAS_OFFSET: Final = r".*(?:Z|:\d\d[+-]\d\d:?\d\d)"
YEARS: Final = (1900, 2199)


class Moments(NamedTuple):
    """The times of a file.

    Attributes
    ----------
    opens : array of int64, shape (n,)
        When the bars open, nanoseconds since 1970 (UTC); `NO_TIME` where that cannot be told.
    problems : list of Problem
    converted : int
        How many were local times of a zone other than UTC.
    """

    opens: Array
    problems: list[Problem]
    converted: int


def read_moments(column: Any, rows: Array, form: BarFormat, timeframe: str) -> Moments:
    """Make moments of a column.

    Parameters
    ----------
    column : Series of str or of datetimes, or array of float64
        As a file has it.
    rows : array of int64
        Where in the file each stands.
    form : BarFormat
        How times are written, their zone, and whether they are those of opens.
    timeframe : str

    Raises
    ------
    DataError
        When there is no such zone, or the format makes no sense.
    """
    zone = _zone(form.timezone)
    shift = pd.Timedelta(minutes=MINUTES[timeframe]) if form.bar_time == "close" else pd.Timedelta(0)
    texts = column if isinstance(column, pd.Series) and not pd.api.types.is_datetime64_any_dtype(column) else None
    aware, naive = _read(column, form)
    unread = aware.isna() & naive.isna()
    late = _outside(aware) | _outside(naive)
    opens: Array = np.full(len(rows), NO_TIME, dtype=np.int64)
    good = (aware.notna() & ~late).to_numpy()
    opens[good] = _nanoseconds(aware[good] - shift)
    local = (naive.notna() & ~late).to_numpy()
    by_calendar = shift if MINUTES[timeframe] >= MINUTES["1d"] else pd.Timedelta(0)  # a day is a date before it is 24 hours
    doubled: Array = np.zeros(len(rows), dtype=bool)
    skipped: Array = np.zeros(len(rows), dtype=bool)
    if local.any():
        opens[local], doubled[local], skipped[local] = _localize(naive[local] - by_calendar, zone)
        opens[local & ~doubled & ~skipped] -= (shift - by_calendar).value

    def shown(row: int) -> str:
        return repr(texts.iloc[row].strip()[:40]) if texts is not None else str(column[row])

    remedy = "Export the times in UTC or with their offsets, or give an offset that holds all year, as in --timezone +02:00."
    problems = [
        *problem("no_date", unread.to_numpy(), rows, lambda row: _no_date(shown(row), form), "" if form.date_format else _hint()),
        *problem("no_date", late.to_numpy(), rows, lambda row: f"{shown(row)} lies outside the years {YEARS[0]} to {YEARS[1]}."),
        *problem("two_times", doubled, rows, lambda row: f"{shown(row)} is there twice in {form.timezone}: clocks went back.", remedy),
        *problem("no_time", skipped, rows, lambda row: f"{shown(row)} is not there in {form.timezone}: clocks went forward.", remedy),
    ]
    return Moments(opens, problems, int(local.sum()) if form.timezone != "UTC" else 0)


def _hint() -> str:
    return "ktrdr data import reads other forms, for example with --date-format '%d.%m.%Y %H:%M'."


def _no_date(text: str, form: BarFormat) -> str:
    if form.date_format:
        return f"{text} is no date of the form {form.date_format}."
    return f"{text} is no date; write it as 2017-06-30T13:00:00Z (whole seconds)."


def _zone(name: str) -> dt.tzinfo:
    if OFFSET.fullmatch(name):
        sign = -1 if name[0] == "-" else 1
        return dt.timezone(sign * dt.timedelta(hours=int(name[1:3]), minutes=int(name[4:6])))
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise DataError(f"There is no time zone {name!r}.", hint="Write it as Europe/Berlin, America/New_York or +02:00.") from None


def _read(column: Any, form: BarFormat) -> tuple[Any, Any]:
    """Moments that are sure, in UTC, and those that are local; each with NaT for the others."""
    if isinstance(column, np.ndarray):
        if form.date_format not in EPOCHS:
            raise DataError("The times are numbers.", hint="Say what they count with --date-format unix, unix-ms or unix-us.")
        return _from_epoch(pd.Series(column), form), _none(len(column))
    if pd.api.types.is_datetime64_any_dtype(column):
        return (column, _none(len(column))) if column.dt.tz is not None else (_none(len(column), "UTC"), column)
    texts = column.str.strip()
    if form.date_format in EPOCHS:
        return _from_epoch(pd.to_numeric(texts.where(texts.str.fullmatch(r"\d{1,18}")), errors="coerce"), form), _none(len(texts))
    if form.date_format:
        try:
            found = pd.to_datetime(texts, format=form.date_format, errors="coerce", utc="%z" in form.date_format)
        except ValueError as error:
            raise DataError(f"The date format {form.date_format!r} cannot be used: {error}") from None
        return (found, _none(len(texts))) if found.dt.tz is not None else (_none(len(texts), "UTC"), found)
    texts = texts.where(texts.str.fullmatch(ISO))
    if form.timezone == "UTC":
        return pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce"), _none(len(texts))
    sure = texts.str.fullmatch(HAS_OFFSET).fillna(value=False).astype(bool)
    local = pd.to_datetime(texts.where(~sure), format="ISO8601", errors="coerce")
    return pd.to_datetime(texts.where(sure), utc=True, format="ISO8601", errors="coerce"), local


def _none(count: int, zone: str | None = None) -> Any:
    return pd.Series(pd.DatetimeIndex(np.full(count, "NaT", dtype="datetime64[us]"), tz=zone))


def _from_epoch(numbers: Any, form: BarFormat) -> Any:
    """Whole numbers since 1970; what lies far outside becomes a moment of the year 1, to be refused as such."""
    seconds = numbers * (EPOCHS[form.date_format] / 1e9)
    known = numbers.notna() & (numbers == np.floor(numbers)) & (seconds.abs() < 1e10)
    micros = np.where(known, numbers.where(known, 0) * (EPOCHS[form.date_format] // 1000), 0).astype(np.int64)
    return pd.Series(pd.DatetimeIndex(micros.astype("datetime64[us]"), tz="UTC")).where(known)


def _outside(moments: Any) -> Any:
    return moments.notna() & ~moments.dt.year.between(*YEARS)


def _nanoseconds(moments: Any) -> Array:
    plain: Array = pd.DatetimeIndex(moments).tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    return plain


def _localize(naive: Any, zone: dt.tzinfo) -> tuple[Array, Array, Array]:
    """Local times as moments; which of them are there twice, and which are not there at all."""
    times = pd.DatetimeIndex(naive)
    found = times.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    unsure: Array = np.asarray(found.isna())
    skipped: Array = unsure & np.asarray(times.tz_localize(zone, ambiguous=np.ones(len(times), dtype=bool), nonexistent="NaT").isna())
    opens: Array = np.where(unsure, NO_TIME, _nanoseconds(found.tz_convert("UTC")))
    return opens, unsure & ~skipped, skipped
