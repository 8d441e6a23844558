"""What the making of a page returns."""

from __future__ import annotations

from typing import ClassVar

from ktrdr_zmq.results.document import Document


class ReportResult(Document, frozen=True, kw_only=True):
    """What a report returns; the page itself is the artifact ``report`` (HTML).

    ``backtest`` and ``training`` are the ids of the jobs that it shows, the latter empty where it is not known; ``bars`` rows of the equity
    curve and ``trades`` were read. ``with_prices`` is false where the bars were not there.
    """

    KIND: ClassVar[str] = "report"

    title: str
    backtest: str
    training: str
    bars: int
    trades: int
    with_prices: bool
    in_sample: bool
    octets: int
    report_digest: str
    duration_s: float
    warnings: list[str]
    digest: str
