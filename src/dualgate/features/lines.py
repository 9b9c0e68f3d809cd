"""Spectral lines sensitive to a star's gravity and metallicity: depth and equivalent width, and their pixels."""

import numpy as np

from dualgate._validation import check_number, owner_name
from dualgate.features.fixed import FixedFeatures

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
MAX_HALF_WIDTH = 30.0  # [A] keeps every window within a grid that covers the side-bands
CORE_HALF_WIDTH = 2.0  # [A] half the window over which a line's depth is averaged
CONTINUUM_FLOOR = 0.1  # of the mean absolute flux: bounds the ratio where the continuum is pure noise


class _Lines(FixedFeatures):
    """Pixels around the lines over the continuum; a subclass chooses the windows and what it makes of them."""

    def _prepare(self, X):
        n_pixels = X.shape[1]
        wave = np.linspace(*BAND, n_pixels) if n_pixels > 1 else np.array([np.mean(BAND)])
        if self.wave is not None:
            wave = check_wave(owner_name(self), self.wave, n_pixels)
        self.continua_ = {
            name: Continuum(wave, _mean_weights(wave, *self._window(name)) > 0, *WINDOWS[name][2:]) for name in WINDOWS
        }
        ends = np.array([ends for each in self.continua_.values() for ends in each.ends])
        self._range = slice(ends.min(), ends.max())
        self._grid = wave[self._range]
        return wave

    def _window(self, name):
        """First and last wavelength of the pixels of a line."""
        return WINDOWS[name][1]

    def _over_continuum(self, X):
        """Yield the pixels of each line (n_samples, n_used), divided by the continuum."""
        level = np.abs(X).mean(axis=1, dtype=np.float64)
        odd = np.flatnonzero(~np.isfinite(level))
        if len(odd):
            X = X.copy()
            for row in odd:
                flux, measured = X[row], np.isfinite(X[row])
                size = np.abs(flux).sum(dtype=np.float64, where=measured)
                level[row] = size / measured.sum() if measured.any() else 1.0
                interpolate(self._grid, flux[self._range], measured[self._range], level[row])
        floor = CONTINUUM_FLOOR * level + np.finfo(np.float32).tiny
        for name in self.continua_:
            yield self.continua_[name].divide(X, floor)


