"""Speed of the parts against what this machine can do at best, both in one run and one process.

    python benchmarks/parts.py

Microseconds a row of 4,096 float32 pixels, and the ratio to a floor that is timed turn by turn with it; medians
of seven.
The floor of statistics is a sum over flux and error (what reading both costs) and one in-place `ssyrk`, that of
QualityStatistics the same ten numbers by numpy and scipy as one would write them.
"""

import time
from functools import partial

import numpy as np
from scipy import stats
from scipy.linalg.blas import ssyrk

from dualgate import DualTowerMoERegressor
from dualgate.datasets import make_spectra
from dualgate.features import NoiseWhitenedPCA, QualityStatistics
from dualgate.features.whitened import WhiteningSums
from dualgate.statistics import CellStatistics

PIXELS = 4096


def measure(function, n_rows, floor=None, repeats=7):
    """Median microseconds a row, and median ratio to a floor that is timed right before it, turn by turn."""
    times = np.empty((repeats, 2))
    for turn in range(-1, repeats):  # the first turn warms up
        for place, each in enumerate((floor, function)):
            start = time.perf_counter()
            if each is not None:
                each()
            times[turn, place] = time.perf_counter() - start
    floors, own = np.median(times, axis=0) / n_rows * 1e6
    return own, floors, float(np.median(times[:, 1] / times[:, 0]))


def plain_quality(error):
    moments = (f(error, axis=-1) for f in (np.mean, np.std, np.min, np.max, np.median, np.sum))
    quartiles = (np.percentile(error, q, axis=-1) for q in (25, 75))
    return np.column_stack([*moments, *quartiles, stats.skew(error, axis=-1), stats.kurtosis(error, axis=-1)])


def report(name, function, n_rows, floor=None):
    own, floors, ratio = measure(function, n_rows, floor)
    compared = "" if floor is None else f"   floor {floors:6.1f} us/row, ratio {ratio:5.2f}"
    print(f"{name:42s} {own:7.1f} us/row, {1e6 / own:9,.0f} rows/s{compared}", flush=True)


def main():
    rows = 8192
    data = make_spectra(20_000, random_state=0)
    X, y = data.X[:rows], data.y[:rows]
    flux, error = X[:, :PIXELS], X[:, PIXELS:]
    packed = np.ascontiguousarray(flux)
    gram = np.zeros((PIXELS, PIXELS), np.float32, order="F")

    def floor():
        flux.sum(), error.sum()
        for start in range(0, rows, 2500):
            ssyrk(1.0, packed[start : start + 2500].T, beta=1.0, c=gram, overwrite_c=1)

    whitening = WhiteningSums.about(lambda block, first_row: (flux, error), flux, error)
    report("whitening statistics", lambda: whitening.update(0, X), rows, floor)
    for n_cells in (1, 9):
        cells = np.arange(rows) % n_cells
        sums = CellStatistics.zeros(n_cells, PIXELS, origin=flux[:100].mean(axis=0))
        report(f"CellStatistics in pixels, {n_cells} cells", partial(sums.update, flux, y, cells), rows, floor)
        del sums
    scores = NoiseWhitenedPCA(50, columns=slice(0, PIXELS), error_columns=slice(PIXELS, None)).fit(X).transform(X)
    sums, cells = CellStatistics.zeros(180, 50), np.arange(rows) % 180
    report("CellStatistics of 50 components, 180 cells", lambda: sums.update(scores, y, cells), rows)

    drawn = np.exp(0.3 * np.random.default_rng(0).standard_normal((1000, PIXELS), dtype=np.float32))
    for name, few in (("drawn", drawn), ("simulated", np.ascontiguousarray(error[:1000]))):
        quality = QualityStatistics().fit(few)
        report(f"QualityStatistics, {name} errors", partial(quality.transform, few), 1000, partial(plain_quality, few))

    model = DualTowerMoERegressor.for_spectra(data.wave, experts="hierarchical", random_state=0, max_epochs=3)
    model.fit(X, y, regimes=data.regimes[:rows])
    for n_jobs in (1, 2):
        model.set_params(n_jobs=n_jobs)
        report(f"predict 20,000 rows, n_jobs={n_jobs}", lambda: model.predict(data.X), len(data.X))


if __name__ == "__main__":
    main()
