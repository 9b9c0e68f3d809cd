"""How fine must pixels be for experts on pixels: means of 1, 2, 4, ... neighbours, as they are.

    python benchmarks/pixels.py [rows] [seeds] [means]

Trains on four fifths of `rows` simulated spectra (20,000) of each seed (42) and prints, by how many neighbouring pixels
are averaged (4,16), the R2 of log g on the rest: one ridge for all rows, and nine ridges with the true regime known;
with the seconds that it took. Single pixels take more than 12 GB and were broken off after twenty minutes on a busy
core, where two took four.
"""

import sys
import time

import numpy as np
from sklearn.metrics import r2_score
from sklearn.preprocessing import FunctionTransformer

from dualgate import HierarchicalExperts
from dualgate.datasets import make_spectra


def pool(flux, n):
    """Average `n` neighbouring pixels."""
    return np.asarray(flux).reshape(len(flux), -1, n).mean(axis=2)


def scores(data, n_train, n, seed):
    """R2 of the ridge for all rows and of the oracle."""
    flux, error = slice(0, len(data.wave)), slice(len(data.wave), None)
    experts = HierarchicalExperts(
        flux, error, projection=FunctionTransformer(pool, kw_args={"n": n}), clip=True, random_state=seed, n_jobs=-1
    )
    train, test = slice(0, n_train), slice(n_train, None)
    experts.fit(data.X[train], data.y[train], regimes=data.regimes[train])
    found = experts.predict(data.X[test]), experts.predict(data.X[test], regimes=data.regimes[test])
    return [r2_score(data.y[test], each) for each in found]


def main():
    rows, seeds, means = [*sys.argv[1:], *("20000", "42", "4,16")[len(sys.argv) - 1 :]]
    print("pixels averaged | ridge for all | nine ridges | seconds")
    for seed in map(int, seeds.split(",")):
        data = make_spectra(int(rows), random_state=seed)
        for n in map(int, means.split(",")):
            start = time.perf_counter()
            found = scores(data, int(rows) * 4 // 5, n, seed)
            print(n, *(f"{each:.3f}" for each in found), f"{time.perf_counter() - start:.0f}", sep=" | ", flush=True)


if __name__ == "__main__":
    main()
