"""What the built-in jobs return: one typed schema for the worker that writes it and for everybody who reads it.

A field that is missing is an error, and a document of a newer schema is refused by name. Every public name can be imported from here.
Nothing here imports NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ktrdr_zmq.errors import PayloadError
from ktrdr_zmq.results.backtesting import EQUITY_COLUMNS, EXIT_REASONS, TRADE_COLUMNS, BacktestResult, Window
from ktrdr_zmq.results.checks import Change, History, LookaheadResult, WarmupResult
from ktrdr_zmq.results.document import CIRCUMSTANCES, SCHEMA, DataUsed, Document
from ktrdr_zmq.results.metrics import (
    BACKTEST_METRICS,
    CLASSIFICATION_METRICS,
    METRICS,
    REGRESSION_METRICS,
    BacktestMetrics,
    ClassificationMetrics,
    Metric,
    RegressionMetrics,
    Score,
)
from ktrdr_zmq.results.report import ReportResult
from ktrdr_zmq.results.training import EpochHistory, Part, TrainingResult, differing_circumstances

__all__ = [
    "BACKTEST_METRICS", "CIRCUMSTANCES", "CLASSIFICATION_METRICS", "DOCUMENTS", "EQUITY_COLUMNS", "EXIT_REASONS", "METRICS",
    "REGRESSION_METRICS", "SCHEMA", "TRADE_COLUMNS", "BacktestMetrics", "BacktestResult", "Change", "ClassificationMetrics", "DataUsed",
    "Document", "EpochHistory", "History", "LookaheadResult", "Metric", "Part", "RegressionMetrics", "ReportResult", "Score",
    "TrainingResult", "WarmupResult", "Window", "differing_circumstances", "read",
]  # fmt: skip

DOCUMENTS: Final[Mapping[str, type[Document]]] = {
    cls.KIND: cls for cls in (TrainingResult, BacktestResult, ReportResult, LookaheadResult, WarmupResult)
}


def read(plain: Mapping[str, Any]) -> Document:
    """Read a result, told apart by its ``kind``.

    Raises
    ------
    NewerSchema, PayloadError
        As ``Document.from_dict``; also for a kind that has no schema here.
    """
    from ktrdr_zmq import datasets  # which builds on this module

    known = {**DOCUMENTS, **datasets.DOCUMENTS}
    kind = str(plain.get("kind"))
    if kind not in known:
        raise PayloadError(f"A result of kind {kind!r} has no schema here; known: {', '.join(known)}.")
    return known[kind].from_dict(plain)
