"""How the rows may be read: what gates and experts see of them, each way with its own projection."""

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import FunctionTransformer

from dualgate.datasets import stream_spectra
from dualgate.features import LineWindows, NoiseWhitenedPCA, QualityStatistics, WienerScores
from dualgate.study.data import ERRORS, LINES, SIMULATOR
from dualgate.study.methods import Reader

FIVE = ("mean", "std", "min", "max", "median")
FACTORS, STEPS, EM_ROWS = 12, 8, 20_000  # of Wiener scores from noisy rows: a compromise between gain and minutes
CLEAN_FACTORS = 24
CLEAN_ROWS = 8000  # noise-free spectra that loadings are taken from
POOLED = 4  # neighbouring pixels averaged in the representation by pixels


def n_flux(data) -> int:
    """Return how many columns of the rows are flux; their errors follow."""
    return len(data.wave) if data.get("n_flux") is None else data.n_flux


def wiener_projection(data, train, seed):
    """Wiener scores with loadings from the noisy training rows themselves."""
    return {"experts__projection": _wiener(data, FACTORS, supervised=True)}


def clean_projection(data, train, seed):
    """Wiener scores with loadings from noise-free spectra of the training rows."""
    rows = np.sort(np.random.default_rng(seed).permutation(train)[:CLEAN_ROWS])
    clean = stream_spectra(len(data.y), random_state=seed, noise_level=0.0).X[rows]
    return {"experts__projection": FrozenEstimator(_wiener(data, CLEAN_FACTORS).fit(data.X[rows], clean=clean))}


def gate_without_lines(data, train, seed):
    """Wiener scores, and a physics gate that reads components instead of line windows."""
    width = n_flux(data)
    components = NoiseWhitenedPCA(4, columns=slice(0, width), error_columns=slice(width, None))
    return wiener_projection(data, train, seed) | {"phys_gate__features": components}


def gate_of_lines(data, train, seed):
    """Wiener scores, and a physics gate that reads line windows alone."""
    lines = ColumnTransformer([("lines", LineWindows(data.wave), slice(0, n_flux(data)))])
    return wiener_projection(data, train, seed) | {"phys_gate__features": lines}


def pool_pixels(flux):
    """Average neighbouring pixels, (n_rows, n_pixels // 4)."""
    flux = np.asarray(flux)
    kept = flux.shape[1] // POOLED
    return flux[:, : kept * POOLED].reshape(len(flux), kept, POOLED).mean(axis=2)


def _wiener(data, n_components, **more):
    width = n_flux(data)
    return WienerScores(
        n_components, columns=slice(0, width), error_columns=slice(width, 2 * width), n_iter=STEPS, max_rows=EM_ROWS,
        n_jobs=-1, **more,
    )  # fmt: skip


_PLAIN = {"phys_gate__scores": True, "quality_gate__variances": False}  # discriminants, but no variances to read
_BOTH = {"phys_gate__scores": True, "quality_gate__variances": True, "experts__projection": "wiener"}

READERS = {
    "default": Reader(),  # `wiener` where the rows are spectra
    "wiener": Reader(_BOTH, frozenset({ERRORS}), wiener_projection),
    "wiener clean": Reader(_BOTH, frozenset({SIMULATOR}), clean_projection),
    "whitened": Reader(_PLAIN | {"experts__projection": "whitened"}, frozenset({ERRORS})),
    "pixels": Reader(_PLAIN | {"experts__projection": FunctionTransformer(pool_pixels)}, frozenset({LINES})),
    "five statistics": Reader(
        _BOTH | {"quality_gate__features": QualityStatistics(subset=FIVE)}, frozenset({LINES}), wiener_projection
    ),
    "no lines": Reader(_BOTH, frozenset({LINES}), gate_without_lines),
    "lines alone": Reader(_BOTH | {"phys_gate__scores": False}, frozenset({LINES}), gate_of_lines),
}
