"""How optimistic cross-fitted predictions are where the regimes were found with the targets of the same rows.

Three planted regimes in four columns. Prints R^2 of each row's own expert, cross-fitted on the training rows, and the
same on fresh rows, by number of training rows; means over ten seeds.

    python benchmarks/found_regimes.py
"""

import warnings

import numpy as np
from sklearn.metrics import r2_score

from dualgate import DualTowerMoERegressor, HierarchicalExperts
from dualgate.experts.finding import RegimeFinder

RULES = np.array([[0.0, 2.0, 0.0, 0.0], [0.0, -2.0, 1.0, 0.0], [0.0, 0.0, -2.0, 2.0]])


def draw(n_rows, seed, noise):
    """Draw rows whose regime depends on the first column, and targets with noise."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, size=(n_rows, 4))
    regimes = (X[:, 0] > 0.3).astype(int) + (X[:, 0] > -0.4)
    return X, np.einsum("ij,ij->i", X, RULES[regimes]) + noise * rng.normal(size=n_rows)


def scores(n_rows, seed, noise):
    """R^2 of each row's own expert, cross-fitted on the training rows, and on fresh rows."""
    (X, y), (fresh, y_fresh) = draw(n_rows, seed, noise), draw(5000, seed + 100, noise)
    reduction = DualTowerMoERegressor(quality_gate="drop").make_reduction().fit(X, y)
    rows, experts = reduction.read(X, training=True), HierarchicalExperts(random_state=seed)
    finder = RegimeFinder(3, seed).fit(rows.features["phys"], rows.projected, y)
    everything = np.ones(n_rows, dtype=bool)
    learned = experts.learn(reduction, rows, y, None, finder.n_regimes_, finder=finder, kept=everything)
    crossed = experts.cross_fitted(learned)[np.arange(n_rows), learned.columns["cells"]]
    codes = finder.codes(reduction.read(fresh).columns)
    return r2_score(y, crossed), r2_score(y_fresh, experts.predict(fresh, regimes=codes))


def main():
    warnings.simplefilter("ignore")  # a regime of few rows
    for n_rows in (400, 1000, 4000):
        for noise in (0.8, 1.3):
            claimed, true = np.mean([scores(n_rows, seed, noise) for seed in range(10)], axis=0)
            print(f"{n_rows:5d} rows, noise {noise}: cross-fitted {claimed:.3f}, fresh rows {true:.3f}", flush=True)


if __name__ == "__main__":
    main()
