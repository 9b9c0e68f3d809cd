"""Displays that compare methods: bars by SNR bin, gains, the Bayes limit, predicted against true."""

import numpy as np

from dualgate.evaluation._drawing import MARKERS, draw_density, interval_reach, make_axes, snr_axis, with_unit
from dualgate.evaluation.diagnostics import SNR_NAMES
from dualgate.evaluation.plots import R2BySNRDisplay
from dualgate.evaluation.scores import bootstrap_scores, row_slices

LABELS = {"r2": "R²", "mae": "mean |error|", "rmse": "RMSE", "bias": "bias"}


class SNRBarsDisplay:
    """A score of several methods within the four SNR bins, as groups of bars with intervals.

    Parameters
    ----------
    names : sequence of str, length n_methods
        Names of the methods.
    values : array-like of shape (n_methods, 4), [unit of the score]
        Score of every method within bins X, L, M and H; NaN leaves a gap.
    low, high : array-like of shape (n_methods, 4), default=None
        Ends of the intervals; None or NaN draws none.
    label : str, default="R² within the bin"
        What the score is, with its unit.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    bars_ : list of matplotlib BarContainer, one a method

    Examples
    --------
    >>> SNRBarsDisplay(["ridge"], [[0.1, 0.3, 0.5, 0.7]]).names
    ['ridge']
    """

    def __init__(self, names, values, low=None, high=None, *, label="R² within the bin"):
        self.names = names
        self.values = values
        self.low = low
        self.high = high
        self.label = label

    @classmethod
    def from_predictions(
        cls, y_true, predictions, snr, *, score="r2", unit=None, n_resamples=1000, random_state=None, ax=None
    ):
        """Score predictions within the SNR bins and draw them with 95 % bootstrap intervals.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,), [unit of y]
            Observed targets.
        predictions : dict of str to array-like of shape (n_samples,), [unit of y]
            Prediction of every method.
        snr : array-like of shape (n_samples,), [dimensionless]
            Signal-to-noise ratio of every row.
        score : {"r2", "mae", "rmse", "bias"}, default="r2"
            Which score.
        unit : str, default=None
            Unit of y, such as "dex", for scores that have one.
        n_resamples : int, default=1000
            Bootstrap resamples.
        random_state : int, SeedSequence or Generator, default=None
            Passed to :func:`numpy.random.default_rng`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SNRBarsDisplay
        """
        slices = row_slices(len(y_true), snr=snr)
        table = bootstrap_scores(y_true, predictions, slices, n_resamples=n_resamples, random_state=random_state)
        found = [[table.interval(score, name, bin_) for bin_ in SNR_NAMES] for name in predictions]
        ends = ([[getattr(each, end) for each in row] for row in found] for end in ("value", "low", "high"))
        label = with_unit(f"{LABELS[score]} within the bin", None if score == "r2" else unit)
        return cls(list(predictions), *ends, label=label).plot(ax=ax)

    def plot(self, ax=None):
        """Draw one group of bars for every bin, from the noisiest to the clearest.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : SNRBarsDisplay
        """
        self.ax_ = make_axes(ax)
        self.figure_ = self.ax_.figure
        values = np.asarray(self.values, dtype=float)
        low = values if self.low is None else np.asarray(self.low, dtype=float)
        high = values if self.high is None else np.asarray(self.high, dtype=float)
        width = 0.8 / len(values)
        bins = np.arange(len(SNR_NAMES))
        self.bars_ = [
            self.ax_.bar(
                bins + width * (index - (len(values) - 1) / 2), values[index], width=0.92 * width, label=name,
                yerr=interval_reach(values[index], low[index], high[index]),
                error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "0.25"},
            )
            for index, name in enumerate(self.names)
        ]  # fmt: skip
        self.ax_.axhline(0, color="0.3", linewidth=0.8)
        self.ax_.set_axisbelow(True)
        snr_axis(self.ax_)
        self.ax_.set(ylabel=self.label)
        return self


