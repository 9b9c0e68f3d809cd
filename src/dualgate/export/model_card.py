"""Model cards: what a fitted model is, how good, where not, and where it comes from, as Markdown."""

import platform
from importlib.metadata import version

import numpy as np
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from dualgate import __version__
from dualgate._markdown import as_text
from dualgate._validation import check_target
from dualgate.evaluation import SNR_NAMES, SNR_RANGES, bootstrap_scores, row_slices
from dualgate.experts import FactorExperts, HierarchicalExperts
from dualgate.experts.regimes import regime_codes
from dualgate.mixture import DualTowerMoERegressor
from dualgate.rows import map_blocks, open_rows

COVERAGE = 0.9  # of the central interval that a card checks
LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")


def model_card(model, X=None, y=None, *, regimes=None, data=None):
    """Describe a fitted model in Markdown.

    Parameters
    ----------
    model : DualTowerMoERegressor, FactorExperts or HierarchicalExperts
        Fitted, to one target.
    X, y : None or array-like, default=None
        Rows that it was not fitted to, and their targets, for scores by bin of the signal-to-noise ratio. None leaves
        scores out.
    regimes : None or array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
        Of these rows, as in `fit`, for scores by regime.
    data : None or str, default=None
        A sentence or two on the rows that the model was fitted to, which a model does not keep.

    Returns
    -------
    card : str
        Names of columns and other text of yours cannot add markup.

    Raises
    ------
    ValueError
        If one of `X` and `y` is given alone, or they do not fit.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from dualgate import HierarchicalExperts
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> print(model_card(HierarchicalExperts(random_state=0).fit(X, X[:, 0]))[:33])
    # Model card: HierarchicalExperts
    """
    check_is_fitted(model)
    if (X is None) != (y is None):
        raise ValueError("model_card: give both X and y, rows that the model was not fitted to, or neither.")
    experts = getattr(model, "experts_", model)
    parts = {
        "What it is": [_kind(model, experts)],
        "Data": _data(model, data),
        "Regimes": _regimes(experts),
        "Scores": ["No rows were given to score it."] if X is None else _scores(model, experts, X, y, regimes),
        "Limits": _limits(model, experts),
        "Provenance": _provenance(model),
    }
    sections = ["\n".join([f"## {heading}", "", *lines, ""]) for heading, lines in parts.items()]
    return "\n".join([f"# Model card: {type(model).__name__}", "", *sections])


def _kind(model, experts):
    if isinstance(experts, FactorExperts):
        n_components, n_loadings, n_factors, n_targets = experts.mixture_.shape
        what = (
            f"A mixture of {n_components} factor analysers, joint with {n_targets} target{'s' * (n_targets > 1)}: "
            f"{n_factors} factors each, over {n_loadings} loadings. "
        )
        weights = "the likelihood of a row, given its errors"
    else:
        what = (
            f"Ridge regressions in closed form: {experts.n_regimes_} regimes times {experts.n_quality_bins_} quality "
            f"bins, on {experts.n_projected} columns. "
        )
        weights = "one ridge for all rows where the regime is not known"
    if isinstance(model, DualTowerMoERegressor) and model.net_ is not None:
        names = {"phys": "a physics tower", "quality": "a quality tower"}
        towers = " and ".join(names[name] for name in model.reduction_.gates)
        beside = ", and by " + weights if isinstance(experts, FactorExperts) else ""
        return f"{what}They are weighed by {towers} ({type(model.fusion_).__name__}){beside}."
    return f"{what}Prediction is by {weights}."


def _data(model, data):
    reduction = model.reduction_
    lines = ["The model does not keep which rows it was fitted to." if data is None else as_text(data), ""]
    lines += [f"- X has {model.n_features_in_:,} columns."]
    names = getattr(model, "feature_names_in_", [])
    if len(names):
        lines += [f"- The first are {', '.join(map(as_text, names[:5]))}{', ...' * (len(names) > 5)}."]
    errors = "none" if reduction.error_columns_ is None else f"{len(reduction.error_columns_):,}"
    return [*lines, f"- Experts read {len(reduction.columns_):,} of them; columns with their errors: {errors}."]


