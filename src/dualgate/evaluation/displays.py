"""Displays: the constructor keeps what is drawn, `plot` draws it and returns the Display.

Titles state a finding and are the caller's: ``display.ax_.set_title(...)``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import cycle

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import entropy
from sklearn.isotonic import isotonic_regression

from dualgate.density import MixtureDensity
from dualgate.evaluation.densities import check_coverage, ends_of, pit_values
from dualgate.evaluation.scores import ALL_ROWS, check_finite, row_slices
from dualgate.evaluation.weights import trend
from dualgate.snr import SNR_EDGES, SNR_NAMES, SNR_RANGES, quality_bins

COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
MARKERS = "osD^vPX<>"
MARK_STYLES = ("--", ":", "-.")


class Display(ABC):
    """A picture of arrays; `ax_` and `figure_` are the matplotlib Axes and Figure of the last `plot`."""

    def plot(self, ax=None):
        """Draw the arrays and return self.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure with pyplot.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots(figsize=self._size(), layout="constrained")[1]
        self.ax_, self.figure_ = ax, ax.figure
        self._draw(ax)
        return self

    @abstractmethod
    def _draw(self, ax):
        """Draw into `ax`."""

    def _size(self):
        """Width and height of a new figure [inches]; None is matplotlib's default."""
        return None


@dataclass(eq=False, repr=False)
class IntervalDisplay(Display):
    """Values of several methods with their intervals, one method a line: scores, or gains over a reference.

    Parameters
    ----------
    names : sequence of str, length n_methods
        Names from top to bottom.
    intervals : sequence of Interval, length n_methods, [unit of the score]
        Score or gain of every method, such as ``table.estimate("r2", name).interval()``; NaN ends draw none.
    groups : sequence of str, length n_methods, default=None
        Kind of every method; one colour, marker and legend entry each. None draws all alike.
    xlabel : str, default="R²"
        What the values are, with their unit.
    against : float, default=None
        A value such as 0, drawn as a line; dots are open where the interval includes it. None fills all dots.
    lines : dict of str to float, default=None
        Further values to mark with a line, by their name in the legend, such as ``{"Bayes limit": 0.63}``.

    Attributes
    ----------
    errorbars_ : list of matplotlib ErrorbarContainer, one for each group, or two: filled dots, then open ones
    """

    names: Sequence
    intervals: Sequence
    _: KW_ONLY
    groups: Sequence | None = None
    xlabel: str = "R²"
    against: float | None = None
    lines: Mapping | None = None

    def _draw(self, ax):
        values, reach = _bars(self.intervals)
        rows = np.arange(len(values))
        groups = np.asarray([""] * len(values) if self.groups is None else self.groups)
        shown = np.ones(len(values), dtype=bool)
        if self.against is not None:
            shown = np.array([each.low > self.against or each.high < self.against for each in self.intervals])
            ax.axvline(self.against, color=_ink(ax), linewidth=1)
        for (name, value), style in zip((self.lines or {}).items(), cycle(MARK_STYLES)):
            ax.axvline(value, color=_ink(ax, 0.75), linestyle=style, linewidth=1, label=name)
        self.errorbars_ = []
        for place, group in enumerate(dict.fromkeys(groups)):
            label = group or None
            for kind, face, verb in ((shown, f"C{place}", "excludes"), (~shown, ax.get_facecolor(), "includes")):
                of = kind & (groups == group)
                if not of.any():
                    continue
                if self.groups is None and self.against is not None:
                    label = f"interval {verb} {self.against:g}"
                self.errorbars_ += [ax.errorbar(
                    values[of], rows[of], xerr=reach[:, of], fmt=MARKERS[place % len(MARKERS)], color=f"C{place}",
                    markersize=5, markerfacecolor=face, capsize=2, label=label,
                )]  # fmt: skip
                label = None
        ax.set_yticks(rows, self.names)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.grid(axis="x", alpha=0.3)
        ax.set(xlabel=self.xlabel)


