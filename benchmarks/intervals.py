"""Intervals: coverage by SNR bin and by regime, width against marginal intervals, scores, and a shift of noise.

    python benchmarks/intervals.py [n_train] [n_test] [seeds]

For the default mixture for spectra and for the dual tower (experts="hierarchical"): coverage at 0.68, 0.90 and 0.95 of
rows that were not fitted; mean width at 0.90 beside the width of marginal split-conformal intervals, which have one
width for all rows and are given the test rows' own absolute errors as calibration (the smallest width that they can
have); CRPS, log score and interval score. Then the factor mixture trained on magnitudes 20.5 to 21.5 and applied to
21.5 to 22.5.
"""

import sys
import time
import warnings

import numpy as np
from quality_places import TEST_START

from dualgate import DualTowerMoERegressor
from dualgate.datasets import make_spectra
from dualgate.evaluation import SNR_NAMES, crps, interval_score, log_score, row_slices
from dualgate.experts import ExtrapolationWarning

COVERAGES, FAINT = (0.68, 0.90, 0.95), 21.5


def fitted(experts, data, rows, seed):
    """Fit, and tell how long it took."""
    model = DualTowerMoERegressor.for_spectra(data.wave, experts=experts, random_state=seed)
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(data.X[rows], data.y[rows], regimes=data.conditions[rows])
    print(f"  fit: {time.perf_counter() - wall:.0f} s, {time.process_time() - cpu:.0f} s of CPU", flush=True)
    return model


def report(model, data, rows):
    """Print coverage by slice, widths and scores of test rows."""
    y, reduced = data.y[rows], model.reduction_.read(data.X[rows])
    slices = row_slices(len(y), snr=data.snr[rows], regimes=data.regimes[rows])
    slices = {name: mask for name, mask in slices.items() if mask.any()}
    print("  rows      ", " ".join(f"{name.replace('regime ', 'r'):>6s}" for name in slices))
    print("            ", " ".join(f"{mask.sum():6d}" for mask in slices.values()))
    density = model.predict_density(reduced)
    mean, apart = density.mean, np.abs(y - density.mean)
    for coverage in COVERAGES:
        interval = model.predict_interval(reduced, coverage)
        inside = (interval[:, 0] <= y) & (y <= interval[:, 1])
        shares = {name: inside[mask].mean() for name, mask in slices.items()}
        print(f"  {coverage:.2f}      ", " ".join(f"{share:6.3f}" for share in shares.values()))
        raw = 2 * np.abs(density.cdf(y) - 0.5) <= coverage
        print("   density  ", " ".join(f"{raw[mask].mean():6.3f}" for mask in slices.values()))
        bins = [abs(shares[name] - coverage) for name in SNR_NAMES if name in slices]
        regimes = [abs(share - coverage) for name, share in shares.items() if name.startswith("regime")]
        width, reach = np.ptp(interval, axis=1), np.quantile(apart, coverage)
        marginal = np.stack([mean - reach, mean + reach], axis=1)
        print(
            f"   farthest: bin {max(bins):.3f}, regime {max(regimes):.3f}; width {width.mean():.3f} (median "
            f"{np.median(width):.3f}) against {2 * reach:.3f}: {width.mean() / (2 * reach):.3f}; interval score "
            f"{interval_score(y, interval, coverage).mean():.3f} against "
            f"{interval_score(y, marginal, coverage).mean():.3f}"
        )
    widths = np.ptp(model.predict_interval(reduced, 0.9), axis=1)
    print("  width 0.90", " ".join(f"{widths[mask].mean():6.3f}" for mask in slices.values()))
    print(f"  CRPS {crps(y, density).mean():.4f}, log score {log_score(y, density).mean():.3f}", flush=True)


def main(n_train=20_000, n_test=20_000, seeds="42"):
    """Fit, and print the tables."""
    warnings.simplefilter("ignore", ExtrapolationWarning)
    n_train, n_test = int(n_train), int(n_test)
    for seed in map(int, str(seeds).split(",")):
        train = make_spectra(n_train, random_state=seed)
        test = make_spectra(n_test, random_state=seed, start=TEST_START)
        every, all_rows = slice(None), np.arange(n_test)
        for experts in ("factor", "hierarchical"):
            print(f"\nseed {seed}, {experts}, {n_train:,} training rows, {n_test:,} test rows")
            report(fitted(experts, train, every, seed), test, all_rows)
        bright, faint = train.labels.mag < FAINT, np.flatnonzero(test.labels.mag >= FAINT)
        print(f"\nseed {seed}, factor, trained on {bright.sum():,} rows of magnitudes 20.5 to 21.5")
        model = fitted("factor", train, np.flatnonzero(bright), seed)
        print("\n  applied to as bright rows")
        report(model, test, np.flatnonzero(test.labels.mag < FAINT))
        print("\n  applied to magnitudes 21.5 to 22.5")
        report(model, test, faint)


if __name__ == "__main__":
    main(*sys.argv[1:])
