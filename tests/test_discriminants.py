"""Discriminants of the experts' columns are the ridges and the Gaussians they claim to be."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax
from scipy.stats import multivariate_normal
from sklearn.linear_model import Ridge

from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate
from dualgate.features.discriminants import MAX_COLUMNS, MIN_VARIANCE, find_discriminants
from dualgate.statistics import CellStatistics

N_REGIMES, N_BINS, N_FOLDS, ALPHA = 3, 2, 4, 2.5
N_LINEAR = 1 + 2 * N_REGIMES


@pytest.fixture
def rows():
    """Columns far from zero, targets, regimes, bins and folds of 300 rows, and their statistics."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 5)) + 40, rng.normal(size=300) + 3
    regimes, bins, folds = (rng.integers(n, size=300) for n in (N_REGIMES, N_BINS, N_FOLDS))
    cells = (folds * N_REGIMES + regimes) * N_BINS + bins
    statistics = CellStatistics.from_rows(X, y, cells, N_FOLDS * N_REGIMES * N_BINS)
    return X, y, regimes, folds, statistics.reshape(N_FOLDS, N_REGIMES, N_BINS)


def dense(X, y, regimes, mean):
    member = (regimes[:, None] == np.arange(N_REGIMES)).astype(float)
    return Ridge(ALPHA).fit(X, np.column_stack([y, member, member * (y - mean)[:, None]]))


def test_each_is_a_ridge_on_the_rows(rows):
    X, y, regimes, _, statistics = rows
    found = find_discriminants(statistics, ALPHA)
    assert_allclose(found(X)[:, :N_LINEAR], dense(X, y, regimes, y.mean()).predict(X), atol=1e-8)


def test_the_others_are_probabilities_of_gaussians_in_the_memberships(rows):
    X, y, regimes, _, statistics = rows
    logs = find_discriminants(statistics, ALPHA)(X)[:, N_LINEAR:]
    assert_allclose(np.exp(logs).sum(axis=1), 1, atol=1e-7)
    member = dense(X, y, regimes, y.mean()).predict(X)[:, 1:N_REGIMES]  # the last follows from the others
    width, pooled, joint = N_REGIMES - 1, 0, []
    for k in range(N_REGIMES):
        pooled = pooled + np.cov(member[regimes == k].T, ddof=0) * np.mean(regimes == k)
    for k in range(N_REGIMES):
        own = member[regimes == k]
        covariance = (len(own) * np.cov(own.T, ddof=0) + width * pooled) / (len(own) + width) + MIN_VARIANCE * np.eye(
            width
        )
        joint.append(multivariate_normal(own.mean(axis=0), covariance).logpdf(member) + np.log(len(own) / len(X)))
    assert_allclose(logs, log_softmax(np.array(joint), axis=0).T, atol=1e-6)


def test_a_training_row_is_judged_by_rows_of_other_folds(rows):
    X, y, regimes, folds, statistics = rows
    crossed = find_discriminants(statistics, ALPHA)(X, folds)
    for fold in range(N_FOLDS):
        here, others = folds == fold, folds != fold
        expected = dense(X[others], y[others], regimes[others], y[others].mean()).predict(X[here])
        assert_allclose(crossed[here, :N_LINEAR], expected, atol=1e-8)
        alone = statistics[[other for other in range(N_FOLDS) if other != fold]]
        assert_allclose(crossed[here], find_discriminants(alone, ALPHA)(X[here]), atol=1e-8)


def test_too_many_columns_are_an_error_of_the_gate_that_asks():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, MAX_COLUMNS + 1)), rng.normal(size=60)
    model = DualTowerMoERegressor(
        PhysGate([0, 1], discriminants=True),
        "drop",
        experts=HierarchicalExperts(alphas=[1.0], cv=2, projection=None),
        n_regimes=1,
        max_epochs=1,
    )
    with pytest.raises(ValueError, match=r"PhysGate\.discriminants"):
        model.fit(X, y)


def test_a_gate_that_reads_them_sees_the_regime(planted):
    train, test = planted
    gates = {flag: PhysGate([8, 9], discriminants=flag) for flag in (True, False)}  # constant errors: they tell nothing
    scores = {}
    for flag, gate in gates.items():
        experts = HierarchicalExperts(train.flux, train.error)
        model = DualTowerMoERegressor(gate, "drop", experts=experts, max_epochs=8, random_state=0)
        scores[flag] = model.fit(train.X, train.y, regimes=train.regimes).score(test.X, test.y)
    assert scores[True] > scores[False] + 0.1
