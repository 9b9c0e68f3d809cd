"""Regenerate ``src/dualgate/datasets/emulator.npz`` from the physics.

    python tools/build_emulator.py [--stars 3072] [--jobs 2]

Synthesises stars at quasi-random labels (Sobol points, bent towards the edges as Chebyshev nodes are), keeps the leading
principal components of their log flux, fits the components by Chebyshev polynomials in the labels, and reports the error
on stars it has not seen. About ten minutes on two cores.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import itertools
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import qmc

from dualgate.datasets.emulator import (
    HIGH,
    LOW,
    Emulator,
    chebyshev_terms,
    matern,
    save_emulator,
    scale_labels,
    unscale_labels,
)
from dualgate.datasets.synthesis import synthesize

TARGET = Path(__file__).resolve().parents[1] / "src" / "dualgate" / "datasets" / "emulator.npz"
LENGTHS = np.array([2.0, 3.0, 2.0, 6.0, 3.0])  # correlation lengths of the kernel, in scaled labels
NUGGET = 1e-5
DEGREE = 4


def polynomial_degrees(degree):
    """Degrees of five factors of total degree up to ``degree``, shape (n_terms, 5)."""
    return np.array([p for p in itertools.product(range(degree + 1), repeat=5) if sum(p) <= degree])


def training_labels(n_stars, seed=20251228):
    """Scaled labels of shape (n_stars, 5) with the density of Chebyshev nodes."""
    points = qmc.Sobol(5, seed=seed).random_base2(int(np.ceil(np.log2(n_stars))))[:n_stars]
    return np.sin(np.pi / 2 * (2 * points - 1))


def log_flux(labels):
    """Log of the synthetic flux of one star, mean flux one."""
    flux = synthesize(*labels)
    return np.log(flux / flux.mean())


def fit(scaled, spectra, n_components):
    """Principal components of log spectra, their polynomials in the scaled labels, and kriging of what is left."""
    scaled = scaled.astype(np.float32).astype(float)  # as they are stored
    mean = spectra.mean(axis=0)
    _, vectors = np.linalg.eigh((spectra - mean).T @ (spectra - mean))
    basis = vectors[:, ::-1][:, :n_components].T
    components = (spectra - mean) @ basis.T
    powers = polynomial_degrees(DEGREE)
    terms = chebyshev_terms(scaled, powers)
    coefficients, *_ = np.linalg.lstsq(terms, components, rcond=None)
    kernel = matern(scaled, scaled, LENGTHS)
    kernel[np.diag_indices_from(kernel)] += NUGGET
    weights = cho_solve(cho_factor(kernel), components - terms @ coefficients)
    return Emulator(powers, coefficients, scaled, LENGTHS, weights, basis.astype(np.float32), mean.astype(np.float32))


def report(emulator, labels, spectra):
    """Print the error of the emulator, per star and in per cent of the flux."""
    truth = np.exp(spectra)
    error = 100 * (emulator(labels) / truth - 1)
    star = np.sqrt((error**2).mean(axis=1))
    print(f"{len(labels)} unseen stars: rms error of a star, median {np.median(star):.3f} %, 95th percentile", end=" ")
    print(f"{np.percentile(star, 95):.3f} %, worst {star.max():.3f} %; worst pixel {np.abs(error).max():.2f} %")
    worst = np.argsort(star)[-3:]
    print("worst stars:", *(np.round(labels[i], 2).tolist() for i in worst))


def main():
    """Build, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=3072)
    parser.add_argument("--unseen", type=int, default=200)
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    scaled = training_labels(arguments.stars)
    unseen = LOW + np.random.default_rng(0).random((arguments.unseen, 5)) * (HIGH - LOW)
    with Pool(arguments.jobs) as pool:
        spectra = np.array(pool.map(log_flux, np.concatenate([unscale_labels(scaled), unseen]), chunksize=16))
    print(f"{len(spectra)} syntheses in {time.perf_counter() - begun:.0f} s")
    emulator = fit(scaled, spectra[: len(scaled)], arguments.components)
    report(emulator, unseen, spectra[len(scaled) :])
    save_emulator(TARGET, emulator)
    print(f"{len(emulator.weights)} centres; {TARGET.name}: {TARGET.stat().st_size / 1e6:.2f} MB")
    print(
        f"{time.perf_counter() - begun:.0f} s in all; edges agree:",
        np.abs(scale_labels(unscale_labels(scaled)) - scaled).max() < 1e-12,
    )


if __name__ == "__main__":
    main()
