"""Factor analysis with known noise: Wiener scores and packages that take weights, on rows with bad pixels.

    python benchmarks/factor_peers.py [slow] [seed ...]

3,000 training rows and 1,000 held-out rows of 300 pixels: five smooth loadings, errors that differ over a factor of ten
by pixel (at random, or with `slow` along a curve) and again by row, 30 % of the pixels masked. Prints, for each method,
medians over the seeds of

- the sine of the largest angle between the subspace found and the true one, in the unit of the flux, and with every
  pixel divided by its typical error;
- processor seconds of the fit, of all threads; imports and a first fit to 100 rows are left out. The first fit of
  robusta-hmf to all rows compiles for some 20 s, which the median of three seeds leaves out;
- the held-out mean log likelihood of a row under N(m, G C G' + E), less that of the true model. G is the subspace of
  the method. The mean m and the covariance C of the factors are found in the same way for all, by 20 steps of
  expectation-maximisation on the training rows, which start at the weighted mean and a broad C.

Packages (robusta-hmf, wpca, wv) that are not installed are left out. They read rows less the weighted mean of each
pixel, with zero and no weight where a pixel is masked.
"""

import contextlib
import importlib.util
import io
import sys
import time
from types import SimpleNamespace

import numpy as np
import scipy.linalg
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_array

from dualgate.features import WienerScores

N_TRAIN, N_TEST, PIXELS, FACTORS, MASKED = 3000, 1000, 300, 5, 0.3


def draw(seed, slow):
    """Rows, their errors (infinite where masked), the true mean and loadings, the typical error of each pixel."""
    rng, x, n_rows = np.random.default_rng(seed), np.linspace(0, 1, PIXELS), N_TRAIN + N_TEST
    centres, widths = rng.uniform(0, 1, (FACTORS + 1, 8, 1)), rng.uniform(0.02, 0.10, (FACTORS + 1, 8, 1))
    profiles = (rng.normal(size=centres.shape) * np.exp(-0.5 * ((x - centres) / widths) ** 2)).sum(axis=1)
    profiles /= np.sqrt(np.mean(profiles**2, axis=1, keepdims=True))
    mean, V = profiles[0], (profiles[1:] * np.geomspace(1, 0.25, FACTORS)[:, None]).T
    pattern = np.sin(2 * np.pi * (1.5 * x + rng.uniform())) / 2 if slow else rng.uniform(-0.5, 0.5, PIXELS)
    typical = 0.6 * 10**pattern
    errors = typical * 10 ** rng.uniform(-0.5, 0.5, (n_rows, 1))
    X = mean + rng.normal(size=(n_rows, FACTORS)) @ V.T + errors * rng.normal(size=errors.shape)
    masked = rng.uniform(size=X.shape) < MASKED
    X[masked], errors[masked] = np.nan, np.inf
    return X, errors, mean, V, typical


def wiener(smooth):
    """Wiener scores, which take rows and errors as they are."""

    def fit(rows, errors, centred, weights):
        flux, error = slice(0, PIXELS), slice(PIXELS, None)
        scores = WienerScores(FACTORS, columns=flux, error_columns=error, smooth=smooth)
        return scores.fit(np.hstack([rows, errors])).loadings_

    return fit


def by_wpca(name):
    """Wpca 0.1 takes inverse errors; two arguments that it passes have new names in scikit-learn and scipy."""

    def fit(rows, errors, centred, weights):
        import wpca.utils
        import wpca.wpca

        wpca.utils.check_array = lambda A, force_all_finite=True: check_array(A, ensure_all_finite=force_all_finite)
        wpca.wpca.linalg = SimpleNamespace(eigh=lambda A, eigvals: scipy.linalg.eigh(A, subset_by_index=eigvals))
        more = {"random_state": 0} if name == "EMPCA" else {}
        return getattr(wpca, name)(FACTORS, **more).fit(centred, weights=np.sqrt(weights)).components_.T

    return fit


def by_robusta(robust):
    """robusta-hmf takes inverse variances."""

    def fit(rows, errors, centred, weights):
        import jax
        from robusta_hmf import Robusta

        jax.config.update("jax_enable_x64", True)
        state, _ = Robusta(FACTORS, robust=robust).fit(jax.numpy.asarray(centred), jax.numpy.asarray(weights))
        return np.asarray(state.G)

    return fit


