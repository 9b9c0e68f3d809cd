"""How optimistic cross-fitted predictions are where the regimes were found with the targets of the same rows.

Three planted regimes in four columns. Prints R^2 of each row's own expert, cross-fitted on the training rows, and the
same on fresh rows, by number of training rows; means over six seeds.

    python benchmarks/found_regimes.py
"""

import warnings

import numpy as np
from sklearn.metrics import r2_score

from dualgate import HierarchicalExperts
from dualgate.experts.finding import RegimeFinder

RULES = np.array([[0.0, 2.0, 0.0, 0.0], [0.0, -2.0, 1.0, 0.0], [0.0, 0.0, -2.0, 2.0]])


def draw(n_rows, seed, noise):
    """Draw rows whose regime depends on the first column, and targets with noise."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, size=(n_rows, 4))
    regimes = (X[:, 0] > 0.3).astype(int) + (X[:, 0] > -0.4)
    return X, np.einsum("ij,ij->i", X, RULES[regimes]) + noise * rng.normal(size=n_rows)


def main():
    warnings.simplefilter("ignore")  # a regime of few rows
    for n_rows in (400, 1000, 4000):
        for noise in (0.8, 1.3):
            scores = []
            for seed in range(6):
                (X, y), (fresh, y_fresh) = draw(n_rows, seed, noise), draw(5000, seed + 100, noise)
                finder = RegimeFinder(3, seed).fit(X, X, y)
                codes, experts = finder.predict(X, X), HierarchicalExperts(random_state=seed)
                crossed = experts.fit_predict_each(X, y, regimes=codes)[np.arange(n_rows), codes]
                codes = finder.predict(fresh, fresh)
                scores.append((r2_score(y, crossed), r2_score(y_fresh, experts.predict(fresh, regimes=codes))))
            claimed, true = np.mean(scores, axis=0)
            print(f"{n_rows:5d} rows, noise {noise}: cross-fitted {claimed:.3f}, fresh rows {true:.3f}")


if __name__ == "__main__":
    main()
