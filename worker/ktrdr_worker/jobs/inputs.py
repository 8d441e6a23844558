"""What both built-in jobs are asked with: reading the body, choosing the window, saying which bars were used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import msgspec

from ktrdr_worker.handler import JobContext, JobError
from ktrdr_worker.trading.bars import Bars, DataError, Loaded, index_of, moment, stamp
from ktrdr_zmq import results


class Request(msgspec.Struct, kw_only=True):
    """The body of a training or a backtest; `ktrdr_zmq.recipes` makes it.

    ``start`` and ``end`` are moments (ISO 8601): bars that open at or after the one and before the other are used.
    """

    symbol: str
    timeframe: str
    data: dict[str, str]
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
        try:
            request = msgspec.convert(body, cls)
            for key in ("filename", "timeframe", "origin"):
                request.data[key]
        except (msgspec.ValidationError, KeyError) as error:
            raise JobError(f"The job's body is not what `ktrdr` sends: {error}") from None
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


def window(bars: Bars, request: Request) -> tuple[int, int]:
    """First index, and the one after the last, of the bars that a job asks for.

    Raises
    ------
    DataError
        When there are none.
    """
    first = index_of(bars, request.first_moment, 0)
    last = index_of(bars, request.end_moment, len(bars.opens))
    if first >= last:
        raise DataError(
            f"There are no bars of {request.symbol} {request.timeframe} between {request.start or 'the first'} and "
            f"{request.end or 'the last'}: "
            f"{request.data['filename']} has {stamp(bars.opens[0])} to {stamp(bars.opens[-1])}."
        )
    return first, last


def data_used(loaded: Loaded, request: Request, digest: str, first: int, last: int) -> results.DataUsed:
    """Say which bars a job used: from index `first` up to, and without, `last`; those before it fed the indicators."""
    bars = loaded.bars
    return results.DataUsed(
        symbol=request.symbol, timeframe=request.timeframe, digest=digest, filename=request.data["filename"], origin=request.data["origin"],
        source_timeframe=request.data["timeframe"], bars=last, warmup_bars=min(first, last), gaps=loaded.gaps, first=stamp(bars.opens[0]),
        last=stamp(bars.opens[last - 1]),
    )  # fmt: skip
