"""Membership functions: their definitions, what is refused, and that grammar and functions know the same shapes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_worker.trading.fuzzy import FUNCTIONS, bell, gaussian, membership, sigmoid, trapezoidal, triangular
from ktrdr_zmq.strategy.shapes import SHAPES, what_is_wrong


def test_the_grammar_knows_the_same_shapes_with_the_same_parameters() -> None:
    assert {name: tuple(inspect.signature(function).parameters)[1:] for name, function in FUNCTIONS.items()} == SHAPES


def test_degrees_by_definition() -> None:
    x = np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, np.nan])
    np.testing.assert_array_equal(triangular(x, 0, 2, 4), [0, 0, 0.5, 1, 0.5, 0, 0, np.nan])
    np.testing.assert_array_equal(trapezoidal(x, 0, 0, 2, 4), [0, 1, 1, 1, 0.5, 0, 0, np.nan])
    np.testing.assert_allclose(gaussian(x, 2, 1)[[2, 3, 4, 7]], [math.exp(-0.5), 1, math.exp(-0.5), np.nan])
    np.testing.assert_allclose(bell(x, 2, 3, 3)[[2, 4, 6, 0, 7]], [0.5, 1, 0.5, 1 / 65, np.nan])
    np.testing.assert_allclose(sigmoid(x, 2, -1)[[1, 3, 5, 7]], [1 / (1 + math.exp(-2)), 0.5, 1 / (1 + math.exp(2)), np.nan])
    assert (np.diff(sigmoid(x[:-1], 2, 0.5)) > 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: triangular(x, 2, 1, 3),
        lambda x: trapezoidal(x, 0, 3, 2, 4),
        lambda x: gaussian(x, 0, 0),
        lambda x: bell(x, 0, 1, 0),
        lambda x: bell(x, 1, -1, 0),
        lambda x: sigmoid(x, 1, 0),
    ],
)
def test_shapes_that_are_none(call: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(ValueError, match="must"):
        call(np.zeros(1))


NUMBER = st.floats(-1e14, 1e14)


@given(st.sampled_from(sorted(SHAPES)), st.lists(NUMBER, min_size=4, max_size=4), st.lists(NUMBER, max_size=20))
def test_what_the_grammar_accepts_has_degrees_from_0_to_1(shape: str, numbers: list[float], values: list[float]) -> None:
    numbers = numbers[: len(SHAPES[shape])]
    if shape in ("triangular", "trapezoidal"):
        numbers.sort()
    if what_is_wrong(shape, numbers) is None:
        degrees = membership(np.array(values), shape, numbers)
        assert ((degrees >= 0) & (degrees <= 1)).all()
