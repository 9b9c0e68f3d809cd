"""Every estimator passes scikit-learn's own checks; the table of expected failures is empty."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate, QualityGate
from dualgate.features import LinePixels, LineWindows, NoiseWhitenedPCA, QualityStatistics, WienerScores
from dualgate.gating import FUSIONS

ESTIMATORS = [
    DualTowerMoERegressor(max_epochs=20),
    HierarchicalExperts(),
    PhysGate(),
    QualityGate(),
    LinePixels(),
    LineWindows(),
    NoiseWhitenedPCA(),
    QualityStatistics(),
    WienerScores(),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_compatible(estimator, check):
    if check.func.__name__ == "check_array_api_input":
        pytest.importorskip("array_api_strict", reason="scikit-learn skips it without array API support")
    check(estimator)


@pytest.mark.parametrize("alias", sorted(FUSIONS))
def test_fusions_are_parameter_objects(alias):
    fusion = FUSIONS[alias]()
    assert type(fusion)(**fusion.get_params()).get_params() == fusion.get_params()