class GainDisplay:
    """Gains over one reference, such as an ablation: dots with intervals and a line at zero.

    Dots are filled where the interval excludes zero, open where it does not.

    Parameters
    ----------
    names : sequence of str, length n_variants
        Names from top to bottom.
    gain : array-like of shape (n_variants,), [unit of the score]
        Gain of every variant over the reference.
    low, high : array-like of shape (n_variants,), [unit of the score]
        Ends of its interval; NaN draws none.
    label : str, default="ΔR²"
        What the gain is, and over which reference.
    wanted : float, default=None
        A gain worth having, drawn as a dotted line; None draws none.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    errorbars_ : list of matplotlib ErrorbarContainer, those shown to differ from zero, then the others

    Examples
    --------
    >>> GainDisplay(["without windows"], [-0.02], [-0.03], [-0.01]).names
    ['without windows']
    """

    def __init__(self, names, gain, low, high, *, label="ΔR²", wanted=None):
        self.names = names
        self.gain = gain
        self.low = low
        self.high = high
        self.label = label
        self.wanted = wanted

    @classmethod
    def from_predictions(cls, y_true, predictions, reference, *, n_resamples=1000, random_state=None, ax=None):
        """Draw the gain of R^2 of every prediction over one of them, with 95 % paired bootstrap intervals.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,), [unit of y]
            Observed targets.
        predictions : dict of str to array-like of shape (n_samples,), [unit of y]
            Prediction of every variant and of the reference.
        reference : str
            Which of them the others are compared with.
        n_resamples : int, default=1000
            Bootstrap resamples.
        random_state : int, SeedSequence or Generator, default=None
            Passed to :func:`numpy.random.default_rng`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : GainDisplay
        """
        table = bootstrap_scores(y_true, predictions, n_resamples=n_resamples, random_state=random_state)
        names = [name for name in predictions if name != reference]
        found = [table.interval("r2", name, reference=reference) for name in names]
        ends = ([getattr(each, end) for each in found] for end in ("value", "low", "high"))
        return cls(names, *ends, label=f"ΔR² over {reference}").plot(ax=ax)

    def plot(self, ax=None):
        """Draw one dot and one interval for every variant.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : GainDisplay
        """
        self.ax_ = make_axes(ax)
        self.figure_ = self.ax_.figure
        gain, low, high = (np.asarray(values, dtype=float) for values in (self.gain, self.low, self.high))
        shown, lines = (low > 0) | (high < 0), np.arange(len(gain))
        self.ax_.axvline(0, color="0.3", linewidth=1)
        if self.wanted is not None:
            self.ax_.axvline(self.wanted, color="0.5", linestyle=":", linewidth=1, label=f"wanted {self.wanted:+g}")
        self.errorbars_ = [
            self.ax_.errorbar(
                gain[of], lines[of], xerr=interval_reach(gain, low, high)[:, of], fmt="o", color="C0", markersize=6,
                markerfacecolor=face, capsize=2, label=label if of.any() else None,
            )
            for of, face, label in [
                (shown, "C0", "interval excludes zero"),
                (~shown, self.ax_.get_facecolor(), "interval holds zero"),
            ]
        ]  # fmt: skip
        self.ax_.set_yticks(lines, self.names)
        self.ax_.set_ylim(len(lines) - 0.5, -0.5)
        self.ax_.grid(axis="x", alpha=0.3)
        self.ax_.set(xlabel=self.label)
        return self


