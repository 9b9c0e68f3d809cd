"""Which configuration to use: the simplest within one standard error of the best, for any search and for towers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils.validation import check_consistent_length

from dualgate._validation import check_number, check_target
from dualgate.gating import FUSIONS
from dualgate.mixture import DualTowerMoERegressor
from dualgate.rows import as_source

# parameters of the experts in which mixtures that share rows read once may differ, like dropped towers and training
_EXPERTS_AFTER_READING = frozenset(f"experts__{name}" for name in ("quality_edges", "sharing", "alphas", "clip", "cv"))


@dataclass(frozen=True)
class OneStandardError:
    r"""Choose the simplest candidate whose score is within one standard error of the best.

    It replaces the highest mean score in a search, ``GridSearchCV(..., refit=OneStandardError())``.

    With :math:`d` the best candidate's score less another's, split by split, that other one is within one standard
    error where the mean of :math:`d` is at most

    .. math:: \mathrm{SE} = \sqrt{\Big(\frac{1}{K} + \frac{n_{test}}{n_{train}}\Big)\, \mathrm{var}(d)} .

    Splits that are hard for all candidates cancel in :math:`d`. The second term accounts for the training rows of the K
    splits, which overlap, so that their scores are not independent. The rule of Breiman et al., ``paired=False``, takes
    the standard error of the best candidate's own mean, :math:`\sqrt{\mathrm{var}(s_{best}) / K}`, which grows with the
    differences between splits and then hides gains that every split shows.

    Of equally simple candidates within one standard error the one with the highest mean is chosen, of equal means the
    first. Candidates with a split whose score is not finite are left out.

    Parameters
    ----------
    by : None or callable, parameters -> complexity, default=None
        Smaller is simpler; anything that sorts. It receives a dictionary of parameters, an element of
        ``cv_results_["params"]``. None takes the candidates as listed from simplest to most complex.
    metric : str, default="score"
        Name of the score, where the search has several. Greater is better.
    paired : bool, default=True
        Standard error of the difference to the best, or of the best alone.
    test_ratio : None or float, default=None
        Test rows per training row of a split, for ``paired=True``. None is 1 / (n_splits - 1), that of the folds of one
        division.

    See Also
    --------
    select_towers : The same for the towers of one mixture, on rows that all candidates share.

    References
    ----------
    Breiman, Friedman, Olshen & Stone 1984, Classification and Regression Trees, Wadsworth, section 3.4.3 (the rule).
    Nadeau & Bengio 2003, Machine Learning 52, 239 (the variance of cross-validation with overlapping training rows).

    Examples
    --------
    >>> results = {
    ...     "params": [{"degree": 2}, {"degree": 1}],
    ...     "split0_test_score": [0.80, 0.79],
    ...     "split1_test_score": [0.60, 0.62],
    ...     "split2_test_score": [0.72, 0.70],
    ... }
    >>> OneStandardError(lambda parameters: parameters["degree"])(results)
    1
    """

    by: Callable | None = None
    metric: str = "score"
    paired: bool = True
    test_ratio: float | None = None

    def __call__(self, results: Mapping) -> int:
        """Return the row of ``cv_results_`` that is chosen.

        Parameters
        ----------
        results : mapping
            ``cv_results_`` of a search.

        Returns
        -------
        index : int

        Raises
        ------
        ValueError
            If there is no such metric, there are fewer than two splits, or no candidate has finite scores.
        """
        if self.by is not None and not callable(self.by):
            raise ValueError(
                f"OneStandardError.by={self.by!r} must be None or a callable that turns a candidate's parameters into "
                "its complexity, such as lambda parameters: parameters['max_depth']."
            )
        keys = list(takewhile(results.__contains__, (f"split{split}_test_{self.metric}" for split in count())))
        if not keys:
            first = "split0_test_"
            known = sorted(key.removeprefix(first) for key in results if key.startswith(first))
            raise ValueError(
                f"OneStandardError.metric={self.metric!r} must be a score of the search, which has "
                f"{', '.join(map(repr, known)) or 'none'}."
            )
        scores = np.column_stack([results[key] for key in keys])
        complexity = range(len(scores)) if self.by is None else [self.by(each) for each in results["params"]]
        return self.compare(scores, complexity)["chosen"]

    def compare(self, scores, complexity) -> dict:
        """Compare candidates by their scores on the same splits.

        Parameters
        ----------
        scores : array-like of shape (n_candidates, n_splits)
            Greater is better.
        complexity : sequence of length n_candidates
            Smaller is simpler; anything that sorts.

        Returns
        -------
        comparison : dict
            ``best`` and ``chosen``, int; arrays of shape (n_candidates,), NaN or False for candidates that were left
            out: ``mean``, ``standard_error`` of that mean, ``behind``, the mean less that of the best and positive
            where it is worse, the ``margin`` that is allowed, and whether a candidate is ``within`` it.

        Raises
        ------
        ValueError
            If there are fewer than two splits, or no candidate has finite scores.
        """
        simplest_first = sorted(set(complexity))
        scores, rank = np.asarray(scores, dtype=float), np.array([simplest_first.index(each) for each in complexity])
        finite = np.isfinite(scores).all(axis=1)
        n_splits = scores.shape[1]
        if n_splits < 2 or not finite.any():
            found = f"{n_splits} split{'s' if n_splits != 1 else ''}, {finite.sum()} candidates with finite scores"
            raise ValueError(
                f"OneStandardError: {found}; there must be at least 2 splits and one such candidate. Give cv more "
                "folds, and look at error_score='raise' where fits fail."
            )
        scores = np.where(finite[:, None], scores, np.nan)
        mean, error = scores.mean(axis=1), scores.std(axis=1, ddof=1) / np.sqrt(n_splits)
        best = _first(finite, -mean, rank)
        difference = scores[best] - scores
        behind = difference.mean(axis=1)
        margin = np.where(finite, error[best], np.nan)
        if self.paired:
            ratio = 1 / (n_splits - 1) if self.test_ratio is None else self.test_ratio
            check_number(self, "test_ratio", ratio, low=0)
            margin = difference.std(axis=1, ddof=1) * np.sqrt(1 / n_splits + ratio)
        within = behind <= margin
        arrays = {"mean": mean, "standard_error": error, "behind": behind, "margin": margin, "within": within}
        return {"best": best, "chosen": _first(within, rank, -mean), **arrays}


def _first(allowed, *keys):
    """Place of the first candidate among those allowed, sorted by these keys, the first of which counts most."""
    places = np.flatnonzero(allowed)
    return int(places[np.lexsort([key[places] for key in reversed(keys)])[0]])


@dataclass(frozen=True, eq=False, repr=False)
class TowerSelection:
    """Result of `select_towers`; it prints as its table.

    Parameters
    ----------
    table : DataFrame
        One row for each candidate, by name: ``level``, 0 for the simplest; ``mean`` score and its ``standard_error``
        over splits; how far it is ``behind`` the best, the ``margin`` of one standard error, whether it is ``within``.
    split_scores : ndarray of shape (n_candidates, n_splits)
    best, chosen : str
        Names of the candidate with the highest mean, and of the simplest within one standard error of it.
    best_estimator_ : DualTowerMoERegressor
        The chosen candidate, fitted to all rows.
    """

    table: pd.DataFrame
    split_scores: np.ndarray
    best: str
    chosen: str
    best_estimator_: DualTowerMoERegressor

    def __repr__(self):
        lines = self.table.to_string(float_format="{:.4f}".format)
        if self.chosen == self.best:
            return f"{lines}\nChosen: {self.chosen}, the best; nothing simpler is within one standard error of it."
        return f"{lines}\nChosen: {self.chosen}, the simplest within one standard error of the best, {self.best}."


def tower_levels(model):
    """Parameters of the default candidates by name, in levels from simplest to most complex, without dropped towers."""
    gates = {"physics tower": "phys_gate", "quality tower": "quality_gate"}
    kept = [tower for tower, gate in gates.items() if getattr(model, gate) != "drop"]
    singles = {}
    for tower in kept:
        dropped = {gate: "drop" for other, gate in gates.items() if other != tower}
        singles[tower] = {**dropped, "fusion": "logit_add"}
        singles[f"{tower} (hidden layer)"] = {**dropped, "fusion": "concat"}
    levels = [singles]
    if len(kept) == 2:
        levels.append({f"both towers ({fusion})": {"fusion": fusion} for fusion in sorted(FUSIONS)})
    edges = model.make_experts().quality_edges
    if edges is None:
        return levels
    return [
        {name + words: {**changes, "experts__quality_edges": value} for name, changes in level.items()}
        for words, value in (("", None), (", quality bins", edges))
        for level in levels
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
    n_jobs: int | None = None,
) -> TowerSelection:
    """Choose the simplest configuration of a mixture within one standard error of the best, by cross-validation.

    All candidates are fitted to the same folds. Where they differ only in dropped towers, fusion, quality bins,
    sharing, penalties and training, as the default ones do, the rows of a fold are reduced once for all of them, by a
    projection fitted to its training rows. Otherwise every fit reads X itself, and ``memory`` of the model keeps what
    repeats.

    Parameters
    ----------
    model : DualTowerMoERegressor
        What is common to all candidates; it is not fitted.
    X : array-like or RowSource of shape (n_samples, n_features)
    y : array-like of shape (n_samples,)
        Targets.
    regimes : None or array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
        As in `DualTowerMoERegressor.fit`; divided with the rows.
    candidates : None or sequence of mappings, default=None
        Levels from simplest to most complex, each of which maps the names of equally complex candidates to parameters
        for `set_params`. None is one tower, with and without the hidden layer of `ConcatFusion`, then both with each
        fusion, all over one expert for each regime; where the model has quality bins, then the same over one expert for
        each regime and bin.
    cv : int, splitter or iterable of (train, test), default=5
        As in scikit-learn. An integer makes folds of neighbouring rows: give ``KFold(5, shuffle=True)`` for rows that
        are sorted by anything.
    scoring : None, str or callable, default=None
        As in scikit-learn, one score; None is R^2.
    n_jobs : None or int, default=None
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
        If `model` is not a DualTowerMoERegressor.

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
    >>> select_towers(model, X, y, regimes=codes, candidates=levels, cv=3).chosen  # discriminants tell enough
    'physics'
    """
    if not isinstance(model, DualTowerMoERegressor):
        raise TypeError(
            f"select_towers.model is a {type(model).__name__} and must be a DualTowerMoERegressor: for other "
            "estimators use GridSearchCV(..., refit=OneStandardError())."
        )
    names, levels, changes = _list_candidates(tower_levels(model) if candidates is None else candidates)
    models = [clone(model).set_params(**each) for each in changes]
    target, source = check_target(model, y), as_source(X)
    rows = X if hasattr(X, "iloc") else np.asarray(X) if source is None else source
    regimes = None if regimes is None else np.asarray(regimes)
    check_consistent_length(rows, target, regimes)
    splits = list(check_cv(cv).split(np.empty((len(target), 0)), target))
    alike = len(models) > 1 and all(_reads_alike(*each) for change in changes for each in change.items())
    scores = Parallel(n_jobs=n_jobs)(
        delayed(_score_split)(model if alike else None, models, rows, target, regimes, split, scoring)
        for split in splits
    )
    split_scores = np.transpose(scores)
    ratio = float(np.mean([len(test) / len(train) for train, test in splits]))
    found = OneStandardError(test_ratio=ratio).compare(split_scores, levels)
    best, chosen = found.pop("best"), found.pop("chosen")
    table = pd.DataFrame({"level": levels, **found}, index=pd.Index(names, name="candidate"))
    fitted = models[chosen].fit(X, y, regimes=regimes)
    return TowerSelection(table, split_scores, names[best], names[chosen], fitted)


def _list_candidates(candidates):
    """Names, levels and parameters of all candidates, checked."""
    candidates = [] if isinstance(candidates, Mapping) else list(candidates)
    known = [level for level in candidates if isinstance(level, Mapping) and level]
    names = [name for level in known for name in level]
    changes = [change for level in known for change in level.values()]
    mappings = all(isinstance(each, Mapping) for each in changes)
    if not known or len(known) < len(candidates) or not mappings or len(set(names)) < len(names):
        raise ValueError(
            "select_towers.candidates must be a sequence of levels, from simplest to most complex, each a mapping of "
            "names, all different, to parameters: [{'one tower': {'quality_gate': 'drop'}}, {'both': {}}]."
        )
    return names, [place for place, level in enumerate(known) for _ in level], [dict(each) for each in changes]


def _reads_alike(name, value):
    """Whether mixtures that differ in this parameter can share rows that were read once; see `ReducedRows`."""
    head, _, inside = name.partition("__")
    if head in ("phys_gate", "quality_gate"):
        return not inside and isinstance(value, str) and value == "drop"
    return name in _EXPERTS_AFTER_READING if head == "experts" else head not in ("memory", "n_jobs")


def _score_split(shared, models, rows, y, regimes, split, scoring):
    """Score of every model on a split; the reduction of `shared` serves all of them, None gives each its own."""
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
