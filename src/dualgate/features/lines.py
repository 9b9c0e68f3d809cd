"""Depth and equivalent width of the lines that tell a star's gravity and metallicity."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import check_rows

# name: (core half-width, line window, blue side-band, red side-band), air wavelengths [A].
# Ca II: line windows and side-bands within those of Cenarro et al. 2001, MNRAS 326, 959 (CaT index), moved apart so
# that each line has a side-band of its own. Na I: after Schiavon et al. 1997, ApJ 479, 902.
WINDOWS = {
    "ca_8498": ((8498.02,), (8484.0, 8513.0), (8474.0, 8484.0), (8563.0, 8577.0)),
    "ca_8542": ((8542.09,), (8522.0, 8562.0), (8474.0, 8484.0), (8563.0, 8577.0)),
    "ca_8662": ((8662.14,), (8642.0, 8682.0), (8619.0, 8642.0), (8700.0, 8725.0)),
    "na_8190": ((8183.26, 8194.81), (8178.0, 8200.0), (8143.0, 8153.0), (8233.0, 8244.0)),
}
BAND = (7100.0, 8850.0)  # [A] what an unnamed grid is taken to cover
CORE_HALF_WIDTH = 2.0  # [A] half the window over which a line's depth is averaged
CONTINUUM_FLOOR = 0.1  # of the mean absolute flux: a continuum of pure noise may not blow a ratio up


class LineWindows(TransformerMixin, BaseEstimator):
    r"""Depths and equivalent widths of Ca II 8498, 8542, 8662 and Na I 8183, 8195, with side-band continuum.

    .. math::
        depth = 1 - \langle F / F_c \rangle_{core}, \qquad W = \int_{window} (1 - F / F_c)\, d\lambda

    The continuum :math:`F_c` is the line through the mean fluxes of two side-bands. The summed width of the calcium
    triplet is a feature of its own; the sodium doublet is one window with two cores. Means and integrals are exact
    for flux that is linear between pixels, so a coarse grid works as well as a fine one.

    Parameters
    ----------
    wave : None or array-like of shape (n_pixels,), [angstrom]
        Wavelength of every pixel, increasing, covering 8143 to 8725. None spreads the pixels evenly over 7100 to 8850,
        the medium-resolution arm of the Subaru PFS.

    Attributes
    ----------
    names_ : list of str
        `ca_8498_depth`, `ca_8498_width`, ..., `na_8190_width`, and `ca_width`, the sum; widths in angstrom.
    n_features_in_ : int
        Number of pixels seen in `fit`.

    References
    ----------
    Cenarro et al. 2001, MNRAS 326, 959. Schiavon et al. 1997, ApJ 479, 902.

    Examples
    --------
    >>> import numpy as np
    >>> wave = np.linspace(7100, 8850, 4096)
    >>> flux = 1 - 0.5 * np.exp(-0.5 * ((wave - 8542.09) / 2) ** 2)
    >>> lines = LineWindows(wave).fit(flux[None])
    >>> width = lines.transform(flux[None])[0, lines.names_.index("ca_8542_width")]
    >>> round(float(width), 3)  # 0.5 * 2 * sqrt(2 pi)
    2.507
    """

    def __init__(self, wave=None):
        self.wave = wave

    def fit(self, X, y=None):
        """Lay the windows over the pixels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Flux rows.
        y : None
            Ignored.

        Returns
        -------
        self : LineWindows

        Raises
        ------
        ValueError
            If `wave` has another length than a row, does not increase, or leaves a window uncovered.
        """
        X = check_rows(self, X, reset=True)
        wave = _check_wave(self.wave, X.shape[1])
        operators, names = [], []
        for name, (cores, window, blue, red) in WINDOWS.items():
            operators.append(_LineOperator(wave, cores, window, blue, red))
            names += [f"{name}_depth", f"{name}_width"]
        self._operators = operators
        self.names_ = [*names, "ca_width"]
        return self

    def transform(self, X):
        """Measure the lines.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Flux rows, in any unit.

        Returns
        -------
        features : ndarray of shape (n_samples, 9), float64
            Depths [dimensionless] and equivalent widths [angstrom], in the order of `names_`.
        """
        check_is_fitted(self, "names_")
        X = check_rows(self, X, reset=False)
        floor = CONTINUUM_FLOOR * np.abs(X).mean(axis=1, dtype=np.float64) + np.finfo(np.float32).tiny
        features = np.column_stack([column for line in self._operators for column in line.measure(X, floor)])
        calcium = [i for i, name in enumerate(self.names_) if name.startswith("ca_8") and name.endswith("width")]
        return np.column_stack([features, features[:, calcium].sum(axis=1)])

    def get_feature_names_out(self, input_features=None):
        """Names of the features.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self, "names_")
        return np.array(self.names_, dtype=object)


