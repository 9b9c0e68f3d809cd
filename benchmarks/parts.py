"""Speed of the parts against what this machine can do at best, both in one run and one process.

    python benchmarks/parts.py

Microseconds a row of 4,096 float32 pixels, and the ratio to the floor; medians of five. The floors are one in-place
`ssyrk`, a sum over flux and error (what reading both costs), and ten statistics of the errors by numpy and scipy as one
would write them.
"""

import time

import numpy as np
from scipy import stats
from scipy.linalg.blas import ssyrk

from dualgate import DualTowerMoERegressor
from dualgate.datasets import make_spectra
from dualgate.features import NoiseWhitenedPCA, QualityStatistics
from dualgate.features.whitened import WhiteningStatistics
from dualgate.statistics import CellStatistics

PIXELS = 4096


def median(function, n_rows, repeats=5):
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) / n_rows * 1e6


def plain_quality(error):
    quartiles = (np.percentile(error, q, axis=-1) for q in (25, 75))
    moments = (f(error, axis=-1) for f in (np.mean, np.std, np.min, np.max, np.median, np.sum))
    return np.column_stack([*moments, *quartiles, stats.skew(error, axis=-1), stats.kurtosis(error, axis=-1)])


def report(name, microseconds, floor=None, of=""):
    ratio = "" if floor is None else f"   {microseconds / floor:5.2f} x {of}"
    print(f"{name:44s} {microseconds:8.1f} us/row{ratio}", flush=True)


def main():
    rows = 8192
    data = make_spectra(20_000, random_state=0)
    X = data.X[:rows]
    flux, error = X[:, :PIXELS], X[:, PIXELS:]
    packed = np.ascontiguousarray(flux)
    gram = np.zeros((PIXELS, PIXELS), np.float32, order="F")

    def syrk():
        for start in range(0, rows, 2048):
            ssyrk(1.0, packed[start : start + 2048].T, beta=1.0, c=gram, overwrite_c=1)

    floor = median(syrk, rows)
    reading = median(lambda: (flux.sum(), error.sum()), rows)
    report("floor: ssyrk", floor)
    report("floor: read flux and error", reading)

    whitening = WhiteningStatistics.about(flux, error)
    report(
        "statistics pass of the whitening", median(lambda: whitening.update(flux, error), rows), floor + reading, "both"
    )
    for n_cells in (1, 9):
        cells = np.arange(rows) % n_cells
        sums = CellStatistics.zeros(n_cells, PIXELS, origin=flux[:100].mean(axis=0))
        spent = median(lambda s=sums, c=cells: s.update(flux, data.y[:rows], c), rows)
        report(f"CellStatistics in pixels, {n_cells} cells", spent, floor + reading, "both")
        del sums
    scores = NoiseWhitenedPCA(50, columns=slice(0, PIXELS), error_columns=slice(PIXELS, None)).fit(X).transform(X)
    sums, cells = CellStatistics.zeros(180, 50), np.arange(rows) % 180
    report(
        "CellStatistics of 50 components, 180 cells", median(lambda: sums.update(scores, data.y[:rows], cells), rows)
    )

    few = error[:1000]
    plain = median(lambda: plain_quality(few), len(few))
    quality = QualityStatistics().fit(few)
    report("floor: ten statistics by numpy and scipy", plain)
    mine = median(lambda: quality.transform(few), len(few))
    report("QualityStatistics", mine, plain, f"that; {plain / mine:.1f} times as fast")

    model = DualTowerMoERegressor.for_spectra(data.wave, random_state=0, max_epochs=3)
    model.fit(X, data.y[:rows], regimes=data.regimes[:rows])
    for n_jobs in (1, 2):
        model.set_params(n_jobs=n_jobs)
        spent = median(lambda: model.predict(data.X), len(data.X))
        report(f"predict 20,000 rows, n_jobs={n_jobs}: {1e6 / spent:,.0f} rows/s", spent)


if __name__ == "__main__":
    main()
