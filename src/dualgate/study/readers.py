"""How the rows may be read: what gates and experts see of them, each way with its own projection."""

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import FunctionTransformer

from dualgate.datasets import stream_spectra
from dualgate.features import WienerScores
from dualgate.study.data import ERRORS, LINES, SIMULATOR
from dualgate.study.methods import Reader

CLEAN_FACTORS = 32
CLEAN_ROWS, CLEAN_SHARE = 8000, 8  # noise-free spectra that loadings are taken from: as many, or a part of all rows
POOLED = 4  # neighbouring pixels averaged in the representation by pixels


def n_flux(data) -> int:
    """Return how many columns of the rows are flux; their errors follow."""
    return len(data.wave) if data.get("n_flux") is None else data.n_flux


def clean_projection(data, train, seed):
    """Wiener scores with loadings from noise-free spectra of the training rows."""
    rows = np.sort(np.random.default_rng(seed).permutation(train)[: max(CLEAN_ROWS, len(train) // CLEAN_SHARE)])
    clean = stream_spectra(len(data.y), random_state=seed, noise_level=0.0).X[rows]
    width = n_flux(data)
    scores = WienerScores(CLEAN_FACTORS, columns=slice(0, width), error_columns=slice(width, 2 * width), n_jobs=-1)
    return {"experts__projection": FrozenEstimator(scores.fit(data.X[rows], clean=clean))}


def pool_pixels(flux):
    """Average neighbouring pixels, (n_rows, n_pixels // 4)."""
    flux = np.asarray(flux)
    kept = flux.shape[1] // POOLED
    return flux[:, : kept * POOLED].reshape(len(flux), kept, POOLED).mean(axis=2)


_PLAIN = {"phys_gate__scores": True, "quality_gate__variances": False}  # discriminants, but no variances to read
_BOTH = {"phys_gate__scores": True, "quality_gate__variances": True}  # the projection is the model's own

READERS = {
    "default": Reader(),  # `wiener` where the rows are spectra
    "wiener": Reader(_BOTH, frozenset({ERRORS})),
    "wiener clean": Reader(_BOTH, frozenset({SIMULATOR}), clean_projection),
    "whitened": Reader(_PLAIN | {"experts__projection": "whitened"}, frozenset({ERRORS})),
    "pixels": Reader(_PLAIN | {"experts__projection": FunctionTransformer(pool_pixels)}, frozenset({LINES})),
}
