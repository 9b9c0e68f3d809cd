"""Checks, and the one shape every message has: argument, value, what must hold, what to do."""

import math
import numbers
import reprlib

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.utils import get_tags
from sklearn.utils.validation import column_or_1d, validate_data

MASK_ROWS = 64  # rows whose missing pixels are handled at a time, so that masks stay in the cache
MAX_NAMED = 3  # how many offenders a message names before it stops


def owner_name(owner):
    """Return the class name a message starts with, for an instance, a class or a plain string."""
    if isinstance(owner, str):
        return owner
    return owner.__name__ if isinstance(owner, type) else type(owner).__name__


def check_jobs(owner):
    """Raise a ValueError where `n_jobs` of an estimator is no number of threads."""
    n_jobs = getattr(owner, "n_jobs", None)
    if n_jobs is not None and (not isinstance(n_jobs, numbers.Integral) or isinstance(n_jobs, bool) or n_jobs == 0):
        raise ValueError(
            f"{owner_name(owner)}.n_jobs={n_jobs!r} must be None or an integer other than 0: -1 is one thread per core."
        )


def check_choice(owner, name, value, choices):
    """Return `value` if it is one of `choices`, else name those that exist."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"{owner_name(owner)}.{name}={value!r} must be one of {', '.join(map(repr, sorted(choices)))}."
        )
    return value


def check_number(owner, name, value, *, kind=numbers.Real, low=None, high=None, strict=False, hint=""):
    """Return the finite number `value` if it lies within [low, high] (above `low` when `strict`)."""
    bounds = [] if low is None else [f"above {low}" if strict else f"at least {low}"]
    bounds += [] if high is None else [f"at most {high}"]
    fits = isinstance(value, kind) and not isinstance(value, (bool, np.bool_))
    finite = not fits or isinstance(value, numbers.Integral) or math.isfinite(value)
    fits = fits and finite
    fits = fits and (low is None or (value > low if strict else value >= low)) and (high is None or value <= high)
    if not fits:
        noun = "an integer" if kind is numbers.Integral else "a number" if bounds and finite else "a finite number"
        must = " ".join([noun, " and ".join(bounds)]).rstrip()
        raise ValueError(f"{owner_name(owner)}.{name}={value!r} must be {must}" + (f": {hint}" if hint else "."))
    return value


def check_numbers(owner, name, values, fits, wanted):
    """Return `values` as an array (n_values,) of finite numbers, one or more, for which `fits` holds."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all() or not fits(array):
        raise ValueError(f"{owner_name(owner)}.{name}={values!r} must be {wanted}.")
    return array


def name_cells(mask, n_named=6):
    """Name the cells of a mask (n_regimes, n_quality_bins), whole regimes first, the first `n_named` of them."""
    whole = mask.all(axis=1)
    names = [f"regime {k}" for k in np.flatnonzero(whole)]
    names += [f"regime {k} in quality bin {s}" for k, s in np.argwhere(mask & ~whole[:, None])]
    return ", ".join(names[:n_named]) + (", ..." if len(names) > n_named else "")


def make_generator(owner, random_state):
    """Return a numpy Generator for `random_state`; the global generator is neither read nor moved.

    None is fresh entropy; a RandomState or Generator gives the seed by one draw.
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    if isinstance(random_state, np.random.Generator):
        return np.random.default_rng(random_state.integers(2**63))
    if random_state is not None:
        check_number(owner, "random_state", random_state, kind=numbers.Integral, low=0)
    return np.random.default_rng(random_state)


def allows_nan(owner):
    """Whether `owner` is an estimator that takes NaN for what was not measured."""
    return isinstance(owner, BaseEstimator) and get_tags(owner).input_tags.allow_nan


def check_rows(estimator, X, *, reset, **options):
    """Validate `X` as float rows, float32 and float64 kept as they are, finite unless the estimator takes NaN."""
    X = validate_data(estimator, X, dtype=[np.float64, np.float32], ensure_all_finite=False, reset=reset, **options)
    if not allows_nan(estimator):
        require_finite(estimator, "X", X)
    return X


def require_samples(estimator, X, min_samples):
    """Raise a ValueError where `X` has fewer rows than `min_samples`."""
    if len(X) < min_samples:
        raise ValueError(
            f"X has {len(X)} sample{'s' if len(X) != 1 else ''}: {owner_name(estimator)} needs at least "
            f"{min_samples} samples to fit anything; pass more rows."
        )


def check_target(estimator, y):
    """Return `y` as one finite number per row; text is refused even where it reads as a number.

    An estimator of several targets may be given (n_samples, n_targets), and is given back that.
    """
    if y is None:
        raise ValueError(
            f"{owner_name(estimator)} requires y to be passed, but the target y is None: give one number per row."
        )
    target = np.asarray(y)
    several = isinstance(estimator, BaseEstimator) and get_tags(estimator).target_tags.multi_output
    if target.ndim == 2 and target.shape[1] == 1 and not several:
        target = column_or_1d(y, warn=True)
    if target.dtype == object and all(isinstance(value, numbers.Real) for value in target.flat):
        target = target.astype(np.float64)
    if target.ndim not in ((1, 2) if several else (1,)) or target.dtype.kind not in "fiub" or 0 in target.shape[1:]:
        raise ValueError(
            f"y of {owner_name(estimator)} has shape {target.shape} and dtype {target.dtype}: it must hold one number "
            f"per row, (n_samples,){', or (n_samples, n_targets)' if several else ''}."
        )
    finite = np.isfinite(target).reshape(len(target), -1).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(
            f"Input y of {owner_name(estimator)} contains NaN or infinity in {len(bad):,} rows (first: row {bad[0]}): "
            "targets must be finite; drop the rows without one."
        )
    return target.astype(np.float64, copy=False)


def require_finite(owner, name, X, *, first_row=0):
    """Raise a ValueError that locates the first NaN or infinity of `X` (n_samples, n_features)."""
    with np.errstate(over="ignore", invalid="ignore"):
        if get_config()["assume_finite"] or np.isfinite(np.sum(X)):
            return
    bad = ~np.isfinite(X)
    if not bad.any():  # the sum overflowed, the values did not
        return
    row, column = np.argwhere(bad)[0]
    raise ValueError(
        f"Input {name} of {owner_name(owner)} contains NaN or infinity: {bad.sum():,} values in "
        f"{bad.any(axis=1).sum():,} rows, the first is {name}[{first_row + row}, {column}]={X[row, column]}. "
        "Values must be finite; interpolate bad pixels or drop these rows."
    )


def find_missing(flux, error=None):
    """Mask of the pixels (n_samples, n_pixels) whose flux or error is NaN or infinite; None where there are none."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(flux)) and (error is None or np.isfinite(np.sum(error))):
            return None
    missing = ~np.isfinite(flux)
    if error is not None:
        missing |= ~np.isfinite(error)
    return missing if missing.any() else None


