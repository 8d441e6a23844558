"""Bars: the strict reader of CSV files, coarser timeframes from finer ones, sessions. Nothing is invented and nothing is repaired.

A file has the columns timestamp, open, high, low, close and, if it likes, volume. A timestamp is a bar's OPEN in ISO 8601, UTC where it has
no offset. Whatever is wrong is an error that names file and row; gaps are counted, not filled.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.strategy.symbols import SymbolClass, classify
from ktrdr_zmq.strategy.timeframes import MINUTES, can_derive, parse_timeframe

MINUTE: Final = 60_000_000_000
DAY: Final = 1440 * MINUTE
PRICES: Final = ("open", "high", "low", "close")
TIME_NAMES: Final = ("timestamp", "time", "date", "datetime")
ISO: Final = r"(?:19|20|21)\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.0{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?"
"""Whole seconds of the years 1900 to 2199."""
SHORTEST: Final = {"1d": 20 * 60, "1w": 6 * 1440}
"""Minutes that must lie between two bars of a day or a week, whose length is only nominal."""


class DataError(UsageError):
    """The bars cannot be used."""

    code = "DATA"


class Bars(NamedTuple):
    """Bars of one symbol and timeframe.

    Attributes
    ----------
    symbol, timeframe : str
    opens : array of int64, shape (n,)
        Nanoseconds since 1970 (UTC) at which each bar opens, strictly rising.
    closes : array of int64, shape (n,)
        When each bar is complete: nothing of it is known before.
    open, high, low, close, volume : array of float64, shape (n,)
        Prices are above 0; volume is 0 where the file has none.
    sessions : array of int64, shape (n,)
        Number of the session a bar belongs to, never falling.
    """

    symbol: str
    timeframe: str
    opens: Array
    closes: Array
    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    sessions: Array


def cut(bars: Bars, first: int, last: int) -> Bars:
    """The bars from index `first` up to, and without, `last`."""
    columns: tuple[Any, ...] = tuple(bars)
    return Bars(bars.symbol, bars.timeframe, *(column[first:last] for column in columns[2:]))


class Loaded(NamedTuple):
    """Bars as a job asked for them, and what was noticed on the way."""

    bars: Bars
    gaps: int
    warnings: list[str]


def load(path: Path, name: str, symbol: str, source_timeframe: str, timeframe: str) -> Loaded:
    """Read a file, and make bars of the wanted timeframe.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What to call it in messages.
    symbol : str
    source_timeframe, timeframe : str
        Of the file, and wanted.

    Raises
    ------
    DataError
        For the first thing that is wrong in the file, with its row (the header is row 1), or when nothing is left.
    """
    if not can_derive(parse_timeframe(source_timeframe), parse_timeframe(timeframe)):
        raise DataError(f"Bars of {timeframe} cannot be made from bars of {source_timeframe} ({name}).")
    table = _read(path, name)
    opens = _times(table, name)
    columns = {column: _numbers(table, column, opens, name) for column in (*PRICES, "volume")}
    _check(opens, columns, source_timeframe, name)
    kind = classify(symbol)
    closes: Array = opens + MINUTES[source_timeframe] * MINUTE
    sessions = session_numbers(opens, source_timeframe, kind)
    source = Bars(
        symbol,
        source_timeframe,
        opens,
        closes,
        columns["open"],
        columns["high"],
        columns["low"],
        columns["close"],
        columns["volume"],
        sessions,
    )
    warnings: list[str] = []
    bars = source if timeframe == source_timeframe else derive(source, timeframe, kind, warnings, name)
    if not len(bars.opens):
        raise DataError(f"{name} has too few bars for a single complete one of {timeframe}.")
    return Loaded(bars, count_gaps(source, kind), warnings)


# ---------------------------------------------------------------- reading


def _read(path: Path, name: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding_errors="strict")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is no UTF-8 text: {error.reason} at octet {error.start}.") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{name} is empty.") from None
    except pd.errors.ParserError as error:
        raise DataError(f"{name} is no regular CSV: {error}") from None
    table.columns = [str(column).strip().lower() for column in table.iloc[0]]  # by hand, because pandas would rename doubles
    table = table.iloc[1:].fillna("").reset_index(drop=True)
    doubled = [column for column in (*TIME_NAMES, *PRICES, "volume") if (table.columns == column).sum() > 1]
    if doubled:
        raise DataError(f"{name} has the column {doubled[0]} twice.")
    missing = [column for column in PRICES if column not in table.columns]
    if missing or not any(column in table.columns for column in TIME_NAMES):
        wanted = ", ".join(["timestamp"] * (not any(column in table.columns for column in TIME_NAMES)) + missing)
        raise DataError(f"{name} lacks the columns: {wanted}. It has: {', '.join(table.columns)[:200]}.")
    if table.empty:
        raise DataError(f"{name} has a header and no rows.")
    return table


def _times(table: pd.DataFrame, name: str) -> Array:
    texts = table[next(column for column in TIME_NAMES if column in table.columns)].str.strip()
    parsed = pd.to_datetime(texts.where(texts.str.fullmatch(ISO)), utc=True, format="ISO8601", errors="coerce")
    wrong = parsed.isna()
    if wrong.any():
        row = int(np.flatnonzero(wrong.to_numpy())[0])
        raise DataError(f"{name}, row {row + 2}: {texts.iloc[row][:40]!r} is no date; write it as 2017-06-30T13:00:00Z (whole seconds).")
    result: Array = parsed.to_numpy(dtype="datetime64[ns]").astype(np.int64)
    return result


def _numbers(table: pd.DataFrame, column: str, opens: Array, name: str) -> Array:
    if column not in table.columns:  # only volume may be absent
        return np.zeros(len(opens))
    values: Array = pd.to_numeric(table[column].str.strip(), errors="coerce").to_numpy(dtype=np.float64)
    low = 0.0 if column == "volume" else np.nextafter(0.0, 1.0)
    wrong = ~(np.isfinite(values) & (values >= low))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        what = "a number of 0 or more" if column == "volume" else "a price above 0"
        raise DataError(f"{name}, row {row + 2}: the {column} {table[column].iloc[row][:40]!r} is not {what}.")
    return values


def _check(opens: Array, columns: dict[str, Array], timeframe: str, name: str) -> None:
    """What can be wrong between the columns of a row, and between rows."""
    steps = np.diff(opens)
    if (steps <= 0).any():
        row = int(np.flatnonzero(steps <= 0)[0]) + 1
        what = "is there twice" if steps[row - 1] == 0 else "lies before the row above"
        raise DataError(f"{name}, row {row + 2}: the time {stamp(opens[row])} {what}.")
    early = np.flatnonzero(steps < SHORTEST.get(timeframe, MINUTES[timeframe]) * MINUTE)
    if len(early):
        row = int(early[0]) + 1
        raise DataError(f"{name}, row {row + 2}: {stamp(opens[row])} follows too soon on the row above for bars of {timeframe}.")
    grid = min(MINUTES[timeframe], 15) * MINUTE if timeframe not in SHORTEST else MINUTE  # exchanges open at a quarter of an hour
    beside: Array = opens % grid != 0
    if beside.any():
        row = int(np.flatnonzero(beside)[0])
        raise DataError(f"{name}, row {row + 2}: no bar of {timeframe} opens at {stamp(opens[row])}.")
    top = np.maximum(columns["open"], columns["close"])
    bottom = np.minimum(columns["open"], columns["close"])
    for wrong, what in (
        (columns["high"] < top, "high is below its open or close"),
        (columns["low"] > bottom, "low is above its open or close"),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(f"{name}, row {row + 2}: the {what}.")


def moment(text: str) -> int:
    """A moment of ISO 8601 in nanoseconds since 1970, UTC where it has no offset.

    Raises
    ------
    DataError
        When it is none, or outside the years 1900 to 2199.
    """
    try:
        found = dt.datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise DataError(f"{text!r:.40} is no moment; write it as 2017-06-30T13:00:00Z.") from None
    if not 1900 <= found.year < 2200:
        raise DataError(f"{text!r:.40} lies outside the years 1900 to 2199.")
    found = found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found
    return (found - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1) * 1000


def stamp(nanoseconds: Any) -> str:
    """A moment in ISO 8601, UTC."""
    return dt.datetime.fromtimestamp(int(nanoseconds) // 1_000_000_000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def count_gaps(bars: Bars, kind: SymbolClass) -> int:
    """Places where bars are missing: in a session, or a weekday (crypto: a day) without one. Holidays are not known, and count."""
    days = _days(bars, kind)
    if bars.timeframe == "1w":
        return int((np.diff(days) > 7).sum())
    dates: Array = days.astype("datetime64[D]")
    passed = np.diff(days) if kind.name == "crypto" else np.busday_count(dates[:-1], dates[1:])
    inside = (np.diff(days) == 0) & (np.diff(bars.opens) > MINUTES[bars.timeframe] * MINUTE)
    return int((inside | (passed > 1)).sum())


# ---------------------------------------------------------------- sessions and coarser bars


def _session_days(opens: Array, kind: SymbolClass) -> Array:
    """The date (days since 1970) of the session that each moment belongs to."""
    local = pd.DatetimeIndex(opens.astype("datetime64[ns]"), tz="UTC").tz_convert(ZoneInfo(kind.session_zone)).tz_localize(None)
    if kind.session_start_hour:
        local = local + pd.Timedelta(hours=24 - kind.session_start_hour)
    days: Array = local.to_numpy().astype("datetime64[D]").astype(np.int64)
    return days


def session_numbers(opens: Array, timeframe: str, kind: SymbolClass) -> Array:
    """The session of each bar, as a number that never falls: a day, or the bar itself where it is a day or more."""
    if MINUTES[timeframe] >= MINUTES["1d"]:
        return np.arange(len(opens), dtype=np.int64)
    return _session_days(opens, kind)


def _days(bars: Bars, kind: SymbolClass) -> Array:
    """The date (days since 1970) of the session of each bar: of a bar of a day or more, the date in its first half."""
    if MINUTES[bars.timeframe] >= MINUTES["1d"]:
        days: Array = (bars.opens + DAY // 2) // DAY
        return days
    return _session_days(bars.opens, kind)


def periods_per_year(timeframe: str, kind: SymbolClass) -> int:
    """How many of the periods that figures are made of (sessions, or weeks) a year has."""
    return 52 if timeframe == "1w" else kind.periods_per_year


def _session_starts(days: Array, kind: SymbolClass) -> Array:
    """When the sessions of these dates begin, in nanoseconds (UTC)."""
    local = pd.DatetimeIndex(days.astype("datetime64[D]").astype("datetime64[ns]"))
    if kind.session_start_hour:
        local = local - pd.Timedelta(hours=24 - kind.session_start_hour)
    moments = local.tz_localize(ZoneInfo(kind.session_zone), ambiguous=True, nonexistent="shift_forward").tz_convert("UTC")
    starts: Array = moments.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    return starts


def derive(source: Bars, timeframe: str, kind: SymbolClass, warnings: list[str], name: str) -> Bars:
    """Make coarser bars.

    Days are sessions (forex: from 17:00 New York, so that Sunday evening is Monday's), weeks are Monday's to Sunday's sessions, and what is
    shorter is counted from the beginning of a session. A first or last bar that the source covers only in part is left out, and said.

    Parameters
    ----------
    source : Bars
    timeframe : str
        A multiple of the source's.
    kind : SymbolClass
    warnings : list of str
        Gets a line for each bar left out.
    name : str
        What to call the file in messages.

    Raises
    ------
    DataError
        When a source bar lies astride the end of a session.
    """
    days = _days(source, kind)
    begins, ends = _spans(source, days, timeframe, kind, name)
    first = np.flatnonzero(np.concatenate(([True], np.diff(begins) != 0)))
    last = np.concatenate((first[1:], [len(begins)])) - 1
    made = Bars(
        source.symbol, timeframe, begins[first], ends[last], source.open[first], np.maximum.reduceat(source.high, first),
        np.minimum.reduceat(source.low, first), source.close[last], np.add.reduceat(source.volume, first),
        np.arange(len(first), dtype=np.int64) if MINUTES[timeframe] >= MINUTES["1d"] else days[first],
    )  # fmt: skip
    if MINUTES[source.timeframe] >= MINUTES["1d"]:  # weeks from days
        front, back = int(_weekday(days[0]) > 0), int(_weekday(days[-1]) < (4 if kind.name == "forex" else 6))
    else:
        front, back = int(source.opens[0] > made.opens[0]), int(source.closes[-1] < made.closes[-1])
    front, back = front * kind.continuous, back * kind.continuous
    for index, part in ((0, front), (-1, back)):
        if part:
            warnings.append(f"The {timeframe} bar of {stamp(made.opens[index])} was left out: the file has only a part of it.")
    return cut(made, front, len(made.opens) - back)


def _weekday(days: Any) -> Any:
    """0 is Monday; day 0 of 1970 was a Thursday."""
    return (days + 3) % 7


def _spans(source: Bars, days: Array, timeframe: str, kind: SymbolClass, name: str) -> tuple[Array, Array]:
    """Beginning and end of the coarser bar that each source bar belongs to."""
    monday = days - _weekday(days)
    if MINUTES[source.timeframe] >= MINUTES["1d"]:  # weeks from days: they begin and end with their days
        _, first, place = np.unique(monday, return_index=True, return_inverse=True)
        return source.opens[first][place], source.closes
    unique, place = np.unique(days, return_inverse=True)
    starts, next_starts = _session_starts(unique, kind)[place], _session_starts(unique + 1, kind)[place]
    astride = np.flatnonzero(source.closes > next_starts)
    if len(astride):
        raise DataError(
            f"{name}, row {int(astride[0]) + 2}: the bar of {stamp(source.opens[astride[0]])} lies astride the end of the session, so that "
            f"no bars of {timeframe} can be made of these."
        )
    if timeframe == "1w":
        return _session_starts(monday, kind), _session_starts(monday + (5 if kind.name == "forex" else 7), kind)
    if timeframe == "1d":
        return starts, next_starts
    length = MINUTES[timeframe] * MINUTE
    begins = starts + (source.opens - starts) // length * length
    return begins, np.minimum(begins + length, next_starts)


def index_of(bars: Bars, nanoseconds: int | None, default: int) -> int:
    """The index of the first bar at or after a moment: that opens then or later, or of a day or more, whose date is that or later."""
    if nanoseconds is None:
        return default
    shift = DAY // 2 if MINUTES[bars.timeframe] >= MINUTES["1d"] else 0
    return int(np.searchsorted(bars.opens + shift, nanoseconds))
