"""What real spectra carry beside the object: continuum, velocity, pixels that lie, errors that are off."""

import numbers

import numpy as np
from numpy.polynomial import legendre
from scipy.constants import speed_of_light
from scipy.interpolate import make_interp_spline
from scipy.linalg import cho_solve_banded, cholesky_banded
from scipy.sparse import csr_array
from scipy.special import softmax
from sklearn.base import BaseEstimator

from dualgate._validation import check_number, check_numbers
from dualgate.features.factors import Factors, information, n_products, solve_mean, split_information, unfold

LIGHT = speed_of_light / 1e3  # [km/s]
OUTLIER = 4.5  # deviation from which a pixel is taken for bad, as if one in a thousand were, with 30 times its error
MEDIAN_PIXELS, CHI_SQUARE_MEDIAN = 1024, 0.454936  # pixels whose median is taken, and the median of chi-square with one
ROUNDS = 5  # in which bad pixels are looked for, at most
SCALE_PIXELS = 10  # pixels that the prior of the scale of the errors counts as: a standard deviation of 0.22
COARSE = 6  # factors by which velocities are compared first
KEPT, LEAST_SHARE = 5, 1e-3  # velocities of a row that are kept, and the least probability of one beside the best
MOST_STEPS = 64  # pixels either way that velocities may reach; each takes some megabytes
OF_ROWS = ("n_measured", "n_bad", "error_scale")  # what does not depend on the candidate
_CHUNK = 64  # rows whose residuals are found at a time


