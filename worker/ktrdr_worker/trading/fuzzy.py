"""Membership functions: how much a value belongs to a fuzzy set, from 0 to 1.

Arrays in, arrays out; nothing here knows of bars or strategies. A NaN (a bar without a value yet) stays NaN. Outside its support a
function is 0: a set that is open to one side is written as a trapezoid whose outer corners lie beyond all values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from ktrdr_worker.trading.arrays import Array


def trapezoidal(values: Array, a: float, b: float, c: float, d: float) -> Array:
    """Rise from 0 at `a` to 1 at `b`, stay until `c`, fall to 0 at `d`.

    Parameters
    ----------
    values : array of float64, any shape
    a, b, c, d : float
        In rising order. ``a == b`` or ``c == d`` makes a shoulder: the edge itself belongs to the set.

    Returns
    -------
    array of float64, the same shape
    """
    if not a <= b <= c <= d:
        raise ValueError(f"corners of a trapezoid must not fall: {a:g}, {b:g}, {c:g}, {d:g}")
    x = np.asarray(values, dtype=np.float64)
    result = np.where((x >= b) & (x <= c), 1.0, 0.0)
    if a < b:
        rising = (x > a) & (x < b)
        result[rising] = (x[rising] - a) / (b - a)
    if c < d:
        falling = (x > c) & (x < d)
        result[falling] = (d - x[falling]) / (d - c)
    result[np.isnan(x)] = np.nan
    return result


def triangular(values: Array, a: float, b: float, c: float) -> Array:
    """Rise from 0 at `a` to 1 at `b`, fall to 0 at `c`; ``a == b`` or ``b == c`` makes a shoulder."""
    if not a <= b <= c:
        raise ValueError(f"corners of a triangle must not fall: {a:g}, {b:g}, {c:g}")
    return trapezoidal(values, a, b, b, c)


def gaussian(values: Array, mean: float, sigma: float) -> Array:
    """The bell ``exp(-(x - mean)**2 / (2 sigma**2))``, 1 at `mean`; `sigma` is above 0."""
    if not sigma > 0:
        raise ValueError(f"the width of a gaussian must be above 0, not {sigma:g}")
    x = np.asarray(values, dtype=np.float64)
    return np.exp(-np.square(x - mean) / (2.0 * sigma * sigma))


SHAPES: Final[Mapping[str, Callable[..., Array]]] = {
    "triangular": triangular,
    "trapezoidal": trapezoidal,
    "gaussian": gaussian,
}


def membership(values: Array, shape: str, parameters: Sequence[float]) -> Array:
    """Degrees of membership in the set of this `shape` (a key of ``SHAPES``) with these parameters."""
    return SHAPES[shape](values, *parameters)
