"""Displays: the constructor keeps arrays, `from_*` computes, `plot` draws and returns self."""

import numpy as np

from dualgate.evaluation._drawing import MARKERS, make_axes, plain_log_axis, snr_axis
from dualgate.evaluation.diagnostics import SNR_NAMES, snr_bins
from dualgate.evaluation.metrics import bin_members, gate_entropy
from dualgate.evaluation.resampling import bootstrap_r2, bootstrap_weights


class EntropyDisplay:
    """Gate entropy against signal-to-noise ratio: whether a gate is less sure of noisy rows.

    Parameters
    ----------
    snr : ndarray of shape (n_samples,), [dimensionless]
        Signal-to-noise ratio of every row.
    entropy : ndarray of shape (n_samples,), [nats]
        Gate entropy of every row.
    n_experts : int, default=None
        Number of experts; draws the entropy of equal weights, ln(n_experts), as a line. None draws none.
    name : str, default=None
        Name of the gate in the legend.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    scatter_ : matplotlib PathCollection, one point a row
    median_ : matplotlib Line2D, medians of ten groups of equally many rows

    Examples
    --------
    >>> display = EntropyDisplay(np.array([1.0, 5.0]), np.array([0.6, 0.1]), n_experts=2)
    >>> display.entropy.tolist()
    [0.6, 0.1]
    """

    def __init__(self, snr, entropy, *, n_experts=None, name=None):
        self.snr = snr
        self.entropy = entropy
        self.n_experts = n_experts
        self.name = name

    @classmethod
    def from_trace(cls, trace, snr, *, name=None, ax=None, scatter_kwargs=None):
        """Draw the entropy of `trace.weights` against `snr`.

        Parameters
        ----------
        trace : MixtureTrace
            Stages of one prediction, from :meth:`~dualgate.DualTowerMoERegressor.trace`.
        snr : array-like of shape (n_samples,), [dimensionless]
            Signal-to-noise ratio of the rows traced.
        name : str, default=None
            Name of the gate in the legend.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        scatter_kwargs : dict, default=None
            Style of the points, passed to :meth:`~matplotlib.axes.Axes.scatter`.

        Returns
        -------
        display : EntropyDisplay

        Raises
        ------
        ValueError
            If `snr` has not one value for every row of the trace.
        """
        snr = np.asarray(snr, dtype=float)
        if snr.shape != (len(trace.weights),):
            raise ValueError(
                f"EntropyDisplay.snr has shape {snr.shape} and must be ({len(trace.weights)},): one ratio "
                "for every row of the trace."
            )
        display = cls(snr, gate_entropy(trace.weights), n_experts=trace.weights.shape[1], name=name)
        return display.plot(ax=ax, scatter_kwargs=scatter_kwargs)

    def plot(self, ax=None, *, scatter_kwargs=None):
        """Draw points, their running median and the entropy of equal weights.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        scatter_kwargs : dict, default=None
            Style of the points, passed to :meth:`~matplotlib.axes.Axes.scatter`.

        Returns
        -------
        self : EntropyDisplay
        """
        self.ax_ = make_axes(ax)
        self.figure_ = self.ax_.figure
        style = {"s": 4, "alpha": 0.25, "linewidths": 0, **(scatter_kwargs or {})}
        self.scatter_ = self.ax_.scatter(self.snr, self.entropy, **style)
        groups = [part for part in np.array_split(np.argsort(self.snr), 10) if len(part)]
        centres = [np.median(self.snr[part]) for part in groups]
        medians = [np.median(self.entropy[part]) for part in groups]
        colour = self.scatter_.get_facecolor()[0, :3]
        (self.median_,) = self.ax_.plot(
            centres, medians, color=colour, marker="o", markersize=4, linewidth=1.5, label=self.name
        )
        if self.n_experts is not None:
            limit = np.log(self.n_experts)
            self.ax_.axhline(limit, color=colour, linestyle=":", linewidth=1)
            self.ax_.annotate(
                f"equal weights, ln {self.n_experts}", (1, limit), (-3, 2), fontsize="small", color=colour,
                xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", va="bottom",
            )  # fmt: skip
        self.ax_.set(xlabel="SNR = ||flux|| / ||error||", ylabel="gate entropy [nats]", xscale="log")
        plain_log_axis(self.ax_.xaxis)
        return self