class Nuisances(BaseEstimator):
    r"""What a spectrum carries that says nothing of the object, and how far it may go.

    A row is :math:`x = \bar x + V z + N u + \epsilon`, with loadings N of the nuisances and :math:`u \sim N(0, I)`.
    The information of a row on its factors z is then that of (z, u) with u integrated out, a Schur complement. The
    loadings V are learned without nuisances; these act wherever rows are read for the experts, in training and
    prediction alike, except `velocity`: training rows are at rest.

    Parameters
    ----------
    wave : None or array-like of shape (n_pixels,), default=None, [angstrom]
        Wavelength of every pixel, increasing. Required by `velocity`; without it polynomials are in the pixel number.
    scale : None or float, default=None
        Prior standard deviation of the scale of a spectrum, 0.1 for ten per cent. None is no freedom.
    continuum : None or float, default=None
        The same for each coefficient of a polynomial (Legendre, order zero included) by which the spectrum is
        multiplied: continuum, flux calibration, extinction. What it takes from a clean row is real information.
    degree : int, default=3
        Of that polynomial, which multiplies the mean spectrum: the difference to the row's own is of second order.
    sky : None or float, default=None
        Prior standard deviation of what the subtraction of the sky left, at its brightest line and in units of the
        typical error there. Its shape is that of the typical squared errors above their lower quartile.
    templates : None or array-like of shape (n_templates, n_pixels), default=None, [unit of the flux]
        Further nuisances, such as the shape of a sky residual, each times a number of prior N(0, 1).
    velocity : None or float, default=None, [km/s]
        Largest velocity along the line of sight, either sign, all equally probable before. Spectra are compared with
        the model at velocities a pixel apart; between them the shift is a nuisance like others. As many pixels at both
        ends as this moves are left out.
    robust : bool, default=False
        Whether pixels that deviate by more than 4.5 errors from what the factors explain are left out, round by round:
        cosmic rays, lines of the sky.
    free_errors : bool, default=False
        Whether the errors of a row are right up to a factor only, which is estimated with its residual.
    correlation : None or sequence of float, default=None
        Correlations of the noise of neighbouring pixels, one and two pixels apart, as resampling leaves them. A row
        then takes one to two milliseconds.

    References
    ----------
    Hogg & Villar 2021, PASP 133, 093001 (linear models with priors). Press 1997, Unsolved Problems in Astrophysics, 49
    (good and bad data).
    """

    def __init__(
        self, wave=None, *, scale=None, continuum=None, degree=3, sky=None, templates=None, velocity=None, robust=False,
        free_errors=False, correlation=None,
    ):  # fmt: skip
        self.wave = wave
        self.scale = scale
        self.continuum = continuum
        self.degree = degree
        self.sky = sky
        self.templates = templates
        self.velocity = velocity
        self.robust = robust
        self.free_errors = free_errors
        self.correlation = correlation

    def check(self, n_pixels):
        """Raise a ValueError where a parameter is not as described."""
        for name in ("scale", "continuum", "sky", "velocity"):
            if getattr(self, name) is not None:
                check_number(self, name, getattr(self, name), low=0)
        check_number(self, "degree", self.degree, kind=numbers.Integral, low=0)
        for name, values in {"wave": self.wave, "templates": self.templates}.items():
            if values is not None and np.shape(values)[-1] != n_pixels:
                raise ValueError(
                    f"Nuisances.{name} has {np.shape(values)[-1]:,} pixels and the spectra have {n_pixels:,}: give one "
                    "value for each flux column."
                )
        if self.correlation is not None:
            rho = check_numbers(
                self, "correlation", self.correlation, lambda array: 0 < len(array) < 3, "1 or 2 numbers"
            )
            if np.min(1 + 2 * np.cos(np.outer(np.linspace(0, np.pi, 721), 1 + np.arange(len(rho)))) @ rho) <= 0:
                raise ValueError(
                    f"Nuisances.correlation={self.correlation!r}: no noise has these correlations, their power "
                    "spectrum falls below zero. (0.3, 0.05) would be possible."
                )
        if self.wave is not None and not (np.diff(self.wave) > 0).all():
            raise ValueError("Nuisances.wave must increase from each pixel to the next: sort wavelengths and columns.")
        if self.velocity is not None:
            if self.wave is None:
                raise ValueError(f"Nuisances.velocity={self.velocity!r} needs wave, the wavelength of every pixel.")
            n_steps, most = self.velocity_steps()[1], min(MOST_STEPS, n_pixels // 8)
            if n_steps > most:
                raise ValueError(
                    f"Nuisances.velocity={self.velocity!r} km/s is {n_steps} pixels, and {most} are the most: take a "
                    "smaller one, and shift spectra to near their rest frame before."
                )

    def velocity_steps(self):
        """Typical width of a pixel [km/s], and the number of pixels that the largest velocity moves a spectrum."""
        wave = np.asarray(self.wave, dtype=np.float64)
        step = LIGHT * np.median(np.diff(wave) / wave[:-1])
        return step, int(np.ceil(self.velocity / step))

    def multipliers(self, n_pixels):
        """Polynomials times their prior widths, by which a spectrum may be multiplied (n_pixels, n_polynomials)."""
        places = np.arange(n_pixels) if self.wave is None else np.asarray(self.wave, dtype=np.float64)
        places = np.interp(places, [places.min(), places.max()], [-1, 1]) if n_pixels > 1 else np.zeros(1)
        width, scale = self.continuum or 0.0, max(self.scale or 0.0, self.continuum or 0.0)
        widths = np.r_[scale, np.full(self.degree, width)]
        return legendre.legvander(places, self.degree)[:, widths > 0] * widths[widths > 0]


class Reader:
    """Reads the information of rows with one set of loadings, beside the nuisances.

    Parameters
    ----------
    nuisances : Nuisances
    factors : Factors
        Free factors alone, in units of `noise`.
    mean, noise : ndarray of shape (n_pixels,), [unit of the flux]
        What `weigh` subtracted and divided by.
    """

    def __init__(self, nuisances, factors, mean, noise):
        nuisances.check(len(mean))
        self.nuisances, self.noise = nuisances, noise
        self.n_factors = factors.free.shape[1]
        self._flux = np.column_stack([factors.free * noise[:, None], mean + noise * factors.shift])
        self._mean = mean
        self._multipliers = nuisances.multipliers(len(mean))
        templates = nuisances.templates
        self._templates = np.zeros((len(mean), 0)) if templates is None else np.atleast_2d(templates).T
        if nuisances.sky:
            light = np.maximum(noise**2 - np.quantile(noise**2, 0.25), 0)
            self._templates = np.column_stack([self._templates, nuisances.sky * light / noise.max()])
        self.at_rest = self._joint(self._flux)
        if nuisances.velocity is not None:
            self._prepare_grid()

    def _joint(self, flux, *further):
        """Factors and nuisances, as one set of free factors, for loadings and mean in the unit of the flux."""
        spectrum = flux[:, -1]
        columns = [flux[:, :-1], spectrum[:, None] * self._multipliers, self._templates, *further]
        scaled = np.hstack(columns) / self.noise[:, None]
        return Factors(scaled, np.zeros((len(flux), 0)), (spectrum - self._mean) / self.noise)

    def _prepare_grid(self):
        wave = np.asarray(self.nuisances.wave, dtype=np.float64)
        step, n_steps = self.nuisances.velocity_steps()
        self.step, self.velocities = step, np.arange(-n_steps, n_steps + 1) * step
        self.edge = n_steps + 1
        spline = make_interp_spline(wave, self._flux, k=3)
        slope = spline.derivative()
        self.moved, coarse = [], []
        _, _, axes = np.linalg.svd(self.at_rest.free, full_matrices=False)
        self._rough = Factors(self.at_rest.free @ axes[:COARSE].T, self.at_rest.known, self.at_rest.shift)
        for velocity in self.velocities:
            places = wave / (1 + velocity / LIGHT)
            flux = spline(np.clip(places, wave[0], wave[-1]))
            by_velocity = -slope(np.clip(places, wave[0], wave[-1]))[:, -1] * places / LIGHT
            self.moved.append(self._joint(flux, by_velocity[:, None] * step / 2))
            joint = self._joint(flux)
            few = joint.free @ axes[:COARSE].T
            rows, columns = np.tril_indices(few.shape[1])
            powers = [few[:, rows] * few[:, columns], few * joint.shift[:, None], joint.shift[:, None] ** 2]
            coarse.append((np.hstack(powers), np.column_stack([few, joint.shift])))
        self._coarse = tuple(np.hstack(each) for each in zip(*coarse, strict=True))

    def read(self, weights, weighted, *, at_rest=False):
        """Read rows.

        Parameters
        ----------
        weights, weighted : ndarray of shape (n_rows, n_pixels)
            From `weigh`; with `velocity`, the pixels at both ends are set to zero.
        at_rest : bool, default=False
            Whether the velocity of these rows is zero.

        Returns
        -------
        found : dict of str to ndarray
            ``information`` (n_rows, n_packed); ``chi_square`` of the pixels that were kept, about the mean with its
            nuisances, in units of the stated errors, and their number ``n_measured``; ``n_bad`` pixels that were left
            out; ``nuisance_size``, the squares of the nuisances, summed; ``error_scale``. With a velocity, unless
            `at_rest`, information has an axis of candidates before its last, and there are their
            ``candidate_evidence``, -inf for one that is not used, ``velocity`` [km/s] and ``velocity_variance``, all
            (n_rows, n_candidates).
        """
        if self.nuisances.velocity is None:
            return self._read(self.at_rest, weights, weighted)[0]
        for values in (weights, weighted):
            values[:, : self.edge], values[:, -self.edge :] = 0, 0
        if at_rest:
            return self._read(self.at_rest, weights, weighted)[0]
        return self._read_moving(weights, weighted)

    def _read(self, joint, weights, weighted):
        """Read rows with one set of factors; also returned are the pixels that were left out."""
        free = self.nuisances.free_errors
        folded, moment = information(weights, weighted, joint)
        n_bad, kept, bad = np.zeros(len(weights)), None, (np.zeros(0, np.intp), np.zeros(0, np.intp))
        if self.nuisances.robust:
            kept = Kept(weights, weighted, joint, folded, moment, free=free)
            folded, moment, chi_square, n_measured = kept.folded, kept.moment, kept.chi_square, kept.n_measured
            bad = kept.bad
            n_bad += np.bincount(bad[0], minlength=len(weights))
        else:
            chi_square, n_measured = chi_square_of(weights, weighted, joint.shift)
        if self.nuisances.correlation is not None:
            if n_bad.any():
                weights, weighted = weights.copy(), weighted.copy()
                weights[bad] = weighted[bad] = 0
            folded, moment, chi_square = self._information_of_neighbours(weights, weighted, joint)
        scale = np.ones(len(weights))
        if free:
            if kept is None or self.nuisances.correlation is not None:
                mean, _ = solve_mean(folded, moment)
                left = np.maximum(chi_square - np.einsum("nj,nj->n", moment + mean, mean), 0)
            else:
                left = kept.scale * n_measured
            freedom = np.maximum(n_measured - moment.shape[1], 0)
            scale = np.sqrt((left + SCALE_PIXELS) / (freedom + SCALE_PIXELS))
        found = self._found(joint, folded, moment, chi_square, scale)
        return found | {"n_measured": n_measured, "n_bad": n_bad, "error_scale": scale}, bad

    def _found(self, joint, folded, moment, chi_square, scale):
        """Integrate over the nuisances, with errors `scale` times the stated ones."""
        square = scale**2
        folded, moment = folded / square[:, None].astype(folded.dtype), moment / square[:, None]
        moving = {}
        if joint is not self.at_rest:
            mean, strain = solve_mean(folded, moment)
            half, diagonal = self.step / 2, folded[:, -1] + 1.0
            moving = {"velocity": mean[:, -1] * half, "velocity_variance": strain[:, -1] / diagonal * half**2}
        folded, moment, explained, log_size, size = integrate_out(folded, moment, self.n_factors)
        if moving:
            moving["candidate_evidence"] = -0.5 * (chi_square / square - explained + log_size)
        return moving | {
            "information": np.hstack([folded, moment.astype(folded.dtype)]),
            "chi_square": chi_square - square * explained,
            "nuisance_size": size,
        }

    def _information_of_neighbours(self, weights, weighted, joint):
        """Information and chi-square of rows whose pixels are correlated with their neighbours."""
        (n_rows, n_pixels), rho = weights.shape, self.nuisances.correlation
        rows, columns = np.tril_indices(joint.free.shape[1])
        folded, moment, chi_square = np.empty((n_rows, len(rows))), np.empty((n_rows, joint.free.shape[1])), []
        bands = np.ones((len(rho) + 1, n_pixels))
        bands[1:] = np.reshape(rho, (-1, 1))
        common = cholesky_banded(bands, lower=True)
        for row in range(n_rows):
            root = np.sqrt(weights[row].astype(np.float64))
            measured = root > 0
            factor = common
            if not measured.all():  # a pixel without measurement has no neighbours
                own = bands.copy()
                for lag in range(1, len(own)):
                    own[lag, :-lag] *= measured[:-lag] & measured[lag:]
                factor = cholesky_banded(own, lower=True)
            deviation = np.divide(weighted[row], root, where=measured, out=np.zeros(n_pixels)) - root * joint.shift
            sides = np.column_stack([root[:, None] * joint.free, deviation])
            products = sides.T @ cho_solve_banded((factor, True), sides)
            folded[row], moment[row] = products[rows, columns], products[-1, :-1]
            chi_square.append(products[-1, -1])
        return folded.astype(weights.dtype), moment, np.array(chi_square)

    def residual_power(self, weights, weighted):
        """Squared residuals of pixels and what they should be, summed over the rows, and their ratio for every row."""
        joint, n_rows = self.at_rest, len(weights)
        folded, moment = information(weights, weighted, joint)
        kept = Kept(weights, weighted, joint, folded, moment)
        weights[kept.bad] = weighted[kept.bad] = 0
        covariance = np.linalg.inv(unfold(kept.folded, moment.shape[1]) + np.eye(moment.shape[1]))
        mean = np.einsum("nij,nj->ni", covariance, kept.moment)
        residual = weighted - weights * (mean.astype(weights.dtype) @ joint.free.astype(weights.dtype).T
                                         + joint.shift.astype(weights.dtype))  # fmt: skip
        squares = residual**2 / np.maximum(weights, np.finfo(weights.dtype).tiny)
        by_pixel = weights.T @ covariance.reshape(n_rows, -1).astype(weights.dtype)  # of what the factors take up
        taken = np.einsum("pi,pij,pj->p", joint.free, by_pixel.reshape(-1, *covariance.shape[1:]), joint.free)
        freedom = np.count_nonzero(weights, axis=0) - taken
        dof = kept.n_measured - moment.shape[1] + np.einsum("nii->n", covariance)
        with np.errstate(invalid="ignore", divide="ignore"):
            by_row = np.sqrt(squares.sum(axis=1, dtype=np.float64) / np.where(dof > 0, dof, np.nan))
        return squares.sum(axis=0, dtype=np.float64), freedom, by_row

    def _read_moving(self, weights, weighted):
        """Read rows at several velocities; which pixels lie and how large the errors are is found at the likeliest."""
        candidates = self._candidates(weights, weighted)
        n_rows, n_kept = candidates.shape
        joined, agreeing = {}, (weights.copy(), weighted.copy())
        for slot in range(n_kept):
            for place in np.unique(candidates[candidates[:, slot] >= 0, slot]):
                rows, joint = np.flatnonzero(candidates[:, slot] == place), self.moved[place]
                if slot == 0:
                    found, bad = self._read(joint, weights[rows], weighted[rows])
                    for values in agreeing:
                        values[rows[bad[0]], bad[1]] = 0
                else:
                    found = self._again(joint, *(values[rows] for values in agreeing), joined["error_scale"][rows])
                found["velocity"] = found["velocity"] + self.velocities[place]
                for name, values in found.items():
                    shape = (n_rows, *values.shape[1:]) if name in OF_ROWS else (n_rows, n_kept, *values.shape[1:])
                    if name not in joined:
                        empty = -np.inf if name == "candidate_evidence" else 0
                        joined[name] = np.full(shape, empty, values.dtype)
                    joined[name][rows if name in OF_ROWS else (rows, slot)] = values
        first = np.argmax(joined["candidate_evidence"], axis=1)
        for name in ("chi_square", "nuisance_size"):
            joined[name] = joined[name][np.arange(n_rows), first]
        return joined

    def _again(self, joint, weights, weighted, scale):
        """Read rows whose bad pixels have weight zero, with errors of a known scale."""
        if self.nuisances.correlation is not None:
            parts = self._information_of_neighbours(weights, weighted, joint)
        else:
            parts = *information(weights, weighted, joint), chi_square_of(weights, weighted, joint.shift)[0]
        return self._found(joint, *parts, scale)

    def _candidates(self, weights, weighted):
        """Numbers of the velocities to compare for every row, best first, -1 for none (n_rows, KEPT)."""
        scale = 1.0
        if self.nuisances.robust:  # before the velocity is known: what no velocity explains
            folded, moment = information(weights, weighted, self._rough)
            kept = Kept(weights, weighted, self._rough, folded, moment)
            scale = kept.scale[:, None] if self.nuisances.free_errors else 1.0
            if len(kept.bad[0]):
                weights, weighted = weights.copy(), weighted.copy()
                weights[kept.bad] = weighted[kept.bad] = 0
        n_rows, n_grid = len(weights), len(self.velocities)
        powers, lines = (values.astype(weights.dtype) for values in self._coarse)
        power = (weights @ powers).reshape(n_rows, n_grid, -1).astype(np.float64)
        line = (weighted @ lines).reshape(n_rows, n_grid, -1).astype(np.float64)
        width = line.shape[2] - 1
        moment = line[..., :-1] - power[..., -width - 1 : -1]
        folded = power[..., : n_products(width)].reshape(-1, n_products(width))
        mean, _ = solve_mean(folded, moment.reshape(-1, width))
        evidence = line[..., -1] - 0.5 * power[..., -1]
        evidence += 0.5 * np.einsum("nvj,nvj->nv", moment, mean.reshape(moment.shape))
        evidence /= scale
        order = np.argsort(-evidence, axis=1, kind="stable")[:, :KEPT]
        best = np.take_along_axis(evidence, order, axis=1)
        return np.where(best - best[:, :1] > np.log(LEAST_SHARE), order, -1)


def scores_beside(columns):
    """Posterior means and variances of the factors, under N(0, I), from what a projection informs of rows."""
    packed = columns["information"]
    flat = packed.reshape(-1, packed.shape[-1])
    folded, moment = split_information(flat)
    precision = unfold(folded, moment.shape[1]) + np.eye(moment.shape[1])
    covariance = np.linalg.inv(precision)
    means = np.einsum("nij,nj->ni", covariance, moment)
    variances = np.einsum("nii->ni", covariance)
    if packed.ndim == 3:  # candidates of the velocity
        size = np.linalg.slogdet(precision)[1].reshape(packed.shape[:2])
        fit = np.einsum("ni,ni->n", means, moment).reshape(packed.shape[:2])
        share = softmax(columns["candidate_evidence"] + (fit - size) / 2, axis=1)[..., None]
        means, variances = (values.reshape(*packed.shape[:2], -1) for values in (means, variances))
        mean = (share * means).sum(axis=1)
        means, variances = mean, (share * (variances + means**2)).sum(axis=1) - mean**2
    return {"projected": means.astype(packed.dtype), "variances": variances.astype(packed.dtype)}


def chi_square_of(weights, weighted, shift):
    """Squared deviations of rows in units of their errors, summed, and the number of measured pixels."""
    shift, measured = shift.astype(weights.dtype), weights > 0
    squares = np.divide(weighted * weighted, weights, where=measured, out=np.zeros_like(weights))
    moved = weights @ (shift * shift) - 2 * (weighted @ shift)
    return squares.sum(axis=1, dtype=np.float64) + moved, measured.sum(axis=1)


def integrate_out(folded, moment, n_left):
    """Integrate over the last factors, of prior N(0, 1).

    Returns the information on the first `n_left`, what those that went explain of chi-square, the logarithm of the
    determinant of their precision, and the sum of their squares at the mean of the factors.
    """
    explained, log_size, size = np.zeros((3, len(moment)))
    for last in range(moment.shape[1] - 1, n_left - 1, -1):
        row = folded[:, n_products(last) :]
        pivot = 1.0 + row[:, last]
        crossed, own = row[:, :last] / pivot[:, None], moment[:, last]
        explained += own**2 / pivot
        log_size += np.log(pivot)
        size += (own / pivot) ** 2
        rows, columns = np.tril_indices(last)
        moment = moment[:, :last] - crossed * own[:, None]
        folded = folded[:, : n_products(last)] - crossed[:, rows] * row[:, columns]
    return folded, moment, explained, log_size, size


def scale_of(squares, n_measured):
    """Squared scale of residuals from their median (n_rows,); `squares` are 0 where a pixel was not measured."""
    some = np.sort(squares[:, :: max(1, squares.shape[1] // MEDIAN_PIXELS)], axis=1)
    n_absent = np.round((1 - n_measured / squares.shape[1]) * some.shape[1]).astype(np.intp)
    middle = np.clip((n_absent + some.shape[1]) // 2, 0, some.shape[1] - 1)
    return np.take_along_axis(some, middle[:, None], axis=1)[:, 0] / CHI_SQUARE_MEDIAN


class Kept:
    """Information of rows from the pixels that agree with what the factors explain.

    Pixels are left out round by round, until no more are found or lost.

    Parameters
    ----------
    weights, weighted : ndarray of shape (n_rows, n_pixels)
        From `weigh`.
    joint : Factors
        Free factors alone.
    folded, moment : ndarray
        Information of all pixels.
    free : bool, default=True
        Whether errors that are stated too large are taken to be smaller, so that deviations count for more.

    Attributes
    ----------
    folded, moment : ndarray
        Information, as :func:`~dualgate.features.factors.information` returns it.
    chi_square, n_measured : ndarray of shape (n_rows,)
        Squared deviations from the mean in units of the errors, summed, and the number of pixels.
    scale : ndarray of shape (n_rows,)
        Typical squared residual, in units of the squared errors, from the median of some pixels, which bad ones do not
        move.
    bad : tuple of ndarray of int
        Rows and pixels that were left out, in the order of the rows.
    """

    def __init__(self, weights, weighted, joint, folded, moment, *, free=True):
        n_measured = np.count_nonzero(weights, axis=1)
        self._weights, self._weighted, self._joint = weights, weighted, joint
        self._loadings, self._shift = joint.free.astype(weights.dtype), joint.shift.astype(weights.dtype)
        self.folded, self.moment, self.n_measured = folded, moment, n_measured
        self.chi_square, self.scale = np.empty((2, len(weights)))
        self.bad = np.zeros(0, np.intp), np.zeros(0, np.intp)
        first = []
        for start in range(0, len(weights), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(weights)))
            mean, squares = self._residual(rows)
            left = squares.sum(axis=1)
            self.chi_square[rows] = left + np.einsum("nj,nj->n", moment[rows] + mean, mean)
            self.scale[rows] = scale_of(squares, n_measured[rows])
            limit = self._limit(rows, free)
            some = squares.max(axis=1) > limit
            if some.any():
                places, pixels = np.nonzero(squares[some] > limit[some, None])
                first.append((rows[some][places], pixels))
        if first:
            self._leave_out(*map(np.concatenate, zip(*first, strict=True)), free)

    def _limit(self, rows, free):
        scale = self.scale[rows] if free else np.maximum(self.scale[rows], 1.0)
        return (OUTLIER**2 * scale).astype(self._weights.dtype)

    def _residual(self, rows):
        """Posterior means of the factors, and squared residuals of all pixels in units of their errors."""
        mean, _ = solve_mean(self.folded[rows], self.moment[rows])
        fit = mean.astype(self._weights.dtype) @ self._loadings.T
        fit += self._shift
        weights = self._weights[rows]
        fit *= weights
        np.subtract(self._weighted[rows], fit, out=fit)
        fit *= fit
        fit /= np.maximum(weights, np.finfo(weights.dtype).tiny)  # without weight there is no deviation either
        return mean, fit

    def _leave_out(self, rows, pixels, free):
        n_measured = self.n_measured
        for name in ("folded", "moment", "chi_square", "n_measured"):
            setattr(self, name, getattr(self, name).copy())
        active = np.unique(rows)
        flagged = np.zeros((len(active), self._weights.shape[1]), dtype=bool)
        flagged[np.searchsorted(active, rows), pixels] = True
        self._take_off(active, *np.nonzero(flagged), 1.0)
        changed = np.arange(len(active))
        for _ in range(ROUNDS):
            again = []
            for start in range(0, len(changed), _CHUNK):
                own = changed[start : start + _CHUNK]
                _, squares = self._residual(active[own])
                self.scale[active[own]] = scale_of(squares, n_measured[active[own]])
                found = squares > self._limit(active[own], free)[:, None]
                places, pixels = np.nonzero(found != flagged[own])
                self._take_off(active[own], places, pixels, np.where(found[places, pixels], 1.0, -1.0))
                flagged[own] = found
                again.append(own[np.unique(places)])
            changed = np.concatenate(again)
            if not len(changed):
                break
        places, pixels = np.nonzero(flagged)
        self.bad = active[places], pixels

    def _take_off(self, rows, places, pixels, sign):
        """Take what single pixels brought, `places` being their numbers among `rows`, off the information."""
        weights, weighted = self._weights[rows[places], pixels], self._weighted[rows[places], pixels]
        weighted = weighted - weights * self._shift[pixels]
        products, shape = self._joint.products(self._weights.dtype), (len(rows), self._weights.shape[1])
        dtype = weights.dtype
        taken = csr_array(((sign * weights).astype(dtype), (places, pixels)), shape=shape)
        self.folded[rows] -= taken @ products[:, : self.folded.shape[1]]
        taken = csr_array(((sign * weighted).astype(dtype), (places, pixels)), shape=shape)
        self.moment[rows] -= taken @ self._loadings
        self.chi_square[rows] -= np.bincount(places, sign * weighted.astype(np.float64) ** 2 / weights, len(rows))
        self.n_measured[rows] -= np.bincount(places, np.broadcast_to(sign, len(places)), len(rows)).astype(np.intp)


class KeptReading:
    """Weights and weighted deviations of rows, zero where a pixel does not agree with the factors.

    Parameters
    ----------
    read : callable
        Maps (block, first_row, out) to the results of `weigh`.
    factors : Factors
    """

    def __init__(self, read, factors):
        self.read = read
        loadings = np.hstack([factors.free, factors.known])
        self._joint = Factors(loadings, np.zeros((len(loadings), 0)), factors.shift)

    def __call__(self, block, first_row=0, out=None):
        """Read a block as `read` does."""
        weights, weighted = self.read(block, first_row, out)
        kept = Kept(weights, weighted, self._joint, *information(weights, weighted, self._joint))
        weights[kept.bad] = weighted[kept.bad] = 0
        return weights, weighted