class LineWindows(_Lines):
    r"""Depths and equivalent widths of Ca II 8498, 8542, 8662 and Na I 8183, 8195, with side-band continuum.

    .. math::
        depth = 1 - \langle F / F_c \rangle_{core}, \qquad W = \int_{window} (1 - F / F_c)\, d\lambda

    The continuum :math:`F_c` is the line through the mean fluxes of two side-bands. The summed width of the calcium
    triplet is a feature of its own; the sodium doublet is one window with two cores. Means and integrals are exact
    for flux that is linear between pixels, so a coarse grid works as well as a fine one. Features are float64, depths
    dimensionless and widths in angstrom, whatever the unit of the flux. A pixel whose flux is NaN or infinite was not
    measured: its neighbours on both sides are joined by a straight line. A row without any pixel has no lines.

    Parameters
    ----------
    wave : None or array-like of shape (n_pixels,), default=None, [angstrom]
        Wavelength of every pixel, increasing, covering 8143 to 8725. None spreads the pixels evenly over 7100 to 8850,
        the medium-resolution arm of the Subaru PFS. `fit` raises a ValueError if it has another length than a row,
        does not increase, or leaves a window uncovered.

    Attributes
    ----------
    names_ : list of str
        `ca_8498_depth`, `ca_8498_width`, ..., `na_8190_width`, and `ca_width`, the sum.
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

    def _prepare(self, X):
        wave = super()._prepare(X)
        self.weights_ = {}  # name: (n_used, 2), of the mean over the core and of the integral over the window
        for name, (cores, window, *_) in WINDOWS.items():
            core = np.mean([_mean_weights(wave, at - CORE_HALF_WIDTH, at + CORE_HALF_WIDTH) for at in cores], axis=0)
            width = _mean_weights(wave, *window) * (window[1] - window[0])
            self.weights_[name] = np.column_stack([core, width])[self.continua_[name].pixels]
        return [f"{name}_{kind}" for name in WINDOWS for kind in ("depth", "width")] + ["ca_width"]

    def _compute(self, X):
        pixels = zip(self._over_continuum(X), self.weights_.values(), strict=True)
        features = np.hstack([(1.0 - values) @ weights for values, weights in pixels])
        calcium = [i for i, name in enumerate(self.names_) if name.startswith("ca_8") and name.endswith("width")]
        return np.column_stack([features, features[:, calcium].sum(axis=1)])


class LinePixels(_Lines):
    r"""Pixels around the lines of :class:`LineWindows`, divided by the side-band continuum.

    .. math:: p_j = F_j / F_{c,j}

    for every pixel j of the windows, with the continuum :math:`F_c` of :class:`LineWindows`. This is the input of a
    network that learns the shape of the lines, such as ``PhysGate(features=LinePixels(wave), network="cnn")``. Pixels
    are float64 and dimensionless, whatever the unit of the flux, and 1 where there is no line. The continuum is at
    least a tenth of the row's mean absolute flux, which bounds the effect of noise. Pixels that were not measured are
    interpolated as for :class:`LineWindows`.

    Parameters
    ----------
    wave : None or array-like of shape (n_pixels,), default=None, [angstrom]
        As for :class:`LineWindows`.
    half_width : None or float, default=None, [angstrom]
        Take the pixels up to this far from a line's centre, of the sodium doublet from both; above 0, at most 30, else
        `fit` raises a ValueError. None takes the windows of :class:`LineWindows`, 11 to 20 on either side.

    Attributes
    ----------
    wave_ : ndarray of shape (n_out,), [angstrom]
        Wavelength of every pixel kept, window by window: Na I 8183 + 8195, Ca II 8498, 8542, 8662. Wide windows may
        overlap, and then hold a pixel each.
    names_ : list of str
        `na_8190_pixel0`, `na_8190_pixel1`, ..., `ca_8498_pixel0`, ...
    n_features_in_ : int
        Number of pixels seen in `fit`.

    See Also
    --------
    LineWindows : Two numbers for each line.

    Examples
    --------
    >>> import numpy as np
    >>> wave = np.linspace(7100, 8850, 4096)
    >>> flux = 3 * (1 - 0.5 * np.exp(-0.5 * ((wave - 8542.09) / 2) ** 2))
    >>> pixels = LinePixels(wave, half_width=10).fit(flux[None])
    >>> p = pixels.transform(flux[None])[0]
    >>> round(float(p.min()), 2), round(float(pixels.wave_[p.argmin()]), 1)
    (0.5, 8541.9)
    """

    def __init__(self, wave=None, *, half_width=None):
        self.wave = wave
        self.half_width = half_width

    def _window(self, name):
        if self.half_width is None:
            return super()._window(name)
        cores = WINDOWS[name][0]
        return cores[0] - self.half_width, cores[-1] + self.half_width

    def _prepare(self, X):
        if self.half_width is not None:
            check_number(self, "half_width", self.half_width, low=0, strict=True, high=MAX_HALF_WIDTH)
        wave = super()._prepare(X)
        self.continua_ = dict(sorted(self.continua_.items(), key=lambda item: WINDOWS[item[0]][0]))
        self.wave_ = np.concatenate([wave[each.pixels] for each in self.continua_.values()])
        return [f"{name}_pixel{i}" for name, each in self.continua_.items() for i in range(len(each.position))]

    def _compute(self, X):
        return np.hstack(list(self._over_continuum(X)))


class Continuum:
    """The pixels of a line, and the straight continuum over them: the line through two side-band means."""

    def __init__(self, wave, used, blue, red):
        self.blue, self.red = _mean_weights(wave, *blue), _mean_weights(wave, *red)
        used = np.flatnonzero(used)
        self.pixels = slice(used[0], used[-1] + 1)
        weighed = np.flatnonzero(self.blue + self.red)
        self.ends = (min(used[0], weighed[0]), max(used[-1], weighed[-1]) + 1)  # of all pixels that count
        middle_blue, middle_red = np.mean(blue), np.mean(red)
        self.position = (wave[self.pixels] - middle_blue) / (middle_red - middle_blue)

    def divide(self, flux, floor):
        """Flux of the pixels (n_samples, n_used) over a continuum that never falls below `floor` (n_samples,)."""
        blue, red = (_apply(weights, flux) for weights in (self.blue, self.red))
        continuum = blue[:, None] + self.position * (red - blue)[:, None]
        return flux[:, self.pixels] / np.maximum(continuum, floor[:, None])


def interpolate(wave, flux, measured, otherwise):
    """Put the flux (n_pixels,) of every other pixel on the line between its `measured` neighbours.

    Beyond the last measured pixel it is the flux of the last, without any it is `otherwise`.
    """
    rest = ~measured
    flux[rest] = np.interp(wave[rest], wave[measured], flux[measured]) if measured.any() else otherwise


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


def check_wave(owner, wave, n_pixels=None, *, windows=True):
    """Return `wave` as floats, if it has one value a pixel, increases and covers every window, else name `owner`.

    Without `windows` any range will do.
    """
    wave = np.asarray(wave, dtype=np.float64)
    if n_pixels is not None and wave.shape != (n_pixels,):
        raise ValueError(
            f"{owner}.wave has shape {wave.shape}, the flux rows have {n_pixels:,} pixels: wave must hold one "
            "wavelength per pixel. For X = [flux | error] give the flux columns only."
        )
    if wave.ndim != 1 or len(wave) < 2 or not (np.isfinite(wave).all() and np.all(np.diff(wave) > 0)):
        raise ValueError(
            f"{owner}.wave of shape {wave.shape} must be one-dimensional, finite and increase from pixel to pixel; "
            "sort wave and flux in the same order."
        )
    edges = [edge for _, *ranges in WINDOWS.values() for pair in ranges for edge in pair]
    if not windows:
        return wave
    if wave[0] > min(edges) or wave[-1] < max(edges):
        raise ValueError(
            f"{owner}.wave covers {wave[0]:.1f} to {wave[-1]:.1f} angstrom, the windows need {min(edges):.0f} to "
            f"{max(edges):.0f}: give wavelengths in angstrom, or other features for this range."
        )
    return wave
