"""Fit and predict for an hour, and see whether memory grows.

    python benchmarks/soak.py [minutes] [n_rows]

In turn the factor mixture and the dual tower for spectra are fitted to new rows on disk with a checkpoint, predict
(densities, intervals, novelty), and are saved and loaded. Prints the resident memory every minute, and at the end its
slope by least squares over the second half, with twice its standard error.
"""

import gc
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from kills import write_rows

from dualgate import DualTowerMoERegressor
from dualgate.export import load_model, save_model

KINDS = ("factor", "hierarchical")


def resident():
    """Resident memory of this process [MiB]."""
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


def turn(folder, n_rows, seed):
    """Fit one model to rows of its own, and use it."""
    write_rows(folder, n_rows, seed, n_new=n_rows // 2, coarse=32)
    wave, y, regimes = (np.load(folder / f"{name}.npy") for name in ("wave", "y", "regimes"))
    X, X_new = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("X", "X_new"))
    kind = KINDS[seed % len(KINDS)]
    model = DualTowerMoERegressor.for_spectra(wave, experts=kind, random_state=seed)
    if kind == "hierarchical":
        model.set_params(max_epochs=3)
    model.fit(X, y, regimes=regimes, checkpoint=folder / "checkpoint")
    again = load_model(save_model(model, folder / "model.dualgate"))
    assert np.array_equal(again.predict(X_new), model.predict(X_new))
    model.predict_interval(X_new)
    if kind == "factor":
        model.novelty(X_new)


def main(minutes="60", n_rows="400"):
    warnings.simplefilter("ignore")
    begun, seen, seed, shown = time.monotonic(), [], 0, -1
    while (elapsed := time.monotonic() - begun) < 60 * float(minutes):
        with TemporaryDirectory() as name:
            turn(Path(name), int(n_rows), seed)
        seed += 1
        gc.collect()
        seen.append((elapsed / 60, resident()))
        if int(elapsed / 60) > shown:
            shown = int(elapsed / 60)
            print(f"{shown:4d} min, {seed:5d} fits: {seen[-1][1]:.1f} MiB", flush=True)
    at, size = np.array(seen[len(seen) // 2 :]).T
    slope, level = np.polyfit(at, size, 1)
    left = size - slope * at - level
    error = np.sqrt(left @ left / max(len(at) - 2, 1)) / (at.std() * np.sqrt(len(at)))
    print(f"{seed} fits; second half: {60 * slope:+.1f} +- {120 * error:.1f} MiB an hour at {size.mean():.0f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
