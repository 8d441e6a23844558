"""What both built-in jobs are asked with: reading the body, choosing the window, saying which bars were used."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from ktrdr_worker.handler import JobError
from ktrdr_worker.trading.bars import Bars, DataError, Loaded, index_of, stamp
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
        return request


def window(bars: Bars, request: Request) -> tuple[int, int]:
    """First index, and the one after the last, of the bars that a job asks for.

    Raises
    ------
    DataError
        When there are none.
    """
    first = index_of(bars, request.start, 0)
    last = index_of(bars, request.end, len(bars.opens))
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
