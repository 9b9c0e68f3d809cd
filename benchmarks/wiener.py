"""Speed of Wiener scores against the matrix products that they need at least, both in one run and one process.

    python benchmarks/wiener.py

Microseconds a row of 4,096 float32 pixels with 24 factors, and the ratio to a floor that is timed turn by turn with it;
medians of seven. The floor of `transform` is one product of the weights with the 300 products of loadings, that of a
step of expectation-maximisation two of them, with 351 (one known factor, and the mean).
"""

import numpy as np
from parts import PIXELS, report

from dualgate.datasets import make_spectra
from dualgate.features import WienerScores
from dualgate.features.factors import Factors, FactorSums
from dualgate.features.loadings import Loadings

ROWS, FACTORS = 2000, 24


def main():
    X = make_spectra(ROWS, random_state=0).X
    clean = make_spectra(500, random_state=0, start=ROWS, noise_level=0).X[:, :PIXELS]
    wiener = WienerScores(FACTORS, columns=slice(0, PIXELS), error_columns=slice(PIXELS, None)).fit(X, clean=clean)
    rng = np.random.default_rng(0)
    rows = np.ascontiguousarray(X[:, :PIXELS])
    products, more = (rng.standard_normal((PIXELS, n * (n + 1) // 2), dtype=np.float32) for n in (FACTORS, FACTORS + 2))
    folded = rng.standard_normal((ROWS, more.shape[1]), dtype=np.float32)
    known = rng.standard_normal((ROWS, 1))
    factors = Factors(wiener.loadings_ / wiener.noise_[:, None], np.zeros((PIXELS, 1)), np.zeros(PIXELS))

    def two_products():
        rows @ more
        rows.T @ folded

    def sums(n_jobs):
        step = FactorSums(wiener.read, factors, known, 5, n_jobs)
        step.update(0, X)
        return step.found

    for n_jobs in (None, 2):
        wiener.set_params(n_jobs=n_jobs)
        report(f"WienerScores.transform, n_jobs={n_jobs}", lambda: wiener.transform(X), ROWS, lambda: rows @ products)
        report(f"step, sums over rows, n_jobs={n_jobs}", lambda n=n_jobs: sums(n), ROWS, two_products)
    found = sums(None)
    report("step, loadings (once, whatever the rows)", lambda: Loadings(found, FACTORS, False), ROWS)
    report("step, smooth loadings", lambda: Loadings(found, FACTORS, True), ROWS)


if __name__ == "__main__":
    main()