@dataclass(eq=False, repr=False)
class SNRDisplay(Display):
    """A score of several methods within the four SNR bins, as groups of bars, and the best that is possible there.

    Parameters
    ----------
    names : sequence of str, length n_methods
        Names of the methods.
    intervals : sequence of n_methods sequences of four Interval, [unit of the score]
        Score of every method within bins X, L, M and H, such as ``table.estimate("r2", name, "X").interval()``; NaN
        leaves a gap, NaN ends draw none.
    limit : sequence of four Interval, default=None, [unit of the score]
        The Bayes limit within the bins, drawn as a step with a band over every bin; NaN ends draw no band. None draws
        no limit.
    ylabel : str, default="R² within the bin"
        What the score is, with its unit.

    Attributes
    ----------
    bars_ : list of matplotlib BarContainer, one for each method
    limit_ : matplotlib LineCollection, one line for each bin; only with a limit
    """

    names: Sequence
    intervals: Sequence
    _: KW_ONLY
    limit: Sequence | None = None
    ylabel: str = "R² within the bin"

    def _draw(self, ax):
        width, bins = 0.8 / len(self.names), np.arange(len(SNR_NAMES))
        style = {"error_kw": {"elinewidth": 1, "capsize": 2, "ecolor": _ink(ax, 0.75)}, "width": 0.92 * width}
        self.bars_ = []
        for place, (name, intervals) in enumerate(zip(self.names, self.intervals, strict=True)):
            values, reach = _bars(intervals)
            middle = bins + width * (place - (len(self.names) - 1) / 2)
            self.bars_.append(ax.bar(middle, values, yerr=reach, label=name, **style))
        if self.limit is not None:
            level, (below, above) = _bars(self.limit)
            ends = bins - 0.45, bins + 0.45
            style = {"color": _ink(ax, 0.75), "linewidth": 2, "linestyle": (0, (3, 1))}
            self.limit_ = ax.hlines(level, *ends, label="Bayes limit", **style)
            style = {"color": _ink(ax, 0.15), "linewidth": 0, "zorder": 0}
            ax.bar(ends[0], below + above, 0.9, level - below, align="edge", **style)
        ax.axhline(0, color=_ink(ax), linewidth=0.8)
        ax.set_axisbelow(True)
        ax.set_xticks(bins, [f"{name}\n{limits}" for name, limits in zip(SNR_NAMES, SNR_RANGES, strict=True)])
        ax.grid(axis="y", alpha=0.3)
        ax.set(xlabel="SNR bin", ylabel=self.ylabel)


@dataclass(eq=False, repr=False)
class TrendDisplay(Display):
    """A gate's entropy, confidence or temperature against SNR: density of the rows and means in bins.

    Parameters
    ----------
    snr : array-like of shape (n_samples,), [dimensionless]
        Signal-to-noise ratio, above 0.
    values : array-like of shape (n_samples,), [any unit]
        Such as ``scipy.stats.entropy(weights, axis=1)``, the largest weight of a row, or a temperature.
    n_experts : int, default=None
        Number of experts; draws the entropy of equal weights, ln(n_experts), as a line. None draws none.
    ylabel : str, default="gate entropy [nats]"
        What the values are, with their unit.

    Attributes
    ----------
    trend_ : Bunch, correlation and means of the bins, from :func:`trend`
    hexagons_ : matplotlib PolyCollection, rows in every hexagon
    means_ : matplotlib ErrorbarContainer, mean of every bin at its median x
    """

    snr: ArrayLike
    values: ArrayLike
    _: KW_ONLY
    n_experts: int | None = None
    ylabel: str = "gate entropy [nats]"

    @classmethod
    def from_trace(cls, trace, snr, *, ax=None):
        """Draw the entropy of `trace.weights`, a :class:`~dualgate.MixtureTrace`, against the SNR of the same rows."""
        return cls(snr, entropy(trace.weights, axis=1), n_experts=trace.weights.shape[1]).plot(ax)

    def _draw(self, ax):
        from matplotlib.colors import LogNorm
        from matplotlib.ticker import LogLocator, NullFormatter

        snr, values = np.asarray(self.snr, dtype=float), np.asarray(self.values, dtype=float)
        self.trend_ = trend(snr, values)
        style = {"gridsize": (45, 22), "mincnt": 1, "cmap": "Blues", "linewidths": 0.1}
        self.hexagons_ = ax.hexbin(snr, values, xscale="log", norm=LogNorm(vmin=0.3), **style)  # single rows show too
        self.hexagons_.set_clim(vmax=max(2, self.hexagons_.get_array().max()))
        known, bins = np.unique(quality_bins(snr), return_inverse=True)
        means, reach = _bars([self.trend_.means[code] for code in known])
        centres = [np.median(snr[bins == place]) for place in range(len(known))]
        style = {"fmt": "o-", "color": "C1", "markersize": 5, "capsize": 3}
        self.means_ = ax.errorbar(centres, means, yerr=reach, label="mean of the bin", **style)
        for edge in SNR_EDGES:
            if snr.min() < edge < snr.max():
                ax.axvline(edge, color=_ink(ax, 0.4), linewidth=0.6, linestyle=":")
        if self.n_experts is not None:
            limit = np.log(self.n_experts)
            ax.axhline(limit, color=_ink(ax, 0.75), linestyle="--", linewidth=1)
            ax.annotate(
                f"equal weights, ln {self.n_experts}", (1, limit), (-3, 2), fontsize="small", color=_ink(ax),
                xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", va="bottom",
            )  # fmt: skip
        ax.set(xlabel="SNR = ||flux|| / ||error||", ylabel=self.ylabel)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # 1, 2, 5, 10 rather than powers of ten
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())


