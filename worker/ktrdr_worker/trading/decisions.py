"""From a network's probabilities to BUY, HOLD and SELL."""

from __future__ import annotations

import numpy as np
from numba import njit

from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.strategy.schema import Decisions


def decide(probabilities: Array, settings: Decisions) -> Array:
    """Decide at every bar's close.

    The most probable class counts, the first of equals; a BUY or SELL below the confidence threshold, or too soon after another, is HOLD.

    Parameters
    ----------
    probabilities : array of float64, shape (n, 3)
        Of SELL, HOLD and BUY; a row of NaN (no features yet) is HOLD.
    settings : Decisions

    Returns
    -------
    array of int8, shape (n,)
        -1 SELL, 0 HOLD, 1 BUY.
    """
    known = np.isfinite(probabilities).all(axis=1)
    filled = np.where(known[:, None], probabilities, 0.0)
    best = filled.argmax(axis=1)
    confident = filled[np.arange(len(filled)), best] >= settings.confidence_threshold
    decisions = np.where(known & confident, best - 1, 0).astype(np.int8)
    return separate(decisions, settings.filters.min_signal_separation)


@njit(cache=True)
def separate(decisions, bars):  # type: ignore[no-untyped-def]
    """Pass over every BUY or SELL that follows within `bars` bars on one that counted."""
    result = decisions.copy()
    last = -bars - 1
    for bar in range(len(result)):
        if result[bar] != 0:
            if bar - last <= bars:
                result[bar] = 0
            else:
                last = bar
    return result
