"""What both built-in jobs are asked with: reading the body, making bars, choosing the window, saying which bars were used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from ktrdr_worker.handler import JobContext, JobError
from ktrdr_worker.trading.bars import Bars, DataError, Loaded, index_of, load, moment, stamp
from ktrdr_worker.trading.frames import Frames, frames_of
from ktrdr_zmq import results

T = TypeVar("T")


class Source(msgspec.Struct, frozen=True):
    """A file of bars, as the client found it."""

    symbol: str
    timeframe: str
    filename: str
    origin: str


class Request(msgspec.Struct, kw_only=True):
    """The body of a training or a backtest; `ktrdr_zmq.recipes` makes it.

    A backtest is of ``symbol``; what a training learns from, its strategy says. ``data`` names the file of each symbol: the first is the
    input ``data``, the others are ``data.SYMBOL``. ``start`` and ``end`` are moments (ISO 8601): bars that open at or after the one and
    before the other are used.
    """

    data: list[Source]
    symbol: str = ""
    timeframe: str = ""
    strategy: str = ""
    strategy_name: str = ""
    start: str | None = None
    end: str | None = None
    overrides: dict[str, Any] = {}
    capital: float = 100_000.0
    commission_bps: float | None = None
    slippage_bps: float | None = None

    @classmethod
    def read(cls, body: dict[str, Any]) -> Self:
        """Read a body.

        Raises
        ------
        JobError
            When something is missing or of another type.
        """
        request = read_body(body, cls)
        for what, number, low, high in (
            ("capital", request.capital, 1e-6, 1e15),
            ("commission_bps", request.commission_bps, 0.0, 1000.0),
            ("slippage_bps", request.slippage_bps, 0.0, 1000.0),
        ):
            if number is not None and not low <= number <= high:
                raise JobError(f"{what} must be between {low:g} and {high:g}, not {number:g}.")
        for text in (request.start, request.end):
            if text is not None:
                moment(text)
        return request

    @property
    def first_moment(self) -> int | None:
        """``start`` in nanoseconds."""
        return None if self.start is None else moment(self.start)

    @property
    def end_moment(self) -> int | None:
        """``end`` in nanoseconds."""
        return None if self.end is None else moment(self.end)


def read_body(body: dict[str, Any], kind: type[T]) -> T:
    """The typed form of a job's body.

    Raises
    ------
    JobError
        When something is missing or of another type.
    """
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise JobError(f"The job's body is not what `ktrdr` sends: {error}") from None


def input_of(context: JobContext, name: str) -> Path:
    """An input of the job.

    Raises
    ------
    JobError
        When the job was submitted without it.
    """
    try:
        return context.inputs[name]
    except KeyError:
        raise JobError(f"The job was submitted without the input {name!r}.") from None


def steps(context: JobContext, begin: float, end: float, stage: str, text: str = "") -> Callable[[float], None]:
    """What long steps call between their pieces: it tells how far the job is, and stops it when it is cancelled."""

    def tick(share: float) -> None:
        context.check_cancelled()
        context.progress(begin + (end - begin) * share, stage=stage, text=text)

    return tick


def bars_of(
    context: JobContext, name: str, source: Source, symbol: str, timeframe: str, tick: Callable[[float], None] = lambda _share: None
) -> Loaded:
    """The bars of an input, from what the worker has kept of the same file if it can be."""
    path, digest = input_of(context, name), context.input_digests[name]
    return load(path, source.filename, symbol, source.timeframe, timeframe, tick, digest=digest, cache_dir=context.cache_dir / "bars")


class Market(NamedTuple):
    """The bars of one symbol: those of its file, and those of all timeframes made of them; and what was noticed on the way."""

    symbol: str
    source: Source
    digest: str
    bars: Bars
    frames: Frames
    gaps: int
    warnings: list[str]


def markets(
    context: JobContext, request: Request, symbols: Sequence[str], timeframes: Sequence[str], base: str,
    tick: Callable[[float], None] | None = None,
) -> list[Market]:  # fmt: skip
    """Read the files of a job, and make the bars of all timeframes.

    ``tick`` gets the share that is done, 0 to 1, again and again; without it a job that is cancelled stops all the same.

    Raises
    ------
    JobError
        When the job's files are not those of the symbols.
    DataError
        When a file cannot be used.
    """
    if len(request.data) != len(symbols):
        raise JobError(f"The job's body is not what `ktrdr` sends: it names {len(request.data)} files for {', '.join(symbols)}.")
    found = []
    for index, (symbol, source) in enumerate(zip(symbols, request.data, strict=True)):
        name = f"data.{symbol}" if index else "data"
        begin = index / len(symbols)

        def share(part: float, begin: float = begin) -> None:
            context.check_cancelled()
            if tick is not None:
                tick(begin + part / len(symbols))

        loaded = bars_of(context, name, source, symbol, source.timeframe, share)
        warnings = list(loaded.warnings)
        frames = frames_of(loaded.bars, timeframes, base, warnings, source.filename)
        said = [f"{symbol}: {text}" for text in warnings] if len(symbols) > 1 else warnings
        found.append(Market(symbol, source, context.input_digests[name], loaded.bars, frames, loaded.gaps, said))
    return found


def window(market: Market, request: Request) -> tuple[int, int]:
    """First index, and the one after the last, of the bars of the base timeframe that a job asks for.

    Raises
    ------
    DataError
        When there are none.
    """
    bars = market.frames.bars
    first = index_of(bars, request.first_moment, 0)
    last = index_of(bars, request.end_moment, len(bars.opens))
    if first >= last:
        raise DataError(
            f"There are no bars of {market.symbol} {bars.timeframe} between {request.start or 'the first'} and "
            f"{request.end or 'the last'}: {market.source.filename} has {stamp(bars.opens[0])} to {stamp(bars.opens[-1])}."
        )
    return first, last


def data_used(market: Market, first: int, last: int) -> results.DataUsed:
    """Say which bars a job used: from index `first` up to, and without, `last`; those before it fed the indicators."""
    bars, source = market.frames.bars, market.source
    return results.DataUsed(
        symbol=market.symbol, timeframe=bars.timeframe, digest=market.digest, filename=source.filename, origin=source.origin,
        source_timeframe=source.timeframe, bars=last, warmup_bars=min(first, last), gaps=market.gaps, first=stamp(bars.opens[0]),
        last=stamp(bars.opens[last - 1]),
    )  # fmt: skip
