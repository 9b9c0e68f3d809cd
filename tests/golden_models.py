"""Fixed rows, small models and their answers: `python tests/golden_models.py` writes them to golden.npz beside it."""

from pathlib import Path

import numpy as np

from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts

P = 16
FLUX, ERROR = slice(0, P), slice(P, None)


def rows():
    """Training rows, targets, regimes and rows to predict, by name; float64, exact sums of a few sines."""
    rng = np.random.default_rng(20_260_101)
    regimes, factors = np.arange(460) % 3, rng.normal(size=(460, 3))
    factors[:, 0] += 2 * regimes
    error = np.exp(rng.uniform(-2, 0, size=(460, 1))) * np.ones(P)
    loadings = np.sin(np.outer(np.arange(1, 4), np.arange(P)))
    X = np.round(np.hstack([3 + factors @ loadings + error * rng.normal(size=error.shape), error]), 6)
    y = np.round(np.einsum("ij,ij->i", factors, np.cos(np.arange(9.0)).reshape(3, 3)[regimes]), 6)
    return {"X": X[:400], "y": y[:400], "regimes": regimes[:400], "X_new": X[400:]}


def _factor(**params):
    options = {"n_components": 3, "n_factors": 2, "refine": 1, "random_state": 0, **params}
    return FactorExperts(FLUX, ERROR, **options)


MODELS = {
    "factor mixture": lambda: DualTowerMoERegressor("drop", "drop", experts=_factor(), random_state=0),
    "factor experts without errors": lambda: FactorExperts(FLUX, n_components=3, n_factors=2, random_state=0),
    "ridges, shrink": lambda: HierarchicalExperts(FLUX, ERROR, quality_edges=(10.0,), random_state=0),
    "ridges on Wiener scores": lambda: HierarchicalExperts(
        FLUX, ERROR, projection="wiener", n_components=4, sharing="offset", quality_edges=(10.0,), random_state=0
    ),
}


def answers(name, X, y, regimes, X_new):
    """Answers of a model that is fitted now, by what was asked."""
    model = MODELS[name]().fit(X, y, regimes=regimes)
    found = {"predict": model.predict(X_new)}
    if hasattr(model, "predict_interval"):
        found |= {"std": model.predict(X_new, return_std=True)[1], "interval": model.predict_interval(X_new, 0.8)}
        found |= {"score_samples": model.score_samples(X_new)}
    else:
        found |= {"predict_each": model.predict_each(X_new)}
    return found


if __name__ == "__main__":
    drawn = rows()
    found = {f"{name}: {what}": values for name in MODELS for what, values in answers(name, **drawn).items()}
    np.savez_compressed(Path(__file__).with_name("golden.npz"), **drawn, **found)