def by_wv(rows, errors, centred, weights):
    """Wv takes inverse variances."""
    import wv

    return wv.empca(centred, weights, nvec=FACTORS, silent=True).eigvec.T


def filled(rows, errors, centred, weights):
    """Principal components after masked pixels are given the mean of their column."""
    mean = np.nanmean(rows, axis=0)
    return PCA(FACTORS, random_state=0).fit(np.where(np.isnan(rows), mean, rows)).components_.T


METHODS = {  # name: (package, fit)
    "WienerScores": ("dualgate", wiener(False)),
    "WienerScores, smooth": ("dualgate", wiener(True)),
    "robusta-hmf, Gaussian": ("robusta_hmf", by_robusta(False)),
    "robusta-hmf, robust (default)": ("robusta_hmf", by_robusta(True)),
    "wpca.WPCA": ("wpca", by_wpca("WPCA")),
    "wpca.EMPCA": ("wpca", by_wpca("EMPCA")),
    "wv.empca": ("wv", by_wv),
    "PCA of filled rows": ("sklearn", filled),
}


def sine(A, B):
    """Sine of the largest principal angle."""
    return np.sin(scipy.linalg.subspace_angles(A, B).max())


def posterior(X, weights, mean, G, C):
    """Posterior means and covariances of the factors, and the log likelihood of each row, measured pixels alone."""
    residuals = np.where(weights > 0, X - mean, 0)
    precision = np.linalg.inv(C) + (weights @ (G[:, :, None] * G[:, None, :]).reshape(PIXELS, -1)).reshape(-1, *C.shape)
    covariances, projected = np.linalg.inv(precision), (weights * residuals) @ G
    means = np.einsum("nij,nj->ni", covariances, projected)
    log_volume = -np.log(weights / (2 * np.pi), out=np.zeros_like(weights), where=weights > 0).sum(axis=1)
    log_volume += np.linalg.slogdet(precision)[1] + np.linalg.slogdet(C)[1]
    squares = (weights * residuals**2).sum(axis=1) - (means * projected).sum(axis=1)
    return means, covariances, -0.5 * (log_volume + squares)


def held_out(G, X, weights, mean, train, test):
    """Mean log likelihood of the test rows; mean and covariance of the factors from the training rows."""
    G = np.linalg.qr(G)[0]
    C = np.eye(FACTORS) * PIXELS
    for _ in range(20):
        means, covariances, _ = posterior(X[train], weights[train], mean, G, C)
        C = (means.T @ means + covariances.sum(axis=0)) / len(means)
        mean = (weights[train] * np.where(weights[train] > 0, X[train] - means @ G.T, 0)).sum(axis=0)
        mean /= weights[train].sum(axis=0)
    return posterior(X[test], weights[test], mean, G, C)[2].mean()


def main(*words):
    slow, seeds = "slow" in words, [int(word) for word in words if word != "slow"]
    train, test = slice(0, N_TRAIN), slice(N_TRAIN, None)
    found, limits = {}, []
    for seed in seeds or range(3):
        X, errors, true_mean, V, typical = draw(seed, slow)
        weights = 1 / errors**2
        mean = np.nansum(weights[train] * X[train], axis=0) / weights[train].sum(axis=0)
        rows = X[train], errors[train], np.where(weights > 0, X - mean, 0)[train], weights[train]
        limits.append(posterior(X[test], weights[test], true_mean, V, np.eye(FACTORS))[2].mean())
        for name, (package, fit) in METHODS.items():
            if importlib.util.find_spec(package) is None:
                continue
            with contextlib.redirect_stdout(io.StringIO()):  # some report every step
                fit(*(part[:100] for part in rows))
                started = time.process_time()
                G = fit(*rows)
            seconds = time.process_time() - started
            behind = held_out(G, X, weights, mean, train, test) - limits[-1]
            numbers = sine(G, V), sine(G / typical[:, None], V / typical[:, None]), seconds, behind
            found.setdefault(name, []).append(numbers)
            print(f"seed {seed}  {name:30s}" + "  {:.4f}  {:.4f}  {:7.2f} s  {:+.3f}".format(*numbers), flush=True)
    print(f"medians; log likelihood of the true model {np.median(limits):.2f} a row")
    for name, numbers in found.items():
        print(f"{name:38s}" + "  {:.4f}  {:.4f}  {:7.2f} s  {:+.3f}".format(*np.median(numbers, axis=0)))


if __name__ == "__main__":
    main(*sys.argv[1:])
