"""Arms of a spectrograph: rows of flux, variance and bad pixels on one wavelength grid, which are joined to spectra."""

from dataclasses import dataclass

import numpy as np

from dualgate._validation import check_choice
from dualgate.datasets.wavelengths import union_of

ERROR_KINDS = ("error", "variance", "ivar")
NOT_STATED = "not stated"


@dataclass
class Arm:
    """Rows of one arm: arrays (n_rows, n_pixels) over `wave` (n_pixels,), or lists of rows with a grid of their own."""

    wave: np.ndarray | list  # [angstrom], increasing
    flux: np.ndarray | list
    variance: np.ndarray | list  # NaN where there is none
    bad: np.ndarray | list

    @property
    def ragged(self):
        """Whether every row has a grid of its own."""
        return isinstance(self.wave, list)


def make_arm(owner, wave, flux, errors, kind, bad=None):
    """Make an arm of rows as files hold them: lengths must agree, wavelengths may fall, variances may be missing.

    `wave` is one grid or one for each row; rows of pieces of one grid are put into it.
    """
    check_choice(owner, "uncertainty", kind, ERROR_KINDS)
    flux, errors, waves = rows_of(flux), rows_of(errors), rows_of(wave)
    waves = [waves[0]] * len(flux) if len(waves) == 1 else list(waves)
    bad = [np.zeros(len(row), dtype=bool) for row in flux] if bad is None else rows_of(bad)
    counts = [len(each) for each in (waves, flux, errors, bad)]
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            f"{owner}: {counts} rows of wavelength, flux, {kind} and mask: they must be as many, one at least."
        )
    for i, row in enumerate(zip(waves, flux, errors, bad, strict=True)):
        lengths = [len(each) for each in row]
        if len(set(lengths)) > 1 or lengths[0] < 2:
            raise ValueError(
                f"{owner}: row {i} has {lengths} values of wavelength, flux, {kind} and mask: they must be as many, "
                "two at least."
            )
    alike = isinstance(flux, np.ndarray) and all(each is waves[0] or np.array_equal(each, waves[0]) for each in waves)
    if alike:
        waves, flux, errors, bad = waves[:1], [flux], [np.asarray(errors)], [np.asarray(bad)]
    orders = [np.argsort(each, kind="stable") for each in waves]
    waves = [each[order].astype(np.float64) for each, order in zip(waves, orders, strict=True)]
    if not all(np.isfinite(each).all() and np.all(np.diff(each) > 0) for each in waves):
        raise ValueError(f"{owner}: wavelengths must be finite and must not repeat.")
    flux, errors, bad = (
        [each[..., order] for each, order in zip(rows, orders, strict=True)] for rows in (flux, errors, bad)
    )
    variance = [variance_of(each, kind) for each in errors]
    return Arm(waves[0], flux[0], variance[0], bad[0]) if alike else aligned(Arm(waves, flux, variance, bad), owner)


def native(array):
    """Return an array in the byte order of this machine."""
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def rows_of(values):
    """Return rows as an array (n_rows, n_pixels), one row for a plain array, or as a list where lengths differ."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return native(np.atleast_2d(values))
    rows = [native(row) for row in values]
    if rows and rows[0].ndim == 0:
        return np.array(rows)[None]
    return np.stack(rows) if len({len(row) for row in rows}) == 1 else rows


def variance_of(values, kind):
    """Variance of errors, variances or inverse variances; NaN where they are not finite and above zero."""
    values = values.astype(np.float64)
    values[~((values > 0) & (values < np.inf))] = np.nan
    return values**2 if kind == "error" else 1 / values if kind == "ivar" else values


def aligned(arm, owner):
    """Put rows of unequal length into one grid, missing pixels as bad; rows that share none are left as they are."""
    try:
        grid, places = union_of(owner, arm.wave)
    except ValueError:
        return arm
    shape = len(places), len(grid)
    flux, variance, bad = np.full(shape, np.nan, arm.flux[0].dtype), np.full(shape, np.nan), np.ones(shape, dtype=bool)
    for i, place in enumerate(places):
        flux[i, place], variance[i, place], bad[i, place] = arm.flux[i], arm.variance[i], arm.bad[i]
    return Arm(grid, flux, variance, bad)


def join_arms(arms, owner):
    """Join arms to one: where they overlap, flux is averaged with inverse variances over the arms that are good."""
    if len(arms) == 1:
        return arms[0]
    grid, places = union_of(owner, [arm.wave for arm in arms])
    total, weight = np.zeros((2, len(arms[0].flux), len(grid)))
    for arm, place in zip(arms, places, strict=True):
        good = ~arm.bad & np.isfinite(arm.flux) & np.isfinite(arm.variance)
        ivar = np.where(good, 1 / np.where(good, arm.variance, 1), 0)
        weight[:, place] += ivar
        total[:, place] += ivar * np.where(good, arm.flux, 0)
    bad = weight == 0
    weight[bad] = np.nan
    flux = (total / weight).astype(np.result_type(*[arm.flux.dtype for arm in arms]))
    return Arm(grid, flux, 1 / weight, bad)


def bad_pixels(owner, mask, bad_bits, default, names=None):
    """Whether pixels have one of the bad bits set, of a mask of bools or of bits.

    Parameters
    ----------
    mask : ndarray of bool or int
    bad_bits, default : None, "any", or sequence of str or int
        Names or numbers of bits; None is the default, of which only those that the file names count.
    names : None or dict
        Number of every bit that has a name.
    """
    names, chosen = names or {}, bad_bits
    if bad_bits is None:
        chosen = default if default == "any" or not names else [name for name in default if name in names]
    if mask.dtype == bool or chosen == "any":
        return mask != 0
    chosen = [chosen] if isinstance(chosen, (str, int)) else list(chosen)
    unknown = [bit for bit in chosen if (bit not in names if isinstance(bit, str) else not 0 <= bit < 64)]
    if unknown or (bad_bits is None and not chosen):
        raise ValueError(
            f"{owner} has no mask bit {unknown or list(default)!r}: it names {', '.join(names) or 'none'}. Give "
            "bad_bits names that it has, numbers from 0 to 63, or 'any'."
        )
    return (mask.astype(np.uint64) & np.uint64(sum(1 << bit for bit in {names.get(bit, bit) for bit in chosen}))) != 0


def facts_of(form, uncertainty, bad_bits, default="any", **stated):
    """Return what a format states of its spectra, `NOT_STATED` for the rest."""
    unknown = dict.fromkeys(("flux_unit", "flux_per", "medium", "frame"), NOT_STATED)
    taken = {"wave_unit": "angstrom", "uncertainty": uncertainty, "bad_bits": default if bad_bits is None else bad_bits}
    return {"format": form, **unknown, **taken, **stated}
