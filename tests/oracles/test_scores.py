"""Scores of classes and of returns against scikit-learn and SciPy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr_worker.trading.scores import classification, regression

pytestmark = pytest.mark.oracle


@given(st.integers(1, 200), st.integers(0, 10_000))
def test_scores_of_classes(count: int, seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    chance = np.random.default_rng(seed)
    true = chance.choice(3, count, p=chance.dirichlet([1, 1, 1]))
    said = chance.dirichlet([1, 1, 1], count)
    predicted = said.argmax(axis=1)
    found = classification(true, said)
    assert found.confusion == metrics.confusion_matrix(true, predicted, labels=[0, 1, 2]).tolist()
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, predicted))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(true, predicted, average="macro"))
    assert found.log_loss == pytest.approx(metrics.log_loss(true, said, labels=[0, 1, 2]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class was predicted which does not occur, or one alone does
        assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(true, predicted))
        undefined = 0.0 if found.mcc is None else found.mcc  # which is what scikit-learn says of it
        assert undefined == pytest.approx(metrics.matthews_corrcoef(true, predicted), abs=1e-12)


@given(st.integers(3, 200), st.integers(0, 10_000))
def test_scores_of_returns(count: int, seed: int) -> None:
    metrics, stats = pytest.importorskip("sklearn.metrics"), pytest.importorskip("scipy.stats")
    chance = np.random.default_rng(seed)
    true = np.round(chance.normal(size=count) * 0.01, 3)  # so that some are equal
    said = np.round(true * chance.random() + chance.normal(size=count) * 0.01, 3)
    found = regression(true, said, float(true.mean()))
    assert found.mse == pytest.approx(metrics.mean_squared_error(true, said))
    assert found.mae == pytest.approx(metrics.mean_absolute_error(true, said))
    if found.r2 is not None and found.ic is not None:
        assert found.r2 == pytest.approx(metrics.r2_score(true, said)), "where the mean is that of the part itself"
        assert found.ic == pytest.approx(stats.pearsonr(true, said).statistic)
        assert found.rank_ic == pytest.approx(stats.spearmanr(true, said).statistic)