class BayesLimitDisplay:
    """R^2 within the SNR bins beside what any method could reach.

    Parameters
    ----------
    names, r2, low, high
        As in :class:`R2BySNRDisplay`.
    limit : array-like of shape (4,), [dimensionless]
        R^2 of the best possible prediction within bins X, L, M and H.
    limit_low, limit_high : array-like of shape (4,), default=None
        Ends of its interval, drawn as a band; None draws none.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    methods_ : R2BySNRDisplay
    limit_ : matplotlib LineCollection, one line a bin

    Examples
    --------
    >>> BayesLimitDisplay(["ridge"], [[0.1, 0.3, 0.5, 0.7]], limit=[0.3, 0.5, 0.8, 0.9]).limit
    [0.3, 0.5, 0.8, 0.9]
    """

    def __init__(self, names, r2, low=None, high=None, *, limit, limit_low=None, limit_high=None):
        self.names = names
        self.r2 = r2
        self.low = low
        self.high = high
        self.limit = limit
        self.limit_low = limit_low
        self.limit_high = limit_high

    def plot(self, ax=None):
        """Draw the methods' dots, and the limit as a step over every bin.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : BayesLimitDisplay
        """
        self.methods_ = R2BySNRDisplay(self.names, self.r2, self.low, self.high).plot(ax)
        self.ax_, self.figure_ = self.methods_.ax_, self.methods_.figure_
        starts = np.arange(len(SNR_NAMES)) - 0.45
        self.limit_ = self.ax_.hlines(
            self.limit, starts, starts + 0.9, color="0.3", linewidth=2, linestyle=(0, (3, 1)), label="Bayes limit"
        )
        if self.limit_low is not None and self.limit_high is not None:
            depth = np.subtract(self.limit_high, self.limit_low)
            self.ax_.bar(starts, depth, 0.9, self.limit_low, align="edge", color="0.5", alpha=0.25, linewidth=0)
        self.ax_.set_xlim(-0.55, len(SNR_NAMES) - 0.45)
        return self


class PredictionDisplay:
    """Predicted against true targets, as the density of many rows.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,), [unit of y]
        Observed and predicted targets.
    name : str, default="y"
        What the target is.
    unit : str, default=None
        Its unit, such as "dex".

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    hexagons_ : matplotlib PolyCollection, rows in every hexagon, in a logarithmic scale of colour
    median_ : matplotlib Line2D, median prediction in 15 groups of equally many rows
    band_ : list of two matplotlib Line2D, 16th and 84th percentile of the predictions in the same groups

    Examples
    --------
    >>> PredictionDisplay([1.0, 2.0], [1.1, 1.9], name="log g", unit="dex").name
    'log g'
    """

    def __init__(self, y_true, y_pred, *, name="y", unit=None):
        self.y_true = y_true
        self.y_pred = y_pred
        self.name = name
        self.unit = unit

    def plot(self, ax=None, *, hexbin_kwargs=None):
        """Draw the density, the line of equality and the running median with its band.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        hexbin_kwargs : dict, default=None
            Style of the density, passed to :meth:`~matplotlib.axes.Axes.hexbin`.

        Returns
        -------
        self : PredictionDisplay
        """
        self.ax_ = make_axes(ax)
        self.figure_ = self.ax_.figure
        true, guess = np.asarray(self.y_true, dtype=float), np.asarray(self.y_pred, dtype=float)
        self.hexagons_ = draw_density(self.ax_, true, guess, **{"gridsize": 45, **(hexbin_kwargs or {})})
        ends = [min(true.min(), guess.min()), max(true.max(), guess.max())]
        self.ax_.plot(ends, ends, color="0.2", linestyle="--", linewidth=1, label="equal")
        groups = [part for part in np.array_split(np.argsort(true), 15) if len(part)]
        low, middle, high = np.array([np.quantile(guess[part], [0.16, 0.5, 0.84]) for part in groups]).T
        centres = [np.median(true[part]) for part in groups]
        style = {"color": "C1", "linewidth": 1.2}
        (self.median_,) = self.ax_.plot(centres, middle, marker=MARKERS[0], markersize=4, label="median", **style)
        self.band_ = self.ax_.plot(centres, np.stack([low, high], 1), linestyle=":", **style)
        self.band_[0].set_label("16 and 84 %")
        self.ax_.set(
            xlabel=with_unit(f"true {self.name}", self.unit), ylabel=with_unit(f"predicted {self.name}", self.unit)
        )
        return self
