"""Quick models for two regimes that the sign of a column decides, and for the planted problem of `conftest`."""

import numpy as np

from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate, QualityGate

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4))
REGIMES = (X[:, 0] > 0).astype(int)
Y = np.where(REGIMES, X[:, 1], -X[:, 1])
NOISE = RNG.normal(size=400)


def model(**params):
    quick = {"random_state": 0, "max_epochs": 15, "start": "random", "weight_decay": 0.0}
    return DualTowerMoERegressor(**quick | params)


def fitted(**params):
    return model(**params).fit(X, Y, regimes=REGIMES)


def planted_model(planted, **params):
    gates = PhysGate([0, 1], discriminants=False), QualityGate(planted.error, "passthrough")
    experts = HierarchicalExperts(planted.flux, planted.error)
    return model(phys_gate=gates[0], quality_gate=gates[1], experts=experts).set_params(**params)


def whitened_experts(planted, **params):
    experts = HierarchicalExperts(planted.flux, planted.error, quality_edges=(5,), n_components=8, random_state=0)
    return experts.set_params(**{"projection": "whitened", **params})


def whitened_mixture(planted, **params):
    gates = PhysGate([0, 1]), QualityGate(planted.error, "passthrough")
    experts = whitened_experts(planted, random_state=None)
    return DualTowerMoERegressor(*gates, experts=experts, max_epochs=8, random_state=0).set_params(**params)