def require_positive_errors(owner, error, columns=None, *, first_row=0):
    """Raise a ValueError that locates the first error of `error` (n_samples, n_pixels) that is not above zero."""
    if error.size and np.min(error) > 0:  # false for NaN too
        return
    row, pixel = np.argwhere(~(error > 0))[0]
    column = pixel if columns is None else columns[pixel]
    raise ValueError(
        f"{owner_name(owner)}.error_columns selects an error of {error[row, pixel]} at X[{first_row + row}, {column}] "
        f"({np.sum(~(error > 0)):,} such values): errors must be finite and above zero. Interpolate bad pixels "
        "with an error like their neighbours', or drop the row."
    )


def resolve_columns(owner, name, spec, X, n_features):
    """Turn a column specification, as in ColumnTransformer, into integer positions; never none.

    None selects every column; names, and slices of names, need an `X` that has them; a callable receives `X`.
    """
    label = f"{owner_name(owner)}.{name}"
    spec = spec(X) if callable(spec) else spec
    names = {str(column): place for place, column in enumerate(getattr(X, "columns", []))}
    if spec is None:
        return np.arange(n_features)
    if isinstance(spec, slice):
        start, stop = spec.start, spec.stop
        start = _find(label, [start], names, n_features)[0] if isinstance(start, str) else start
        stop = _find(label, [stop], names, n_features)[0] + 1 if isinstance(stop, str) else stop
        columns = np.arange(n_features)[slice(start, stop, spec.step)]
    else:
        listed = np.atleast_1d(np.asarray(spec))
        if listed.dtype == bool and len(listed) != n_features:
            raise ValueError(
                f"{label} is a mask of length {len(listed):,}, X has {n_features:,} columns: the lengths must be equal."
            )
        if listed.size and listed.dtype.kind not in "biuUO":
            raise ValueError(
                f"{label}={listed.tolist()!r} must be a slice, integers, names, a boolean mask or a callable."
            )
        wanted = np.flatnonzero(listed) if listed.dtype == bool else listed
        columns = np.array(_find(label, wanted.tolist(), names, n_features), dtype=np.intp)
    if len(columns) == 0:
        raise ValueError(
            f"{label}={reprlib.repr(spec)} selects none of the {n_features:,} columns of X: it must name at least one. "
            "Leave it None to use all columns."
        )
    return columns


def _find(label, wanted, names, n_features):
    """Positions of columns by name or number."""
    if any(isinstance(each, str) for each in wanted):
        found = [names.get(str(each)) for each in wanted]
        hint = f"the first are {_first(list(names))}" if names else "and no column names: pass a DataFrame"
    else:
        found = [each % n_features if -n_features <= each < n_features else None for each in wanted]
        hint = "counted from 0"
    lacking = [each for each, place in zip(wanted, found, strict=True) if place is None]
    if lacking:
        raise ValueError(
            f"{label} names {len(lacking)} columns that X lacks: {_first(lacking)}. X has {n_features:,} columns, "
            f"{hint}."
        )
    return found


def _first(values):
    return ", ".join(repr(value) for value in values[:MAX_NAMED]) + (", ..." if len(values) > MAX_NAMED else "")


def find_error_columns(owner, spec, X, flux_columns):
    """Positions of the errors that belong to `flux_columns`, one for each."""
    n_features = np.shape(X)[1]
    columns = resolve_columns(owner, "error_columns", spec, X, n_features)
    if len(columns) != len(flux_columns):
        raise ValueError(
            f"{owner_name(owner)}.error_columns selects {len(columns):,} columns, columns selects "
            f"{len(flux_columns):,}: every flux needs one error. X has {n_features:,} columns; X = [flux | error] "
            "has an even number, twice the number of pixels."
        )
    return columns


def take_columns(X, columns):
    """Select `columns` (integers) of the array `X`; a view where they are consecutive."""
    return X[:, column_index(columns)]


def column_index(columns):
    """Return `columns` (integers) as a slice where they are consecutive."""
    consecutive = len(columns) and np.all(np.diff(columns) == 1)
    return slice(columns[0], columns[-1] + 1) if consecutive else columns
