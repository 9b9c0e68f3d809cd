"""The likelihood of simulated spectra in a few numbers: a basis that holds every noise-free spectrum.

With flux m = mean + B c of a star, a row x with errors e has chi^2 = c' G c - 2 c' b + const, G = B' E^-1 B and
b = B' E^-1 (x - mean), E = diag(e^2): after one pass over its pixels a row is G and b, and a star is c.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

MAX_COMPONENTS = 192
_STEP = 16  # components are tried in such steps
_STARS = 256  # whose products of coefficients are held at once


@dataclass(frozen=True, eq=False)
class SpectrumBasis:
    """Directions in which the flux of stars differs from its mean, pixels weighed by their smallest error.

    Attributes
    ----------
    mean : ndarray of shape (n_pixels,), float32
        Mean flux of the stars.
    weight : ndarray of shape (n_pixels,), float32
        One over the smallest error of each pixel.
    directions : ndarray of shape (n_pixels, n_components), float32
        Orthonormal; the flux is ``mean + coefficients @ directions.T / weight``.
    lost : float
        chi^2 between a star and its projection at the smallest errors, mean over stars that the basis was not made
        from. No row has less noise, so in every row the projection loses less.
    """

    mean: np.ndarray
    weight: np.ndarray
    directions: np.ndarray
    lost: float

    @classmethod
    def from_spectra(cls, flux, held_out, smallest_error, *, tolerance):
        """Leading principal components of `flux`, as few as lose at most `tolerance` of chi^2 on other stars.

        Parameters
        ----------
        flux, held_out : ndarray of shape (n_stars, n_pixels)
            Noise-free spectra to make the basis from, and to judge it by.
        smallest_error : ndarray of shape (n_pixels,)
            Smallest error of each pixel in any row.
        tolerance : float
            Bound of `lost`; it may be exceeded where `MAX_COMPONENTS`, or all stars, are not enough.
        """
        mean, weight = flux.mean(axis=0, dtype=np.float64), 1 / smallest_error.astype(np.float64)
        spectra = (flux - mean) * weight
        n_components = min(MAX_COMPONENTS, len(flux) - 1)
        leading = (len(flux) - n_components, len(flux) - 1)
        vectors = eigh(spectra @ spectra.T, subset_by_index=leading)[1]
        directions = np.linalg.qr(spectra.T @ vectors[:, ::-1])[0]
        others = (held_out - mean) * weight
        kept = np.cumsum(np.mean((others @ directions) ** 2, axis=0))
        lost = np.mean(np.einsum("ij,ij->i", others, others)) - kept
        enough = np.flatnonzero(lost[_STEP - 1 :: _STEP] <= tolerance)
        if len(enough):
            n_components = _STEP * (int(enough[0]) + 1)
        directions = directions[:, :n_components].astype(np.float32)
        return cls(mean.astype(np.float32), weight.astype(np.float32), directions, float(lost[n_components - 1]))

    def coefficients(self, flux):
        """Coefficients (n_stars, n_components) of noise-free `flux` (n_stars, n_pixels)."""
        centred = flux - self.mean
        centred *= self.weight
        return centred @ self.directions

    def statistics(self, flux, error):
        """Sum up what rows say of their stars.

        Parameters
        ----------
        flux, error : ndarray of shape (n_rows, n_pixels)
            Measured flux and the standard deviation of its noise.

        Returns
        -------
        gram : ndarray of shape (n_rows, n_components, n_components)
            G.
        moment : ndarray of shape (n_rows, n_components)
            b.
        """
        n_components = self.directions.shape[1]
        gram, moment = np.empty((len(flux), n_components, n_components)), np.empty((len(flux), n_components))
        for row, sigma in enumerate(error.astype(np.float64)):
            scaled = self.directions / (self.weight * sigma)[:, None]  # (n_pixels, n_components)
            gram[row] = scaled.T @ scaled
            moment[row] = (flux[row] - self.mean) / sigma @ scaled
        return gram, moment


def _pairs(columns):
    """Products of every two rows of `columns` (n_components, n), in the order of `numpy.triu_indices`."""
    n_components = len(columns)
    out = np.empty((n_components * (n_components + 1) // 2, columns.shape[1]))
    start = 0
    for index in range(n_components):
        stop = start + n_components - index
        np.multiply(columns[index], columns[index:], out=out[start:stop])
        start = stop
    return out


def log_likelihood(gram, moment, coefficients):
    """Log-likelihood of stars for one row, up to a constant of the row.

    Parameters
    ----------
    gram : ndarray of shape (n_components, n_components)
    moment : ndarray of shape (n_components,)
    coefficients : ndarray of shape (n_stars, n_components)

    Returns
    -------
    log_likelihood : ndarray of shape (n_stars,)
    """
    return coefficients @ moment - 0.5 * np.einsum("ij,ij->i", coefficients @ gram, coefficients)


def log_likelihoods(gram, moment, coefficients):
    """Log-likelihood of every star for every row, (n_rows, n_stars): as `log_likelihood`, by one product of matrices.

    Parameters
    ----------
    gram : ndarray of shape (n_rows, n_components, n_components)
    moment : ndarray of shape (n_rows, n_components)
    coefficients : ndarray of shape (n_components, n_stars)
        One column for each star.
    """
    upper = np.triu_indices(len(coefficients))
    packed = -gram[:, upper[0], upper[1]]
    packed[:, upper[0] == upper[1]] /= 2  # the others stand for two
    out = moment @ coefficients
    for start in range(0, out.shape[1], _STARS):
        stars = slice(start, start + _STARS)
        out[:, stars] += packed @ _pairs(coefficients[:, stars])
    return out
