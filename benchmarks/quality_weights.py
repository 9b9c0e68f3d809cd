"""How much weights by quality improve noise-whitened components.

Nine experts and 9x4 experts with the true regime given, on components found with and without the weights. Prints R^2 of
log g on 2,000 rows that were not used to fit.

    python benchmarks/quality_weights.py [n_train]
"""

import sys
from unittest import mock

import numpy as np
from sklearn.metrics import r2_score

from dualgate import HierarchicalExperts
from dualgate.datasets import make_spectra
from dualgate.features import whitened
from dualgate.features.whitened import WhiteningStatistics


class EqualWeights(WhiteningStatistics):
    """The same sums with equal weights of all rows."""

    def update(self, flux, error):  # noqa: D102
        unit = self.unit.astype(flux.dtype)
        nothing = np.zeros(len(flux), dtype=int)
        self.moments.update(flux / unit, nothing, nothing)
        self.noise_power += np.square(error / unit).sum(axis=0)
        self.n_rows += len(flux)

    def empty(self):  # noqa: D102
        return EqualWeights(self.unit, self.origin, self.weighted)


def main(n_train=16_000):
    data = make_spectra(n_train + 2_000, random_state=42)
    train, test, n_pixels = slice(0, n_train), slice(n_train, None), len(data.wave)
    for name, statistics in (("equal", EqualWeights), ("by quality", WhiteningStatistics)):
        with mock.patch.object(whitened, "WhiteningStatistics", statistics):
            for edges in (None, (2, 4, 7)):
                experts = HierarchicalExperts(
                    slice(0, n_pixels),
                    slice(n_pixels, None),
                    quality_edges=edges,
                    projection="whitened",
                    clip=True,
                    random_state=0,
                ).fit(data.X[train], data.y[train], regimes=data.regimes[train])
                score = r2_score(data.y[test], experts.predict(data.X[test], regimes=data.regimes[test]))
                root = r2_score(data.y[test], experts.predict(data.X[test]))
                label = "9" if edges is None else "9x4"
                print(f"weights {name:10s}  oracle {label:3s}  R2 {score:.3f}   global ridge R2 {root:.3f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
