"""Single against dual towers by cross-validation, on rows that all of them share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils.validation import check_consistent_length

from dualgate._validation import check_target
from dualgate.gating import FUSIONS
from dualgate.mixture import DualTowerMoERegressor
from dualgate.rows import as_source
from dualgate.selection.rule import OneStandardError

# what may differ between mixtures that read rows alike, beside dropped towers, fusion and training
_EXPERTS_AFTER_READING = frozenset(f"experts__{name}" for name in ("quality_edges", "sharing", "alphas", "clip", "cv"))
_WORDS = {"phys": "physics", "quality": "quality"}
_HEADS = {"": "logit_add", " (hidden layer)": "concat"}  # what a fusion leaves to a tower that speaks alone


@dataclass(frozen=True, eq=False, repr=False)
class TowerSelection:
    """What `select_towers` found; it prints as its table.

    Parameters
    ----------
    table : DataFrame
        One row for each candidate, by name: ``level``, 0 for the simplest; ``mean`` score and its ``standard_error``
        over splits; how far it is ``behind`` the best, the ``margin`` of one standard error, whether it is ``within``.
    split_scores : ndarray of shape (n_candidates, n_splits)
    best, chosen : str
        Names of the candidate with the highest mean, and of the simplest within one standard error of it.
    parameters : dict
        Of the chosen one, for `set_params` of the model that was given.
    best_estimator_ : DualTowerMoERegressor
        The chosen one, fitted to all rows.
    """

    table: pd.DataFrame
    split_scores: np.ndarray
    best: str
    chosen: str
    parameters: dict
    best_estimator_: DualTowerMoERegressor

    def __repr__(self):
        lines = self.table.to_string(float_format="{:.4f}".format)
        if self.chosen == self.best:
            return f"{lines}\nChosen: {self.chosen}, the best; nothing simpler is within one standard error of it."
        return f"{lines}\nChosen: {self.chosen}, the simplest within one standard error of the best, {self.best}."


def tower_candidates(model: DualTowerMoERegressor) -> list[dict[str, dict]]:
    """List single and dual towers from simplest to most complex, for `select_towers`.

    Parameters
    ----------
    model : DualTowerMoERegressor
        What is common to all; a tower that it drops stays out.

    Returns
    -------
    levels : list of dict of str to dict
        One tower, with and without the layer that `ConcatFusion` puts behind it, then both with each fusion, over one
        expert for each regime; the same over one for each regime and quality bin, where the model has bins. Each level
        maps names to parameters for `set_params`.

    Examples
    --------
    >>> for level in tower_candidates(DualTowerMoERegressor()):
    ...     print(", ".join(level))
    physics tower, physics tower (hidden layer), quality tower, quality tower (hidden layer)
    both towers (concat), both towers (logit_add), both towers (poe), both towers (temperature)
    """
    others = {"phys": "quality_gate", "quality": "phys_gate"}
    towers = [tower for tower in others if getattr(model, f"{tower}_gate") != "drop"]
    singles = {
        f"{_WORDS[tower]} tower{words}": {others[tower]: "drop", "fusion": fusion}
        for tower in towers
        for words, fusion in _HEADS.items()
    }
    duals = {f"both towers ({fusion})": {"fusion": fusion} for fusion in sorted(FUSIONS)} if len(towers) == 2 else {}
    plain = [level for level in (singles, duals) if level]
    edges = model.make_experts().quality_edges
    if edges is None:
        return plain
    without = [
        {name: {**changes, "experts__quality_edges": None} for name, changes in level.items()} for level in plain
    ]
    return without + [
        {f"{name}, quality bins": {**changes, "experts__quality_edges": edges} for name, changes in level.items()}
        for level in plain
    ]


def select_towers(
    model: DualTowerMoERegressor,
    X,
    y,
    *,
    regimes=None,
    candidates: Sequence[Mapping[str, Mapping]] | None = None,
    cv=5,
    scoring=None,
    paired: bool = True,
    n_jobs: int | None = None,
) -> TowerSelection:
    """Choose the simplest configuration of a mixture within one standard error of the best, by cross-validation.

    All candidates see the same folds. Where they differ in dropped towers, fusion, quality bins, sharing, penalties
    and training alone, as the default ones do, the rows of a fold are read once for all of them, with components
    found in its training rows; otherwise every fit reads for itself, and ``memory`` of the model keeps what repeats.

    Parameters
    ----------
    model : DualTowerMoERegressor
        What is common to all candidates; it is not fitted itself.
    X : array-like or RowSource of shape (n_samples, n_features)
    y : array-like of shape (n_samples,)
        Targets.
    regimes : None or array-like of shape (n_samples,) or (n_samples, n_conditions)
        As in `DualTowerMoERegressor.fit`; divided with the rows.
    candidates : None or sequence of mappings
        Levels from simplest to most complex, each of which maps the names of equally complex candidates to parameters
        for `set_params`. None is `tower_candidates(model)`.
    cv : int, splitter or iterable of (train, test)
        As in scikit-learn. An integer makes folds of neighbouring rows: give ``KFold(5, shuffle=True)`` for rows that
        are sorted by anything.
    scoring : None, str or callable
        As in scikit-learn, one score; None is R^2.
    paired : bool
        As in `OneStandardError`.
    n_jobs : None or int
        Folds at once; the candidates of a fold follow one another.

    Returns
    -------
    selection : TowerSelection
        With the chosen mixture fitted to all rows.

    Raises
    ------
    ValueError
        If `candidates` is empty or not as described, or a candidate has parameters that the model lacks.
    TypeError
        If `model` is no DualTowerMoERegressor.

    See Also
    --------
    OneStandardError : The rule, and the same for any search of scikit-learn.

    Examples
    --------
    >>> from dualgate import PhysGate, QualityGate
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 3))  # where, how well measured, what
    >>> codes = 2 * (X[:, 0] > 0) + (X[:, 1] > 0)
    >>> y = np.array([1.0, -2.0, -1.0, 2.0])[codes] * X[:, 2]
    >>> model = DualTowerMoERegressor(PhysGate([0]), QualityGate([1], "passthrough"), max_epochs=10, random_state=0)
    >>> levels = [{"physics": {"quality_gate": "drop"}, "quality": {"phys_gate": "drop"}}, {"both": {}}]
    >>> select_towers(model, X, y, regimes=codes, candidates=levels, cv=3).chosen
    'both'
    """
    if not isinstance(model, DualTowerMoERegressor):
        raise TypeError(
            f"select_towers.model is a {type(model).__name__} and must be a DualTowerMoERegressor: for other "
            "estimators use GridSearchCV(..., refit=OneStandardError())."
        )
    names, levels, changes = _list_candidates(tower_candidates(model) if candidates is None else candidates)
    models = [clone(model).set_params(**each) for each in changes]
    target, rows = check_target(model, y), _as_rows(X)
    regimes = None if regimes is None else np.asarray(regimes)
    check_consistent_length(rows, target, *(() if regimes is None else (regimes,)))
    splits = list(check_cv(cv).split(np.empty((len(target), 0)), target))
    alike = len(models) > 1 and all(_reads_alike(*each) for change in changes for each in change.items())
    scores = Parallel(n_jobs=n_jobs)(
        delayed(_score_split)(model if alike else None, models, rows, target, regimes, split, scoring)
        for split in splits
    )
    split_scores = np.transpose(scores)
    ratio = float(np.mean([len(test) / len(train) for train, test in splits]))
    found = OneStandardError(paired=paired, test_ratio=ratio).compare(split_scores, levels)
    best, chosen = found.pop("best"), found.pop("chosen")
    table = pd.DataFrame({"level": levels, **found}, index=pd.Index(names, name="candidate"))
    fitted = models[chosen].fit(X, y, regimes=regimes)
    return TowerSelection(table, split_scores, names[best], names[chosen], changes[chosen], fitted)


def _list_candidates(candidates):
    """Names, levels and parameters of all candidates, checked."""
    candidates = [] if isinstance(candidates, Mapping) else list(candidates)
    known = [level for level in candidates if isinstance(level, Mapping) and level]
    names = [name for level in known for name in level]
    changes = [changes for level in known for changes in level.values()]
    mappings = all(isinstance(each, Mapping) for each in changes)
    if not known or len(known) < len(candidates) or not mappings or len(set(names)) < len(names):
        raise ValueError(
            "select_towers.candidates must be a sequence of levels, from simplest to most complex, each a mapping of "
            "names, all different, to parameters: [{'one tower': {'quality_gate': 'drop'}}, {'both': {}}]."
        )
    levels = [place for place, level in enumerate(known) for _ in level]
    return names, levels, [dict(each) for each in changes]


def _reads_alike(name, value):
    """Whether mixtures that differ in this parameter can share rows that were read once; see `ReducedRows`."""
    head, _, inside = name.partition("__")
    if head in ("phys_gate", "quality_gate"):
        return not inside and isinstance(value, str) and value == "drop"
    return name in _EXPERTS_AFTER_READING if head == "experts" else head not in ("memory", "n_jobs")


def _as_rows(X):
    """Return `X` as what rows can be taken from: a frame, a row source or an array."""
    source = as_source(X)
    return X if hasattr(X, "iloc") else np.asarray(X) if source is None else source


def _score_split(shared, models, rows, y, regimes, split, scoring):
    """Score of every model on a split; `shared` is the model whose reduction serves all, None where each has its own."""
    train, test = split
    known = None if regimes is None else regimes[train]
    learned, unseen = (rows.iloc[part] if hasattr(rows, "iloc") else rows[part] for part in (train, test))
    if shared is not None:
        codes = shared.known_codes(known, len(train))
        reduction = shared.make_reduction().fit(learned, y[train], regimes=codes)
        learned, unseen = reduction.read(learned, training=True), reduction.read(unseen)
    scores = []
    for model in models:
        fitted = clone(model).fit(learned, y[train], regimes=known)
        scores.append(check_scoring(fitted, scoring)(fitted, unseen, y[test]))
    return scores
