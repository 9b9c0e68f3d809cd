"""A problem on which mixtures of experts were compared: nine hidden regimes, a linear rule in each, four noise levels.

Prints R^2 on 5,000 rows that were not used to fit, with regimes given and found, and the seconds that fit and predict
took, of the plain defaults and of Wiener scores, against principal components, nine ridges and a logistic gate put
together by hand (regimes given); then the cross-validated R^2 of the plain defaults on three problems of scikit-learn.

    python benchmarks/peers.py [seed ...]
"""

import sys
import time

import numpy as np
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_score

from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate, QualityGate
from dualgate.features import WienerScores

N_TRAIN, N_TEST, N_COLUMNS, N_REGIMES, N_LINES = 20_000, 5_000, 256, 9, 10
KEPT = 20  # components
SMOOTH = {
    "diabetes": load_diabetes(return_X_y=True),
    "friedman1": make_friedman1(3000, noise=1.0, random_state=0),
    "friedman2": make_friedman2(3000, noise=50.0, random_state=0),
}


def draw(seed):
    """Columns, target, regime and noise level of training and test rows together.

    Two hidden coordinates choose one of 3 x 3 regimes and bend the columns, up to second order; ten hidden strengths
    add to them and decide the target, by a rule that differs from regime to regime.
    """
    rng, n_rows = np.random.default_rng(seed), N_TRAIN + N_TEST

    def profiles(n_profiles, width):
        """Make sums of six bumps each, over the columns."""
        centre = rng.uniform(0, 1, (n_profiles, 6))[..., None]
        size = rng.uniform(0.3, 1, (n_profiles, 6))[..., None] * width
        height = rng.normal(size=(n_profiles, 6))[..., None]
        return (height * np.exp(-0.5 * ((np.linspace(0, 1, N_COLUMNS) - centre) / size) ** 2)).sum(axis=1)

    t, g = rng.uniform(-1.5, 1.5, (2, n_rows))
    regimes = 3 * np.digitize(t, [-0.5, 0.5]) + np.digitize(g, [-0.5, 0.5])
    strengths = rng.normal(size=(n_rows, N_LINES))
    bends = np.column_stack([t, g, t * t, g * g, t * g])
    signal = bends @ (1.5 * profiles(5, 0.10)) + strengths @ (0.5 * profiles(N_LINES, 0.03))
    slopes = rng.normal(size=(N_REGIMES, N_LINES)) / np.sqrt(N_LINES)
    offsets = rng.normal(size=N_REGIMES) * 0.5
    y = np.einsum("nk,nk->n", strengths, slopes[regimes]) + offsets[regimes] + 0.3 * t - 0.2 * g
    level = rng.integers(0, 4, n_rows)
    X = signal + 0.15 * (1 + level)[:, None] * rng.normal(size=signal.shape)
    return X, y + 0.05 * rng.normal(size=n_rows), regimes, level


def by_hand(X, y, regimes, test):
    """Principal components, a ridge for each regime, a logistic gate."""
    components = PCA(KEPT, random_state=0).fit(X)
    Z, Z_test = components.transform(X), components.transform(test)
    each = [RidgeCV(np.logspace(-1, 4, 11)).fit(Z[regimes == k], y[regimes == k]) for k in range(N_REGIMES)]
    weights = LogisticRegression(C=0.1, max_iter=2000).fit(Z, regimes).predict_proba(Z_test)
    return (weights * np.column_stack([expert.predict(Z_test) for expert in each])).sum(axis=1)


def with_errors():
    """Make the mixture that takes the noise level of a row as the error of every column."""
    flux, error = slice(0, N_COLUMNS), slice(N_COLUMNS, None)
    # without supervision: nine regimes would add 17 factors to the 20 that there are
    projection = WienerScores(KEPT, columns=flux, error_columns=error)
    experts = HierarchicalExperts(flux, error, projection=projection)
    return DualTowerMoERegressor(
        PhysGate(flux), QualityGate([N_COLUMNS], "passthrough"), experts=experts, random_state=0
    )


def main(*seeds):
    train, test = slice(0, N_TRAIN), slice(N_TRAIN, None)
    print("R^2 (seconds to fit, to predict)")
    scores = {}
    for seed in seeds or range(100, 110):
        X, y, regimes, level = draw(seed)
        errors = np.broadcast_to(0.15 * (1.0 + level)[:, None], X.shape)
        scores.setdefault("by hand, regimes given", []).append(
            r2_score(y[test], by_hand(X[train], y[train], regimes[train], X[test]))
        )
        print(f"seed {seed}  {'by hand, regimes given':30s} {scores['by hand, regimes given'][-1]:.4f}")
        for model, rows, words in (
            (DualTowerMoERegressor(random_state=0), X, "plain defaults"),
            (with_errors(), np.hstack([X, errors]), "Wiener scores, errors given"),
        ):
            for given in (True, False):
                started = time.perf_counter()
                model.fit(rows[train], y[train], regimes=regimes[train] if given else None)
                fitted = time.perf_counter()
                score = r2_score(y[test], model.predict(rows[test]))
                done = time.perf_counter()
                name = f"{words}, regimes {'given' if given else 'found'}"
                scores.setdefault(name, []).append(score)
                print(f"seed {seed}  {name:40s} {score:.4f}  ({fitted - started:.1f}, {done - fitted:.2f})", flush=True)
    for name, found in scores.items():
        behind = np.median(np.subtract(found, scores["by hand, regimes given"]))
        print(f"{name:42s} median {np.median(found):.4f}, less by hand {behind:+.4f}")
    for name, (X, y) in SMOOTH.items():
        model, folds = DualTowerMoERegressor(random_state=0), KFold(5, shuffle=True, random_state=0)
        print(f"{name:42s} mean of five folds {cross_val_score(model, X, y, cv=folds).mean():.4f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
