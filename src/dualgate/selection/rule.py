"""The one-standard-error rule: the simplest candidate that the best does not clearly beat."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count, takewhile

import numpy as np

from dualgate._validation import check_number


@dataclass(frozen=True)
class OneStandardError:
    r"""Choose the simplest candidate whose score is within one standard error of the best.

    Give it to a search in the place of the best mean score, ``GridSearchCV(..., refit=OneStandardError())``.

    With :math:`d` the best candidate's score less another's, split by split, that other one is within one standard
    error where the mean of :math:`d` is at most

    .. math:: \mathrm{SE} = \sqrt{\Big(\frac{1}{K} + \frac{n_{test}}{n_{train}}\Big)\, \mathrm{var}(d)} .

    Splits that are hard for all candidates cancel in :math:`d`. The second term is there because the training rows of
    the K splits overlap, so that their scores are not independent. The rule in its first form, ``paired=False``, takes
    the standard error of the best candidate's own mean, :math:`\sqrt{\mathrm{var}(s_{best}) / K}`, which grows with the
    differences between splits and then hides gains that every split shows.

    Of equally simple candidates within one standard error the one with the highest mean is chosen, of equal means the
    first. Candidates with a split whose score is not finite are left out.

    Parameters
    ----------
    by : None or callable, parameters -> complexity
        Smaller is simpler; anything that sorts. It receives a dictionary of parameters, an element of
        ``cv_results_["params"]``. None takes the candidates as listed from simplest to most complex.
    metric : str
        Name of the score, where the search has several; "score" where it has one. Greater is better.
    paired : bool
        Standard error of the difference to the best, or of the best alone.
    test_ratio : None or float
        Test rows per training row of a split, for ``paired=True``. None takes the splits for the folds of one division,
        1 / (n_splits - 1).

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
        scores, rank = np.asarray(scores, dtype=float), _ranks(complexity)
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
        chosen = _first(within, rank, -mean)
        return {
            "best": best,
            "chosen": chosen,
            "mean": mean,
            "standard_error": error,
            "behind": behind,
            "margin": margin,
            "within": within,
        }


def _ranks(complexity):
    """Rank of every candidate by its complexity, 0 for the simplest; equal ones share a rank."""
    ordered = sorted(set(complexity))
    return np.array([ordered.index(each) for each in complexity])


def _first(allowed, *keys):
    """Place of the candidate that comes first by these keys, the first of them foremost, among those allowed."""
    places = np.flatnonzero(allowed)
    return int(places[np.lexsort([key[places] for key in reversed(keys)])[0]])
