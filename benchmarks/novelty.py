"""How well `novelty` finds rows that do not belong, by signal-to-noise ratio, and what is gained by not answering.

    python benchmarks/novelty.py [n_train] [n_test] [seed]

Prints the quantiles of p-values of usual rows, the area under the ROC curve of each kind of odd rows against usual ones
of the same signal-to-noise ratio, and the error of log g against the share of rows that are answered.
"""

import sys
import warnings

import numpy as np
from quality_places import TEST_START
from sklearn.metrics import r2_score, roc_auc_score

from dualgate import DualTowerMoERegressor
from dualgate.datasets import make_spectra
from dualgate.experts import ExtrapolationWarning
from dualgate.snr import quality_bins

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
HOT = 5250  # T_eff [K] above which the stars of the second model's training rows end


def odd_rows(seed, n_test, usual):
    """X of every kind of odd rows, with the noise of the usual ones."""
    faults = {
        "shift of 5 pixels": {"shift": 5.0},
        "shift of 50 pixels": {"shift": 50.0},
        "companion with half the light": {"companion": 0.5},
        "1 % of the sky left": {"sky": 0.01},
        "5 % of the sky left": {"sky": 0.05},
        "100 cosmic rays of 30 sigma": {"cosmic_rays": 100},
        "tilt of 5 %": {"tilt": 0.05},
        "errors stated at half": {"errors": 0.5},
    }
    found = {
        name: make_spectra(n_test, random_state=seed, start=TEST_START, faults=fault).X
        for name, fault in faults.items()
    }
    clean = make_spectra(n_test, random_state=seed, start=TEST_START, noise_level=0).flux
    noise, error = usual.flux - clean, usual.error
    line = (usual.wave > 8536) & (usual.wave < 8548)
    flux = {
        "all zero": 0 * clean,
        "white noise": noise,
        "flux times 1e6": 1e6 * usual.flux,
        "another range (red to blue)": clean[:, ::-1] + noise,
        "one line missing (Ca II 8542)": np.where(line, clean[:, line].max(axis=1, keepdims=True), clean) + noise,
    }
    return found | {name: np.hstack([values, error]).astype(np.float32) for name, values in flux.items()}


def by_snr(usual, odd, bins):
    """Area under the ROC curve in every bin of the signal-to-noise ratio, as text."""
    areas = []
    for place in range(4):
        own = bins == place
        truth = np.repeat([0, 1], own.sum())
        areas.append(roc_auc_score(truth, -np.r_[usual[own], odd[own]]))
    return "  ".join(f"{area:.3f}" for area in areas)


def main(n_train=20_000, n_test=5_000, seed=42):
    """Fit, and print the tables."""
    warnings.simplefilter("ignore", ExtrapolationWarning)
    n_train, n_test, seed = int(n_train), int(n_test), int(seed)
    train = make_spectra(n_train, random_state=seed)
    usual = make_spectra(n_test, random_state=seed, start=TEST_START)
    model = DualTowerMoERegressor.for_spectra(train.wave, random_state=seed, n_jobs=-1)
    model.fit(train.X, train.y, regimes=train.conditions)
    bins, p_usual = quality_bins(usual.snr), model.novelty(usual.X)
    print("quantiles of p-values of usual rows at", LEVELS, np.quantile(p_usual, LEVELS).round(3))
    for place in range(4):
        print(f"  SNR bin {place}:", np.quantile(p_usual[bins == place], LEVELS).round(3))
    print("\narea under the ROC curve by SNR bin, share of rows with p < 0.01")
    for name, X in odd_rows(seed, n_test, usual).items():
        p_odd = model.novelty(X)
        print(f"  {name:32s} {by_snr(p_usual, p_odd, bins)}   {np.mean(p_odd < 0.01):.3f}")

    mean, std = model.predict(usual.X, return_std=True)
    print("\nshare answered (smallest stated std first): R2, root mean squared error [dex]")
    order = np.argsort(std)
    for share in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        own = order[: int(share * n_test)]
        error = np.sqrt(np.mean((mean[own] - usual.y[own]) ** 2))
        print(f"  {share:.1f}: {r2_score(usual.y[own], mean[own]):.3f}, {error:.3f}")

    cool = train.conditions[:, 0] < HOT
    model.fit(train.X[cool], train.y[cool], regimes=train.conditions[cool])
    inside, outside = usual.conditions[:, 0] < HOT, usual.conditions[:, 0] > HOT + 250
    p_inside, p_outside = model.novelty(usual.X[inside]), model.novelty(usual.X[outside])
    areas = []
    for place in range(4):
        pair = p_inside[bins[inside] == place], p_outside[bins[outside] == place]
        areas.append(roc_auc_score(np.repeat([0, 1], [len(values) for values in pair]), -np.concatenate(pair)))
    print(f"\nstars hotter than {HOT + 250} K, trained below {HOT} K:", "  ".join(f"{area:.3f}" for area in areas))


if __name__ == "__main__":
    main(*sys.argv[1:])
