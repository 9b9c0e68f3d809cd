"""The best R^2 of log g that any regressor can reach on the embedded data, in all and for each bin of SNR.

Rows 300,000 to 302,000 of the table 42. "Expected" follows from the posterior variances alone, "observed" is the R^2 of
the posterior mean on the true log g. With a width, the continuum of every row is uncertain by a random cubic.

    python benchmarks/bayes_limit.py [n_rows [continuum]]
"""

import sys
import time

import numpy as np

from dualgate.datasets import bayes_limit, make_spectra
from dualgate.evaluation import (
    SNR_NAMES,
    SNR_RANGES,
    Estimate,
    bootstrap_scores,
    bootstrap_weights,
    row_slices,
)

FIRST_ROW = 300_000
PRIOR_VARIANCE = 16 / 12  # of log g, uniform from 1 to 5


def main(n_rows="2000", continuum=None):
    n_rows, faults = int(n_rows), {}
    if continuum is not None:
        faults["continuum"] = float(continuum)
    data = make_spectra(n_rows, random_state=42, start=FIRST_ROW, faults=faults)
    begun = time.process_time()
    limit = bayes_limit(data.X, y=data.y, random_state=0, **faults)
    seconds = time.process_time() - begun
    slices = row_slices(n_rows, snr=data.snr)
    table = bootstrap_scores(data.y, {"limit": limit.prediction}, slices, random_state=0)
    ranges = dict(zip(SNR_NAMES, SNR_RANGES, strict=True))
    resamples = bootstrap_weights(n_rows, random_state=0)
    print("rows              n  expected R2           observed R2           mean square of (y - prediction) / std")
    for name, inside in slices.items():
        weights = resamples[:, inside]
        weights = weights[weights.any(axis=1)]
        draws = 1 - weights @ limit.std[inside] ** 2 / weights.sum(axis=1) / PRIOR_VARIANCE
        expected = Estimate(1 - np.mean(limit.std[inside] ** 2) / PRIOR_VARIANCE, draws).interval()
        observed = table.estimate("r2", "limit", name).interval()
        squares = ((data.y - limit.prediction) / limit.std)[inside] ** 2
        spread = squares.std() / np.sqrt(len(squares))
        label = f"{name} {ranges.get(name, '')}"
        print(f"{label:12s} {inside.sum():6.0f}  {expected}  {observed}  {squares.mean():.2f} ± {spread:.2f}")
    low, middle = np.quantile(limit.effective_sample_size, [0.05, 0.5])
    print(f"effective draws: median {middle:.0f}, 5 % {low:.0f}, fewest {limit.effective_sample_size.min():.0f}")
    print(f"{seconds:.0f} s of processor time")


if __name__ == "__main__":
    main(*sys.argv[1:])
