"""From a network's outputs to BUY, HOLD and SELL."""

from __future__ import annotations

import numpy as np
from numba import njit

from ktrdr_worker.trading.arrays import Array
from ktrdr_zmq.strategy.schema import Decisions


def decide(outputs: Array, settings: Decisions) -> Array:
    """Decide at every bar's close.

    The most probable class counts, the first of equals; a BUY or SELL below the confidence threshold is HOLD. A predicted return is BUY
    above the return threshold, SELL below its negative. In both cases a BUY or SELL too soon after another is HOLD.

    Parameters
    ----------
    outputs : array of float64
        Probabilities of SELL, HOLD and BUY, of shape (n, 3), or returns, of shape (n,); NaN (no features yet) is HOLD.
    settings : Decisions

    Returns
    -------
    array of int8, shape (n,)
        -1 SELL, 0 HOLD, 1 BUY.
    """
    signals = _of_returns(outputs, settings) if outputs.ndim == 1 else _of_probabilities(outputs, settings)
    return separate(signals.astype(np.int8), settings.filters.min_signal_separation)


def _of_returns(returns: Array, settings: Decisions) -> Array:
    limit = settings.return_threshold
    signals: Array = np.where(returns > limit, 1, 0) - np.where(returns < -limit, 1, 0)
    return signals


def _of_probabilities(probabilities: Array, settings: Decisions) -> Array:
    known = np.isfinite(probabilities).all(axis=1)
    filled = np.where(known[:, None], probabilities, 0.0)
    best = filled.argmax(axis=1)
    confident = filled[np.arange(len(filled)), best] >= settings.confidence_threshold
    signals: Array = np.where(known & confident, best - 1, 0)
    return signals


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