class _LineOperator:
    """One line as weights on pixels: side-band means, and the core and window seen against their continuum.

    The continuum at pixel j is ``blue + position_j * (red - blue)``; with weights v over a window, the mean of F / F_c
    needs F_c per pixel, so the pixels of the line are kept and divided row by row.
    """

    def __init__(self, wave, cores, window, blue, red):
        self.blue = _mean_weights(wave, *blue)
        self.red = _mean_weights(wave, *red)
        core = sum(_mean_weights(wave, at - CORE_HALF_WIDTH, at + CORE_HALF_WIDTH) for at in cores)
        width = _mean_weights(wave, *window)
        used = np.flatnonzero((core > 0) | (width > 0))
        self.pixels = slice(used[0], used[-1] + 1)
        self.core, self.width = core[self.pixels] / len(cores), width[self.pixels] * (window[1] - window[0])
        middle_blue, middle_red = np.mean(blue), np.mean(red)
        self.position = (wave[self.pixels] - middle_blue) / (middle_red - middle_blue)

    def measure(self, flux, floor):
        """Depth and equivalent width of each row; the continuum never falls below `floor` (n_samples,)."""
        blue, red = (_apply(weights, flux) for weights in (self.blue, self.red))
        continuum = blue[:, None] + self.position * (red - blue)[:, None]
        deficit = 1.0 - flux[:, self.pixels] / np.maximum(continuum, floor[:, None])
        return deficit @ self.core, deficit @ self.width


def _apply(weights, flux):
    """Weighted sum over the few pixels whose weight is not zero."""
    used = np.flatnonzero(weights)
    return flux[:, used[0] : used[-1] + 1] @ weights[used[0] : used[-1] + 1]


def _mean_weights(wave, start, stop):
    """Weights w with ``w @ flux`` the mean over [start, stop] of the flux, linear between pixels."""
    if len(wave) == 1:
        return np.ones(1)
    # the integral of a piecewise linear function by the trapezoid rule is exact on its own knots plus the two ends
    knots = np.union1d(wave[(wave > start) & (wave < stop)], [start, stop])
    steps = np.diff(knots)
    trapezoid = np.zeros(len(knots))
    trapezoid[:-1] += steps / 2
    trapezoid[1:] += steps / 2
    left = np.clip(np.searchsorted(wave, knots, side="right") - 1, 0, len(wave) - 2)
    fraction = (knots - wave[left]) / (wave[left + 1] - wave[left])
    weights = np.zeros(len(wave))
    np.add.at(weights, left, trapezoid * (1 - fraction))
    np.add.at(weights, left + 1, trapezoid * fraction)
    return weights / (stop - start)


def _check_wave(wave, n_pixels):
    if wave is None:
        return np.linspace(*BAND, n_pixels) if n_pixels > 1 else np.array([np.mean(BAND)])
    wave = np.asarray(wave, dtype=np.float64)
    if wave.shape != (n_pixels,):
        raise ValueError(
            f"LineWindows.wave has shape {wave.shape}, the flux rows have {n_pixels:,} pixels: wave must hold one "
            "wavelength per pixel. For X = [flux | error] give the flux columns only."
        )
    return check_wave("LineWindows", wave)


def check_wave(owner, wave):
    """Return `wave` as floats, if it increases and covers every window; `owner` is named in messages."""
    wave = np.asarray(wave, dtype=np.float64)
    if wave.ndim != 1 or len(wave) < 2 or not (np.isfinite(wave).all() and np.all(np.diff(wave) > 0)):
        raise ValueError(
            f"{owner}.wave of shape {wave.shape} must be one-dimensional, finite and increase from pixel to pixel; "
            "sort wave and flux alike."
        )
    edges = [edge for _, *ranges in WINDOWS.values() for pair in ranges for edge in pair]
    if wave[0] > min(edges) or wave[-1] < max(edges):
        raise ValueError(
            f"{owner}.wave covers {wave[0]:.1f} to {wave[-1]:.1f} angstrom, the windows need {min(edges):.0f} to "
            f"{max(edges):.0f}: give wavelengths in angstrom, or other features for this range."
        )
    return wave