@dataclass(eq=False, repr=False)
class CoefficientDisplay(Display):
    """Coefficients of every expert along the wavelength, one above the other, with marks of spectral lines.

    Parameters
    ----------
    wave : array-like of shape (n_pixels,), [angstrom]
        Wavelength of every pixel, increasing.
    coefs : array-like of shape (n_experts, n_pixels), [unit of y per unit of flux]
        Coefficients in pixels; with another number of columns `plot` raises a ValueError.
    names : sequence of str, length n_experts, default=None
        Names of the experts from top to bottom; None counts from 0.
    lines : dict of str to float, default=None, [angstrom]
        Wavelengths to mark, by name; those outside `wave` are left out. None marks none.
    unit : str, default="unit of y per unit of flux"
        Unit of the coefficients.

    Attributes
    ----------
    curves_ : list of matplotlib Line2D, one for each expert, each divided by `step_`
    step_ : float, distance between the zero lines of two experts [unit of coefs]
    marks_ : list of matplotlib Annotation, one for each line
    """

    wave: ArrayLike
    coefs: ArrayLike
    names: Sequence | None = None
    _: KW_ONLY
    lines: Mapping | None = None
    unit: str = "unit of y per unit of flux"

    def _size(self):
        return 8, 1.6 + 0.55 * len(np.atleast_2d(self.coefs))

    def _draw(self, ax):
        wave = np.asarray(self.wave, dtype=float)
        hint = ", one column for every pixel of wave: map projected columns to pixels first"
        coefs = check_finite("CoefficientDisplay.coefs", np.atleast_2d(self.coefs), (None, len(wave)), hint)
        largest = np.quantile(np.abs(coefs), 0.999)
        self.step_ = float(f"{2 * largest:.1g}") if largest > 0 else 1.0
        places = -np.arange(len(coefs))  # from top to bottom
        ax.hlines(places, wave[0], wave[-1], color=_ink(ax), alpha=0.2, linewidth=0.6)
        self.curves_ = ax.plot(wave, (places[:, None] + coefs / self.step_).T, linewidth=0.6)
        ax.set_yticks(places, range(len(coefs)) if self.names is None else self.names)
        ax.set_ylim(places[-1] - 0.8, 0.8)
        ax.set_xlim(wave[0], wave[-1])
        ax.set(xlabel="wavelength [Å]", ylabel="expert")
        self._draw_scale(ax, places.mean())
        self.marks_ = self._mark_lines(ax, wave)

    def _draw_scale(self, ax, middle):
        """Draw a bar as long as two zero lines are apart, to the right of the axes, with its length as text."""
        where = {"xycoords": ("axes fraction", "data"), "annotation_clip": False}
        style = {"arrowstyle": "|-|,widthA=0.25,widthB=0.25", "linewidth": 0.8, "color": _ink(ax)}
        ends = {"shrinkA": 0, "shrinkB": 0, **style}
        ax.annotate("", (1.015, middle - 0.5), (1.015, middle + 0.5), arrowprops=ends, **where)
        ax.annotate(
            f"{self.step_:g} {self.unit}", (1.015, middle), (6, 0), textcoords="offset points", rotation=90,
            fontsize="small", ha="left", va="center", **where,
        )  # fmt: skip

    def _mark_lines(self, ax, wave):
        """Mark the lines with thin verticals, and write their names above, moved apart where they would overlap."""
        lines = self.lines or {}
        inside = sorted((place, name) for name, place in lines.items() if wave[0] <= place <= wave[-1])
        for place, _ in inside:
            ax.axvline(place, color=_ink(ax, 0.5), linewidth=0.5, linestyle=":", zorder=0)
        span = wave[-1] - wave[0]
        labels = spread_out([place for place, _ in inside], 0.027 * span, wave[0], wave[-1])
        return [
            ax.annotate(
                name, (place, 1), (label, 1.05), xycoords=("data", "axes fraction"), fontsize="x-small",
                textcoords=("data", "axes fraction"), rotation=90, ha="center", va="bottom",
                arrowprops={"arrowstyle": "-", "color": _ink(ax, 0.5), "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
            )
            for label, (place, name) in zip(labels, inside, strict=True)
        ]  # fmt: skip


@dataclass(eq=False, repr=False)
class ReliabilityDisplay(Display):
    """How far the share of truths inside intervals is from their stated coverage, by SNR bin.

    A line at zero is calibrated, below it intervals are too narrow, above it too wide. Bands are two binomial standard
    errors wide on either side: lines within their band cannot be told from calibrated ones.

    Parameters
    ----------
    coverages : array-like of shape (n_coverages,), in (0, 1)
        Stated coverages, increasing.
    shares : dict of str to array-like of shape (n_coverages,)
        Share of the rows inside, by the name of the bin.
    counts : dict of str to int
        Rows in every bin.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D, one for each bin
    bands_ : list of matplotlib PolyCollection, one for each bin

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(size=4000)
    >>> display = ReliabilityDisplay.from_predictions(y, (np.zeros(4000), np.ones(4000)), coverages=[0.5, 0.9])
    >>> bool(np.abs(display.shares["all"] - np.array([0.5, 0.9])).max() < 0.03)
    True
    """

    coverages: ArrayLike
    shares: Mapping
    counts: Mapping

    @classmethod
    def from_estimator(cls, estimator, X, y, *, snr=None, coverages=COVERAGES, ax=None):
        """Draw the reliability of `predict_interval`, which is called for every coverage.

        Parameters
        ----------
        estimator : fitted estimator with `predict_interval`
        X : array-like or RowSource of shape (n_samples, n_features)
            Rows that the estimator was not fitted to.
        y : array-like of shape (n_samples,)
        snr : None or array-like of shape (n_samples,), default=None
            Signal-to-noise ratio, for a line by SNR bin; None is one line.
        coverages : array-like of shape (n_coverages,), default=0.1, 0.2, ..., 0.9, 0.95
        ax : matplotlib Axes, default=None
        """
        intervals = [estimator.predict_interval(X, coverage) for coverage in coverages]
        return cls.from_predictions(y, intervals, snr=snr, coverages=coverages, ax=ax)

    @classmethod
    def from_predictions(cls, y, predictions, *, snr=None, coverages=COVERAGES, ax=None):
        """Draw the reliability of given intervals, or of the central intervals of densities.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
        predictions : array-like of shape (n_coverages, n_samples, 2), MixtureDensity, or tuple (mean, std)
        snr, coverages, ax
            As in `from_estimator`.
        """
        y = check_finite("ReliabilityDisplay.y", y, (None,))
        for coverage in coverages:
            check_coverage("ReliabilityDisplay", coverage)
        if isinstance(predictions, (MixtureDensity, tuple)):
            distance = 2 * np.abs(pit_values(y, predictions) - 0.5)
            inside = distance <= np.asarray(coverages)[:, None]
        else:
            if len(predictions) != len(coverages):
                raise ValueError(
                    f"ReliabilityDisplay.predictions holds {len(predictions)} sets of intervals, coverages holds "
                    f"{len(coverages)}: give one set for every coverage."
                )
            ends = [ends_of("ReliabilityDisplay", y, each) for each in predictions]
            inside = np.array([(low <= y) & (y <= high) for low, high in ends])
        slices = row_slices(len(y), snr=snr)
        if snr is not None:
            del slices[ALL_ROWS]
        slices = {name: mask for name, mask in slices.items() if mask.any()}
        shares = {name: inside[:, mask].mean(axis=1) for name, mask in slices.items()}
        return cls(coverages, shares, {name: int(mask.sum()) for name, mask in slices.items()}).plot(ax)

    def _draw(self, ax):
        stated = np.asarray(self.coverages, dtype=float)
        ranges = dict(zip(SNR_NAMES, SNR_RANGES, strict=True))
        ax.axhline(0, color=_ink(ax), linewidth=1)
        self.lines_, self.bands_ = [], []
        for place, (name, share) in enumerate(self.shares.items()):
            reach = 200 * np.sqrt(stated * (1 - stated) / self.counts[name])
            off = 100 * (np.asarray(share) - stated)
            label = f"{name} (SNR {ranges[name]})" if name in ranges else name
            style = {"color": f"C{place}", "marker": MARKERS[place % len(MARKERS)], "markersize": 4}
            self.lines_ += ax.plot(stated, off, label=label, **style)
            self.bands_.append(ax.fill_between(stated, off - reach, off + reach, color=f"C{place}", alpha=0.12, lw=0))
        if len(self.shares) > 1:
            ax.legend(fontsize="small")
        ax.grid(axis="y", alpha=0.3)
        ax.set(xlabel="stated coverage", ylabel="share inside minus stated coverage [percentage points]")


def spread_out(places, gap, low, high):
    """Move sorted places apart to at least `gap`, as little as least squares allow, within `low` to `high`."""
    steps = gap * np.arange(len(places))
    if not len(places):
        return steps
    return isotonic_regression(places - steps, y_min=low, y_max=high - steps[-1]) + steps


def _bars(intervals):
    """Values of intervals, and lengths of error bars below and above them (2, n_intervals)."""
    values, low, high = np.array([(each.value, each.low, each.high) for each in intervals]).T
    return values, np.maximum([values - low, high - values], 0)  # an interval of a few rows may exclude its value


def _ink(ax, strength=1.0):
    """Colour of the axis labels, so that lines show on light and on dark paper."""
    from matplotlib.colors import to_rgba

    return to_rgba(ax.xaxis.label.get_color(), strength)
