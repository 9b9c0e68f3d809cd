"""What faults of real spectra do to each model: R2 of log g, coverage and velocity, with and without what is for them.

    python benchmarks/faults.py [directory] [n_train] [n_test] [seeds] [models]

Every model is fitted to clean rows of each seed and predicts rows of the same stars, which no model was fitted to, with
one fault at a time. `models` is a choice, separated by semicolons. Predictions are kept in `directory`.
"""

import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from quality_places import TEST_START, _columns, kept, peers
from scipy.constants import speed_of_light
from sklearn.metrics import r2_score

from dualgate import DualTowerMoERegressor
from dualgate.datasets import make_spectra
from dualgate.experts import ExtrapolationWarning
from dualgate.gating import GateCollapseWarning
from dualgate.snr import quality_bins

FAULTS = {
    "none": None,
    "scale 1.05": {"scale": 0.05},
    "tilt of 5 %": {"tilt": 0.05},
    "random cubics of 2 %": {"continuum": 0.02},
    "random cubics of 5 %": {"continuum": 0.05},
    "shift of 1 pixel": {"shift": 1.0},
    "shift of 3 pixels": {"shift": 3.0},
    "shift of 10 pixels": {"shift": 10.0},
    "velocity within 160 km/s": {"velocity": (-160, 160)},
    "10 cosmic rays of 30 sigma": {"cosmic_rays": 10},
    "100 cosmic rays of 30 sigma": {"cosmic_rays": 100},
    "30 % bad pixels": {"bad_pixels": 0.3},
    "errors stated at half": {"errors": 0.5},
    "errors stated at twice": {"errors": 2.0},
    "1 % of the sky left": {"sky": 0.01},
    "neighbours correlated, 0.3 and 0.05": {"correlation": (0.3, 0.05)},
}
MODELS = {
    "dual tower": {"experts": "hierarchical"},
    "likelihood, not robust": {"robust": False},
    "likelihood": {},
    "likelihood, continuum=0.02": {"continuum": 0.02},
    "likelihood, continuum=0.05": {"continuum": 0.05},
    "likelihood, velocity=160": {"velocity": 160},
    "likelihood, continuum=0.05, velocity=160": {"continuum": 0.05, "velocity": 160},
    "likelihood, correlated rows": {},
    "likelihood, correlated rows, correlation=(0.3, 0.05)": {
        "experts__projection__nuisances__correlation": (0.3, 0.05)
    },
}
CORRELATED = {"correlation": (0.3, 0.05)}  # training rows of the models named so
PEERS = ("LightGBM", "MLP")  # on Wiener scores and quality columns of the dual tower
LEVEL, LIGHT = 0.90, speed_of_light / 1e3  # [km/s]


def predict_all(name, seed, n_train, n_test):
    """Predictions of one model for every fault: dict of fault to what was found."""
    train = make_spectra(n_train, random_state=seed, faults=CORRELATED if "correlated" in name else None)
    options = MODELS.get(name, MODELS["dual tower"])
    model = DualTowerMoERegressor.for_spectra(train.wave, random_state=seed, n_jobs=-1, **options)
    started = time.process_time()
    model.fit(train.X, train.y, regimes=train.conditions)
    if name in PEERS:
        rows = model.reduction_.read(train.X, training=True)
        peer = peers()[name].fit(_columns(rows).astype(np.float32), train.y)
    print(f"  {name}, seed {seed}: fit in {time.process_time() - started:.0f} s of processor time", flush=True)
    found = {}
    for fault, options in FAULTS.items():
        test = make_spectra(n_test, random_state=seed, start=TEST_START, faults=options)
        started, result = time.process_time(), {}
        if name in PEERS:
            result["mean"] = peer.predict(_columns(model.reduction_.read(test.X)).astype(np.float32))
        elif name == "dual tower":
            result["mean"] = model.predict(test.X)
        else:
            density = model.predict_density(test.X)
            result["mean"], result["inside"] = density.mean, np.abs(density.cdf(test.y) - 0.5) < LEVEL / 2
        result["seconds"] = (time.process_time() - started) / n_test
        if "velocity" in name and "velocity" in test.labels:
            velocity, result["velocity_std"] = model.predict_velocity(test.X)
            result["velocity"] = velocity - test.labels["velocity"].to_numpy()
        found[fault] = result
    return found


def main(directory="faults", n_train=20_000, n_test=4_000, seeds="42", models=""):
    """Fit, predict and print a table for every fault."""
    for category in (ExtrapolationWarning, GateCollapseWarning):
        warnings.simplefilter("ignore", category)
    directory, n_train, n_test = Path(directory), int(n_train), int(n_test)
    directory.mkdir(exist_ok=True, parents=True)
    seeds, found = [int(seed) for seed in seeds.split(",")], {}
    names = models.split(";") if models else [*MODELS, *PEERS]
    for name in names:
        for seed in seeds:
            path = directory / f"{name.replace(' ', '')}_{seed}_{n_train}_{n_test}.joblib"
            found[name, seed] = kept(path, partial(predict_all, name, seed, n_train, n_test))
    stars = {seed: make_spectra(n_test, random_state=seed, start=TEST_START) for seed in seeds}
    for seed, star in stars.items():
        star.seed = seed
    for fault in FAULTS:
        print(f"\n{fault}")
        for name in names:
            results = [(stars[seed], found[name, seed][fault]) for seed in seeds]
            scores = [r2_score(star.y, result["mean"]) for star, result in results]
            line = f"  {name:42s} R2 {np.mean(scores):7.3f} {1e6 * np.mean([r['seconds'] for _, r in results]):5.0f} us"
            if "inside" in results[0][1]:
                line += f"  inside {LEVEL:.2f}: {np.mean([result['inside'] for _, result in results]):.3f}"
            print(line + (velocities(results) if "velocity" in results[0][1] else ""))


def velocities(results):
    """Scatter of the velocity, stated scatter, and Cramer-Rao bound of a known star, by signal-to-noise ratio."""
    columns = ((star.snr, r["velocity"], r["velocity_std"], bound_of(star)) for star, r in results)
    snr, error, std, bound = (np.concatenate(each) for each in zip(*columns, strict=True))
    bins, text = quality_bins(snr), "; scatter, stated, bound [km/s] by SNR:"
    for place in range(4):
        own = bins == place
        middle = [np.median(values[own]) for values in (np.abs(error) * 1.4826, std, bound)]
        text += " {:.1f} ({:.1f}, {:.1f})".format(*middle)
    return text


def bound_of(star):
    """Find the least scatter of the velocity of a star whose noise-free spectrum is known (Cramer and Rao) [km/s]."""
    clean = make_spectra(len(star.y), random_state=star.seed, start=TEST_START, noise_level=0).flux
    slope = np.gradient(clean.astype(np.float64), star.wave, axis=1) * star.wave / LIGHT
    return 1 / np.sqrt(np.square(slope / star.error).sum(axis=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
