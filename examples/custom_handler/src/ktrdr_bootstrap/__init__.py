"""The kind ``bootstrap``: how deep might the drawdown have been, had the same trades come in another order?

Draws the returns of a backtest's trades again and again, with replacement, and counts how the largest drawdowns are spread. A handler gets
a plain body and a context; it knows nothing of brokers, sockets or other jobs, and runs in a process of its own.
"""

from __future__ import annotations

import random
from typing import Any

from ktrdr_worker.handler import JobContext, JobError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
STEP = 200
"""Draws between two looks at the world outside."""


class Bootstrap:
    """Resamples trade returns.

    The body: ``returns`` (list of float, one for each trade, as fractions), ``draws`` (int, default 1000), ``seed`` (int, default 0).
    The result: ``drawdown`` by quantile, as fractions between 0 and 1; the artifact ``drawdowns`` (CSV) has every draw.
    """

    kind = "bootstrap"
    versions = (1, 1)

    def run(self, body: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """Do the job."""
        returns, draws, seed = _checked(body)
        chance = random.Random(f"{seed}")
        found: list[float] = []
        while len(found) < draws:
            context.check_cancelled()  # raises when the job was cancelled, ran out of time, or its worker is being drained
            found += [largest_drawdown(chance.choices(returns, k=len(returns))) for _ in range(min(STEP, draws - len(found)))]
            context.progress(len(found) / draws, stage="draw", text=f"{len(found)} of {draws}", metrics={"worst": max(found)})
        table = "draw,drawdown\n" + "".join(f"{number},{value!r}\n" for number, value in enumerate(found, 1))
        context.add_artifact("drawdowns", table.encode(), "text/csv")
        ranked = sorted(found)
        return {
            "schema": 1,
            "trades": len(returns),
            "draws": draws,
            "drawdown": {f"{quantile:g}": ranked[min(int(quantile * draws), draws - 1)] for quantile in QUANTILES},
        }


def largest_drawdown(returns: list[float]) -> float:
    """The deepest fall of the compounded returns below an earlier peak, as a fraction between 0 and 1."""
    equity = peak = 1.0
    deepest = 0.0
    for step in returns:
        equity *= 1.0 + step
        peak = max(peak, equity)
        deepest = max(deepest, 1.0 - equity / peak)
    return deepest


def _checked(body: dict[str, Any]) -> tuple[list[float], int, int]:
    """What the submitter asked for; a `JobError` reaches him as it stands, without a traceback."""
    returns, draws, seed = body.get("returns"), body.get("draws", 1000), body.get("seed", 0)
    if not isinstance(returns, list) or not returns or not all(isinstance(step, float | int) and step > -1 for step in returns):
        raise JobError("returns must be a list of numbers above -1.", hint='For example {"returns": [0.01, -0.004, 0.02]}.')
    if not isinstance(draws, int) or not 1 <= draws <= 1_000_000:
        raise JobError(f"draws must be a whole number from 1 to 1,000,000, not {draws!r}.")
    if not isinstance(seed, int):
        raise JobError(f"seed must be a whole number, not {seed!r}.")
    return [float(step) for step in returns], draws, seed


handler = Bootstrap()
