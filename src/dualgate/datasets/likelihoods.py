"""Likelihoods of simulated spectra in few numbers a row, the continuum known or uncertain."""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss, legvander
from scipy.linalg import eigh

from dualgate.datasets.faults import CONTINUUM_TERMS, POSITION

TOLERANCE = 0.01  # largest chi^2 that the projection may lose at the smallest errors, mean over stars
_MAX_COMPONENTS = 192
_COMPONENT_STEP = 16  # the number of components is a multiple of this
_STARS = 256  # whose products of coefficients are held at once
_FEW_ROWS = 8  # for which these products cost more than they save


def _products(n_terms):
    """Coefficients (n_terms^2, 2 n_terms - 1) of the products of Legendre polynomials in the polynomials."""
    values = legvander(leggauss(2 * n_terms - 1)[0], 2 * n_terms - 2)
    pairs = values[:, :n_terms, None] * values[:, None, :n_terms]
    return np.linalg.solve(values, pairs.reshape(len(values), -1)).T


_PRODUCTS = _products(CONTINUUM_TERMS)


@dataclass(frozen=True, eq=False)
class SpectrumBasis:
    """Principal components of the flux of stars, pixels weighted by one over their smallest error.

    With flux m = mean + B c of a star, a row x with errors e has chi^2 = c' G c - 2 c' b + const, G = B' E^-1 B and
    b = B' E^-1 (x - mean), E = diag(e^2): G and b replace the pixels of a row, and c those of a star.
    The flux is ``mean + coefficients.T @ directions.T / weight``.
    """

    mean: np.ndarray  # (n_pixels,), float32, of the stars
    weight: np.ndarray  # (n_pixels,), float32
    directions: np.ndarray  # (n_pixels, n_components), float32, orthonormal
    lost: float  # chi^2 between a held-out star and its projection at the smallest errors, mean; less in every row

    @classmethod
    def from_spectra(cls, flux, held_out, smallest_error):
        """Fit to noise-free `flux`, with as few components as lose at most `TOLERANCE` of chi^2 on `held_out` stars.

        Both have the shape (n_stars, n_pixels). `lost` exceeds `TOLERANCE` where `_MAX_COMPONENTS` are too few.
        """
        mean, weight = flux.mean(axis=0, dtype=np.float64), 1 / smallest_error.astype(np.float64)
        spectra = (flux - mean) * weight
        n_components = min(_MAX_COMPONENTS, len(flux) - 1)
        leading = (len(flux) - n_components, len(flux) - 1)
        vectors = eigh(spectra @ spectra.T, subset_by_index=leading)[1]
        directions = np.linalg.qr(spectra.T @ vectors[:, ::-1])[0]
        others = (held_out - mean) * weight
        kept = np.cumsum(np.mean((others @ directions) ** 2, axis=0))
        lost = np.mean(np.einsum("ij,ij->i", others, others)) - kept
        enough = np.flatnonzero(lost[_COMPONENT_STEP - 1 :: _COMPONENT_STEP] <= TOLERANCE)
        if len(enough):
            n_components = _COMPONENT_STEP * (int(enough[0]) + 1)
        directions = directions[:, :n_components].astype(np.float32)
        return cls(mean.astype(np.float32), weight.astype(np.float32), directions, float(lost[n_components - 1]))

    def coefficients(self, flux):
        """Coefficients (n_components, n_stars) of noise-free `flux` (n_stars, n_pixels)."""
        centred = flux - self.mean
        centred *= self.weight
        return (centred @ self.directions).T.astype(np.float64, order="C")

    def statistics(self, flux, error):
        """G (n_rows, n_components, n_components) and b (n_rows, n_components) of rows (n_rows, n_pixels)."""
        n_components = self.directions.shape[1]
        gram, moment = np.empty((len(flux), n_components, n_components)), np.empty((len(flux), n_components))
        for row, sigma in enumerate(error.astype(np.float64)):
            scaled = self.directions / (self.weight * sigma)[:, None]  # (n_pixels, n_components)
            gram[row] = scaled.T @ scaled
            moment[row] = (flux[row] - self.mean) / sigma @ scaled
        return gram, moment


