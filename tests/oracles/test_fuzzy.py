"""Membership degrees equal to those of scikit-fuzzy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_worker.trading.fuzzy import membership

pytestmark = pytest.mark.oracle

VALUES = st.lists(st.floats(-60, 60), min_size=1, max_size=40)
PLACE = st.floats(-50, 50)
WIDTH = st.floats(0.01, 50)


@pytest.fixture(scope="module")
def skfuzzy() -> object:
    return pytest.importorskip("skfuzzy")


@given(st.lists(st.integers(-50, 50), min_size=4, max_size=4), VALUES)
def test_corners(skfuzzy: object, corners: list[int], values: list[float]) -> None:
    a, b, c, d = map(float, sorted(corners))
    x = np.array(values)
    np.testing.assert_allclose(membership(x, "trapezoidal", (a, b, c, d)), skfuzzy.trapmf(x, [a, b, c, d]), atol=1e-12)
    if a < c:
        np.testing.assert_allclose(membership(x, "triangular", (a, b, c)), skfuzzy.trimf(x, [a, b, c]), atol=1e-12)


@given(PLACE, WIDTH, VALUES)
def test_gaussian(skfuzzy: object, mean: float, sigma: float, values: list[float]) -> None:
    x = np.array(values)
    np.testing.assert_allclose(membership(x, "gaussian", (mean, sigma)), skfuzzy.gaussmf(x, mean, sigma), atol=1e-12)


@given(WIDTH, st.floats(0.1, 10), PLACE, VALUES)
def test_bell(skfuzzy: object, width: float, slope: float, center: float, values: list[float]) -> None:
    x = np.array(values)
    np.testing.assert_allclose(membership(x, "bell", (width, slope, center)), skfuzzy.gbellmf(x, width, slope, center), atol=1e-12)


@given(PLACE, WIDTH, st.sampled_from([-1.0, 1.0]), VALUES)
def test_sigmoid(skfuzzy: object, center: float, slope: float, sign: float, values: list[float]) -> None:
    x = np.array(values)
    with np.errstate(over="ignore"):
        expected = skfuzzy.sigmf(x, center, sign * slope)
    np.testing.assert_allclose(membership(x, "sigmoid", (center, sign * slope)), expected, atol=1e-12)