def _regimes(experts):
    edges = experts.regime_edges
    lines = ["Regimes were codes, or found." if edges is None else f"Conditions were cut at {as_text(edges)}."]
    if isinstance(experts, HierarchicalExperts):
        heads = [f"quality bin {each}" for each in range(experts.n_quality_bins_)]
        rows = [[f"regime {k}", *(f"{n:,}" for n in counts)] for k, counts in enumerate(experts.cell_counts_)]
        return [*lines, f"Training rows: {experts.cell_counts_.sum():,}.", "", *_table(["", *heads], rows)]
    return [*lines, "The mixture starts from them; its components may end as something else."]


def _scores(model, experts, X, y, regimes):
    y = check_target(model, y)
    if y.ndim > 1:
        raise ValueError(f"model_card: y has shape {y.shape} and must hold one target, (n_samples,).")
    mixture = isinstance(model, DualTowerMoERegressor)
    has_density = (mixture and model.fallback_confidence is None) or isinstance(model, FactorExperts)
    density = model.predict_density(X) if has_density else None
    prediction = model.predict(X) if density is None else density.mean
    reduction, source, snr, codes = model.reduction_, open_rows(model, X, reset=False), None, None
    if reduction.error_columns_ is not None:
        snr = map_blocks(model, lambda first, block: reduction.snr_of(block), source, n_jobs=model.n_jobs)
    if regimes is not None:
        codes = regime_codes(experts, regimes, experts.regime_edges, len(y))[0]
    slices = row_slices(len(y), snr=snr, regimes=codes)
    slices = {name: rows for name, rows in slices.items() if rows.any()}
    table = bootstrap_scores(y, {"model": prediction}, slices, random_state=0)
    ranges = dict(zip(SNR_NAMES, SNR_RANGES, strict=True))
    heads, inside, width = ["rows", "number", "R² [95 %]", "MAE", "bias"], None, None
    if density is not None:
        if mixture:
            low, high = model.predict_interval(X, COVERAGE).T
        else:
            low, high = (density.quantile((1 + side * COVERAGE) / 2) for side in (-1, 1))
        inside, width = (low <= y) & (y <= high), high - low
        heads += [f"within {COVERAGE:.0%} interval", "its mean width"]
    cells = []
    for place, (name, rows) in enumerate(slices.items()):
        found = table.estimate("r2", "model", name).interval()
        score = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" if np.isfinite(found.value) else "n/a"
        errors = [f"{table.values[each][place, 0]:.3g}" for each in ("mae", "bias")]
        more = [] if density is None else [f"{inside[rows].mean():.3f}", f"{width[rows].mean():.3g}"]
        shown = f"{name}, SNR {ranges[name]}" if name in ranges else name
        cells.append([shown, f"{rows.sum():,}", score, *errors, *more])
    note = "Of the rows that were given; it is not checked that the model was not fitted to them. SNR is "
    note += "||flux|| / ||error||; MAE, bias and width are in the unit of y."
    return [note, "", *_table(heads, cells)]


def _limits(model, experts):
    factor, paired = isinstance(experts, FactorExperts), model.reduction_.error_columns_ is not None
    lines = ["Rows need the columns of training, in that order and unit, on the same wavelengths if they are spectra."]
    if paired:
        lines += ["Errors are standard deviations. Where they are wrong, so are weights and predictions."]
    if factor:
        lines += ["Rows unlike the training rows are extrapolations; novelty(X) gives a p-value for each."]
    else:
        lines += ["It does not tell rows unlike the training rows from others."]
        low, high = experts.y_range_
        held = f"held within {low:.4g} to {high:.4g}" if np.isfinite(high) else "not held within the training targets"
        lines += [f"Predictions are linear in each regime and {held}."]
    if isinstance(model, DualTowerMoERegressor):
        lines += ["Intervals of predict_interval hold for new rows that are drawn as the training rows were."]
    lines += [f"Missing values (NaN) are {'left out' if get_tags(model).input_tags.allow_nan else 'refused'}."]
    return [f"- {each}" for each in lines]


def _provenance(model):
    versions = {"dualgate": __version__, "python": platform.python_version()}
    versions |= {name: version(name) for name in LIBRARIES}
    shown = model.__repr__(N_CHAR_MAX=20_000).replace("`", "'")
    lines = ["Versions that wrote this card:", "", *_table(["library", "version"], list(versions.items()))]
    return [*lines, "", "Parameters other than the defaults:", "", "```python", shown, "```"]


def _table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(map(as_text, line))} |" for line in lines]