def log_likelihoods(gram, moment, coefficients):
    """Log-likelihood of every star for every row, up to a constant of each row, by one matrix product.

    From G (n_rows, n_components, n_components), b (n_rows, n_components) and c (n_components, n_stars) to
    (n_rows, n_stars).
    """
    if len(gram) <= _FEW_ROWS:
        return moment @ coefficients - 0.5 * np.einsum("jk,ijk->ik", coefficients, gram @ coefficients)
    first, second = np.triu_indices(len(coefficients))
    packed = -gram[:, first, second]
    packed[:, first == second] /= 2  # the other elements occur twice in G
    out = moment @ coefficients
    for start in range(0, out.shape[1], _STARS):
        stars = coefficients[:, start : start + _STARS]
        pairs = stars[first]
        pairs *= stars[second]
        out[:, start : start + _STARS] += packed @ pairs
    return out


@dataclass(frozen=True, eq=False)
class ContinuumLikelihood:
    """Likelihood of spectra m (1 + sum_j c_j P_j), c_j ~ N(0, width^2), with Legendre polynomials P_j of degree 0 to 3.

    A spectrum is linear in c, which is therefore integrated out exactly: with the templates M = m P_j of a star m,
    r = x - m, v = M' E^-1 r and A = M' E^-1 M + 1 / width^2, the log-likelihood is, up to a constant of the row,

        -r' E^-1 r / 2 + v' A^-1 v / 2 - ln |A| / 2.

    The products P_j P_l are sums of polynomials up to degree 6, so that everything follows from m' E^-1 P_d m, a
    quadratic form in the coefficients of a star for each degree d, and from m' E^-1 P_j x.
    """

    basis: SpectrumBasis
    width: float

    def statistics(self, flux, error):
        """Matrices (n_rows, 7, n, n) of m' E^-1 P_d m and vectors (n_rows, 4, n) of m' E^-1 P_j x.

        n is one more than the number of components: the mean spectrum comes first.
        """
        columns = np.column_stack([self.basis.mean, self.basis.directions / self.basis.weight[:, None]])
        polynomials = legvander(POSITION, 2 * CONTINUUM_TERMS - 2).T
        n_columns = columns.shape[1]
        grams = np.empty((len(flux), len(polynomials), n_columns, n_columns))
        moments = np.empty((len(flux), CONTINUUM_TERMS, n_columns))
        for row, sigma in enumerate(error.astype(np.float64)):
            scaled = columns / sigma[:, None]
            for degree, polynomial in enumerate(polynomials):
                grams[row, degree] = scaled.T @ (polynomial[:, None] * scaled)
            moments[row] = polynomials[:CONTINUUM_TERMS] * (flux[row] / sigma) @ scaled
        return grams, moments

    def log_likelihoods(self, grams, moments, coefficients):
        """Log-likelihood (n_rows, n_stars), up to a constant of each row, of stars (n_components, n_stars)."""
        n_rows, n_degrees, n_columns, _ = grams.shape
        forms, nothing = -2 * grams.reshape(-1, n_columns, n_columns), np.zeros((n_rows * n_degrees, n_columns))
        out = np.empty((n_rows, coefficients.shape[1]))
        for start in range(0, out.shape[1], _STARS):
            stars = coefficients[:, start : start + _STARS]
            stars = np.vstack([np.ones(stars.shape[1]), stars])
            squares = log_likelihoods(forms, nothing, stars).reshape(n_rows, n_degrees, -1)
            linear = moments @ stars
            matrix = (_PRODUCTS @ squares).reshape(n_rows, CONTINUUM_TERMS, CONTINUUM_TERMS, -1)
            matrix += np.eye(CONTINUUM_TERMS)[:, :, None] / self.width**2
            vector = linear - squares[:, :CONTINUUM_TERMS]
            value = linear[:, 0] - squares[:, 0] / 2
            for term in range(CONTINUUM_TERMS):  # elimination, for all rows and stars at once
                pivot, ratio = matrix[:, term, term], matrix[:, term + 1 :, term] / matrix[:, term, None, term]
                value += (vector[:, term] ** 2 / pivot - np.log(pivot)) / 2
                vector[:, term + 1 :] -= ratio * vector[:, term, None]
                matrix[:, term + 1 :, term + 1 :] -= ratio[:, :, None] * matrix[:, term, None, term + 1 :]
            out[:, start : start + _STARS] = value
        return out