class R2ByMethodDisplay:
    """R^2 of several methods on the same rows: dots with intervals, one method a line.

    Parameters
    ----------
    names : sequence of str, length n_methods
        Names from top to bottom.
    r2 : array-like of shape (n_methods,), [dimensionless]
        R^2 of every method.
    low, high : array-like of shape (n_methods,), [dimensionless]
        Ends of its interval; NaN draws none.
    groups : sequence of str, length n_methods, default=None
        Kind of every method; one colour and one legend entry each. None draws all alike.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    errorbars_ : list of matplotlib ErrorbarContainer, one a group

    Examples
    --------
    >>> R2ByMethodDisplay(["ridge", "mixture"], [0.3, 0.5], [0.2, 0.4], [0.4, 0.6]).names
    ['ridge', 'mixture']
    """

    def __init__(self, names, r2, low, high, *, groups=None):
        self.names = names
        self.r2 = r2
        self.low = low
        self.high = high
        self.groups = groups

    @classmethod
    def from_predictions(cls, y_true, predictions, *, n_resamples=1000, confidence=0.95, random_state=None, ax=None):
        """Score predictions and draw them with bootstrap intervals over rows.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,), [unit of y]
            Observed targets.
        predictions : dict of str to array-like of shape (n_samples,), [unit of y]
            Prediction of every method.
        n_resamples : int, default=1000
            Bootstrap resamples, the same for every method.
        confidence : float, default=0.95
            Coverage of the percentile intervals.
        random_state : int, SeedSequence or Generator, default=None
            Passed to :func:`numpy.random.default_rng`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : R2ByMethodDisplay
        """
        guesses, n_samples = list(predictions.values()), len(y_true)
        (r2,) = bootstrap_r2(y_true, guesses, np.ones((1, n_samples)))
        weights = bootstrap_weights(n_samples, n_resamples=n_resamples, random_state=random_state)
        tail = (1 - confidence) / 2
        low, high = np.quantile(bootstrap_r2(y_true, guesses, weights), [tail, 1 - tail], axis=0)
        return cls(list(predictions), r2, low, high).plot(ax=ax)

    def plot(self, ax=None):
        """Draw one dot and one interval for every method.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : R2ByMethodDisplay
        """
        self.ax_ = make_axes(ax)
        self.figure_ = self.ax_.figure
        r2, low, high = (np.asarray(values, dtype=float) for values in (self.r2, self.low, self.high))
        groups = np.asarray(self.groups if self.groups is not None else [""] * len(r2))
        lines = np.arange(len(r2))
        self.errorbars_ = []
        for marker, group in zip(MARKERS, dict.fromkeys(groups), strict=False):
            of = groups == group
            reach = [r2[of] - low[of], high[of] - r2[of]]
            style = {"fmt": marker, "markersize": 5, "capsize": 2, "label": group or None}
            self.errorbars_.append(self.ax_.errorbar(r2[of], lines[of], xerr=reach, **style))
        self.ax_.set_yticks(lines, self.names)
        self.ax_.invert_yaxis()
        self.ax_.grid(axis="x", alpha=0.3)
        self.ax_.set(xlabel="R²")
        return self


class R2BySNRDisplay:
    """R^2 within the four SNR bins for several methods: where quality helps.

    Parameters
    ----------
    names : sequence of str, length n_methods
        Names of the methods.
    r2 : array-like of shape (n_methods, 4), [dimensionless]
        R^2 of every method within bins X, L, M and H.
    low, high : array-like of shape (n_methods, 4), default=None
        Ends of the intervals; None or NaN draws none.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    errorbars_ : list of matplotlib ErrorbarContainer, one a method

    Examples
    --------
    >>> R2BySNRDisplay(["ridge"], [[0.1, 0.3, 0.5, 0.7]]).names
    ['ridge']
    """

    def __init__(self, names, r2, low=None, high=None):
        self.names = names
        self.r2 = r2
        self.low = low
        self.high = high

    @classmethod
    def from_predictions(cls, y_true, predictions, snr, *, ax=None):
        """Score predictions within the SNR bins and draw them.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,), [unit of y]
            Observed targets.
        predictions : dict of str to array-like of shape (n_samples,), [unit of y]
            Prediction of every method.
        snr : array-like of shape (n_samples,), [dimensionless]
            Signal-to-noise ratio of every row.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : R2BySNRDisplay
        """
        members = bin_members(snr_bins(snr), len(y_true), len(SNR_NAMES))
        return cls(list(predictions), bootstrap_r2(y_true, list(predictions.values()), members).T).plot(ax=ax)

    def plot(self, ax=None):
        """Draw one line of dots for every method, bins from the noisiest to the clearest.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : R2BySNRDisplay
        """
        self.ax_ = make_axes(ax)
        self.figure_ = self.ax_.figure
        r2 = np.asarray(self.r2, dtype=float)
        low = r2 if self.low is None else np.asarray(self.low, dtype=float)
        high = r2 if self.high is None else np.asarray(self.high, dtype=float)
        bins = np.arange(len(SNR_NAMES))
        shifts = 0.08 * (np.arange(len(r2)) - (len(r2) - 1) / 2)  # intervals side by side, not on top of each other
        self.errorbars_ = [
            self.ax_.errorbar(
                bins + shifts[index], r2[index], yerr=[r2[index] - low[index], high[index] - r2[index]],
                marker=MARKERS[index % len(MARKERS)], markersize=5, capsize=2, linewidth=1, label=name,
            )
            for index, name in enumerate(self.names)
        ]  # fmt: skip
        snr_axis(self.ax_)
        self.ax_.set(ylabel="R² within the bin")
        return self
