"""What a job does with a file of bars: read it strictly, make the timeframe that it wants, and say what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ktrdr_worker.trading.bars.checks import Columns, check, refuse
from ktrdr_worker.trading.bars.deriving import derive
from ktrdr_worker.trading.bars.gaps import GapReport, find_gaps
from ktrdr_worker.trading.bars.keeping import Keeper
from ktrdr_worker.trading.bars.reading import read
from ktrdr_worker.trading.bars.sessions import session_numbers
from ktrdr_worker.trading.bars.table import MINUTE, Bars, DataError
from ktrdr_zmq.strategy.symbols import classify
from ktrdr_zmq.strategy.timeframes import MINUTES, can_derive, parse_timeframe


class Loaded(NamedTuple):
    """Bars as a job asked for them, and what was noticed on the way."""

    bars: Bars
    gaps: int
    warnings: list[str]
    report: GapReport


def load(
    path: Path, name: str, symbol: str, source_timeframe: str, timeframe: str, tick: Callable[[float], None] = lambda _share: None, *,
    digest: str = "", cache_dir: Path | None = None,
) -> Loaded:  # fmt: skip
    """Read a file, and make bars of the wanted timeframe.

    Parameters
    ----------
    path : Path
        The file, CSV or Parquet.
    name : str
        What to call it in messages.
    symbol : str
    source_timeframe, timeframe : str
        Of the file, and wanted.
    tick : callable, optional
        Gets the share that is done, 0 to 1, again and again, and may raise to stop.
    digest : str
        The file's SHA-256 (hex), by which its bars are found among those that are kept.
    cache_dir : Path, optional
        Where bars are kept as arrays, so that no file is parsed twice; nothing is kept without it.

    Raises
    ------
    DataError
        For the first thing that is wrong in the file, with its row (the header is row 1; Parquet has none), or when nothing is left.
    """
    if not can_derive(parse_timeframe(source_timeframe), parse_timeframe(timeframe)):
        raise DataError(f"Bars of {timeframe} cannot be made from bars of {source_timeframe} ({name}).")
    keeper = Keeper(cache_dir) if cache_dir is not None and digest else None
    key = Keeper.key(digest, symbol, source_timeframe, timeframe)
    kept = keeper.find(key) if keeper is not None else None
    if kept is not None:
        bars, warnings, report = kept
        tick(1.0)
        return Loaded(bars, report.places, warnings, report)
    reading = read(path, name, source_timeframe, tick=lambda share: tick(0.8 * share))
    tick(0.8)
    refuse([*reading.problems, *check(reading.columns, source_timeframe)], name)
    tick(0.85)
    source = to_bars(reading.columns, symbol, source_timeframe)
    kind = classify(symbol)
    warnings = []
    bars = source if timeframe == source_timeframe else derive(source, timeframe, kind, warnings, name)
    if not len(bars.opens):
        raise DataError(f"{name} has too few bars for a single complete one of {timeframe}.")
    tick(0.9)
    report = find_gaps(source, kind)
    if keeper is not None:
        keeper.keep(key, bars, warnings, report)
    tick(1.0)
    return Loaded(bars, report.places, warnings, report)


def to_bars(columns: Columns, symbol: str, timeframe: str) -> Bars:
    """Bars of columns that were checked; each is complete a timeframe after it opens."""
    opens = columns.opens
    sessions = session_numbers(opens, timeframe, classify(symbol))
    return Bars(
        symbol, timeframe, opens, opens + MINUTES[timeframe] * MINUTE, columns.open, columns.high, columns.low, columns.close,
        columns.volume, sessions,
    )  # fmt: skip
