"""Membership functions: how much a value belongs to a fuzzy set, from 0 to 1.

Arrays in, arrays out; nothing here knows of bars or strategies. A NaN (a bar without a value yet) stays NaN. Outside its corners a
triangle or trapezoid is 0: a set that is open to one side is a sigmoid, or a trapezoid whose outer corners lie beyond all values.
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
    """The bell ``exp(-((x - mean) / sigma)**2 / 2)``, 1 at `mean`; `sigma` is above 0."""
    if not sigma > 0:
        raise ValueError(f"the width of a gaussian must be above 0, not {sigma:g}")
    x = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):  # far away the square is infinite, and the degree 0
        return np.exp(-0.5 * np.square((x - mean) / sigma))


def bell(values: Array, width: float, slope: float, center: float) -> Array:
    """The generalized bell ``1 / (1 + |(x - center) / width|**(2 slope))``: 1 at `center`, a half at `width` beside it, and the steeper
    there the greater `slope` is. Width and slope are above 0.
    """
    if not (width > 0 and slope > 0):
        raise ValueError(f"width and slope of a bell must be above 0, not {width:g} and {slope:g}")
    x = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):  # as above
        return 1.0 / (1.0 + np.abs((x - center) / width) ** (2.0 * slope))


def sigmoid(values: Array, center: float, slope: float) -> Array:
    """The sigmoid ``1 / (1 + exp(-slope (x - center)))``: a half at `center`, rising if `slope` is above 0 and falling if it is below."""
    if slope == 0:
        raise ValueError("the slope of a sigmoid must not be 0")
    x = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):  # as above
        return 1.0 / (1.0 + np.exp(-slope * (x - center)))


FUNCTIONS: Final[Mapping[str, Callable[..., Array]]] = {
    "triangular": triangular,
    "trapezoidal": trapezoidal,
    "gaussian": gaussian,
    "bell": bell,
    "sigmoid": sigmoid,
}
"""By the names of ``ktrdr_zmq.strategy.shapes``."""


def membership(values: Array, shape: str, parameters: Sequence[float]) -> Array:
    """Degrees of membership in the set of this `shape` (a key of ``FUNCTIONS``) with these parameters."""
    return FUNCTIONS[shape](values, *parameters)
