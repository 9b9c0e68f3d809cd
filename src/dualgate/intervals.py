"""Prediction intervals with a guarantee: conformal calibration of predictive densities within quality bins."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from dualgate._validation import check_number, owner_name

SHARES = (0.25, 0.5, 0.75, 0.95)  # quantiles of quality between bins: the few best rows are unlike all others
BIN_ROWS = 200  # calibration rows of a quality bin, at least
PRIOR_ROWS, LEAST_SHARE = 10, 1e-6  # rows of the typical variance that each includes, and the least, of that
CALIBRATION_ROWS = 20_000  # training rows whose cross-fitted densities calibrate, at most
ROUNDING = 1e-12  # relative, of a score: where a distribution is flat, the interval holds all that has the same score


class CoverageWarning(UserWarning):
    """Intervals are infinite: a quality bin has fewer calibration rows than the coverage needs.

    Or too many of them lie where their densities say that nothing can be. A smaller coverage or more training rows
    remove it.
    To silence it: `warnings.simplefilter("ignore", CoverageWarning)`.
    """


@dataclass(frozen=True, eq=False)
class IntervalScale:
    r"""How improbable the truth was under predictive densities, by quality bin.

    The score of a row is :math:`\min(F(y), 1 - F(y))` with its predictive distribution F, which sorts rows as the
    distance :math:`|F(y) - 1/2|` of distributional conformal prediction does (Chernozhukov, Wüthrich & Zhu 2021, PNAS
    118, e2107794118). It is compared with rows of the same quality bin only (Mondrian: Vovk, Gammerman & Shafer 2005).
    An interval of coverage c then holds the truth of a new row like these with a probability of c at least, in every
    bin and whatever the density is.

    Parameters
    ----------
    edges : ndarray
        Of the bins of quality.
    scores : list of ndarray of shape (n_rows of the bin, n_targets)
        Sorted, the most probable first.
    """

    edges: np.ndarray
    scores: list

    @classmethod
    def of(cls, density, y, quality=None):
        """Take scores from densities of rows that these did not see.

        Parameters
        ----------
        density : MixtureDensity
        y : ndarray of shape (n_rows,) or (n_rows, n_targets)
        quality : None or ndarray of shape (n_rows,), default=None
            Such as the signal-to-noise ratio; None is one bin.
        """
        scores = np.minimum(density.cdf(y), density.survival(y)).reshape(len(y), -1)
        quality = np.zeros(len(y)) if quality is None else quality
        room = BIN_ROWS / max(len(y), 1)
        shares = [share for share in SHARES if 1 - share >= room and SHARES[0] >= room]
        edges = np.unique(np.quantile(quality, shares)) if shares else np.empty(0)
        bins = np.digitize(quality, edges)
        return cls(edges, [np.sort(scores[bins == place], axis=0)[::-1] for place in range(len(edges) + 1)])

    def interval(self, owner, density, quality, coverage):
        """Interval of every row (n_rows, 2) or (n_rows, n_targets, 2).

        Parameters
        ----------
        owner : estimator
            For messages.
        density : MixtureDensity
        quality : None or ndarray of shape (n_rows,)
        coverage : float in (0, 1)
        """
        check_number(owner, "coverage", coverage)
        if not 0 < coverage < 1:
            raise ValueError(f"{owner_name(owner)}.predict_interval: coverage={coverage!r} must be between 0 and 1.")
        ranks = [int(np.ceil((len(scores) + 1) * coverage)) for scores in self.scores]
        short = np.array([rank > len(scores) for rank, scores in zip(ranks, self.scores, strict=True)])
        tails = [
            np.zeros(scores.shape[1]) if few else scores[rank - 1] * (1 - ROUNDING)
            for few, rank, scores in zip(short, ranks, self.scores, strict=True)
        ]
        bins = np.digitize(np.zeros(len(density)) if quality is None else quality, self.edges)
        tails = np.array(tails)[bins]
        if not tails.all():
            if short[bins].any():
                needed, fewest = int(np.ceil(coverage / (1 - coverage) - 1e-9)), min(map(len, self.scores))
                reason = f"coverage={coverage:g} needs {needed} calibration rows in every quality bin, one has {fewest}"
            else:
                reason = f"coverage={coverage:g} reaches training rows whose densities exclude their targets"
            warnings.warn(
                f"{owner_name(owner)}.predict_interval: {reason}: its intervals are infinite. Take a smaller coverage "
                "or more rows.",
                CoverageWarning,
                stacklevel=3,
            )
        ends = [density.quantile(tails, above=above).reshape(tails.shape) for above in (False, True)]
        found = np.stack(ends, axis=-1)
        return found[:, 0] if density.single else found


def residual_variances(log_weights, deviation, known, n_steps=10):
    """Find the variance of the residual of every expert by expectation-maximisation, weights and predictions fixed.

    Parameters
    ----------
    log_weights : ndarray of shape (n_rows, n_experts)
    deviation : ndarray of shape (n_rows, n_experts), [unit of y]
        Of the truth from the prediction of each expert.
    known : ndarray of shape (n_rows, n_experts), [unit of y, squared]
        Part of the variance that is known row by row.

    Returns
    -------
    variances : ndarray of shape (n_experts,), [unit of y, squared]
    """
    squares = deviation**2
    mean = (np.exp(log_weights) * squares).sum(axis=1).mean()
    variances = np.full(deviation.shape[1], max(mean, np.finfo(float).tiny))
    floor = LEAST_SHARE * variances[0]
    for _ in range(n_steps):
        total = variances + known
        share = softmax(log_weights - 0.5 * (squares / total + np.log(total)), axis=1)
        own = (share * (squares - known)).sum(axis=0) + PRIOR_ROWS * variances.mean()
        variances = np.maximum(own / (share.sum(axis=0) + PRIOR_ROWS), floor)
    return variances
