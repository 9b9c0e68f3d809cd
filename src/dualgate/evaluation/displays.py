"""Displays: the constructor keeps arrays, `from_*` computes them and draws, `plot` draws and returns self.

Titles state a finding and are the caller's: ``display.ax_.set_title(...)``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import cycle

import numpy as np
from numpy.typing import ArrayLike

from dualgate.evaluation.scores import bootstrap_scores, row_slices
from dualgate.evaluation.weights import Trend, gate_entropy, trend
from dualgate.snr import SNR_NAMES, SNR_RANGES, quality_bins

LABELS = {"r2": "R²", "mae": "mean |error|", "rmse": "RMSE", "bias": "bias"}
MARKERS = "osD^vPX<>"
MARK_STYLES = ("--", ":", "-.")


class Display(ABC):
    """A picture of arrays; `ax_` and `figure_` are the matplotlib Axes and Figure of the last `plot`."""

    def plot(self, ax=None):
        """Draw the arrays.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure with pyplot.

        Returns
        -------
        self : Display
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
    values : array-like of shape (n_methods,), [unit of the score]
        Score or gain of every method.
    low, high : array-like of shape (n_methods,), [unit of the score]
        Ends of its interval; NaN draws none.
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
    errorbars_ : list of matplotlib ErrorbarContainer
        One for each group, or two: filled dots, then open ones.

    Examples
    --------
    >>> IntervalDisplay(["ridge", "mixture"], [0.3, 0.5], [0.2, 0.4], [0.4, 0.6]).names
    ['ridge', 'mixture']
    """

    names: Sequence
    values: ArrayLike
    low: ArrayLike
    high: ArrayLike
    _: KW_ONLY
    groups: Sequence | None = None
    xlabel: str = "R²"
    against: float | None = None
    lines: Mapping | None = None

    @classmethod
    def from_predictions(
        cls, y_true, predictions, *, reference=None, n_resamples=1000, confidence=0.95, random_state=None, ax=None
    ):
        """Draw R^2 of predictions, or its gain over one of them, with paired bootstrap intervals over rows.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,), [unit of y]
            Observed targets.
        predictions : dict of str to array-like of shape (n_samples,), [unit of y]
            Prediction of every method.
        reference : str, default=None
            The prediction that the others are compared with; None draws R^2 itself.
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
        display : IntervalDisplay
        """
        table = bootstrap_scores(y_true, predictions, n_resamples=n_resamples, random_state=random_state)
        names = [name for name in predictions if name != reference]
        found = [table.estimate("r2", name, reference=reference).interval(confidence) for name in names]
        style = {} if reference is None else {"xlabel": f"ΔR² over {reference}", "against": 0.0}
        return cls(names, *_parts(found), **style).plot(ax)

    def _draw(self, ax):
        values, low, high = (np.asarray(part, dtype=float) for part in (self.values, self.low, self.high))
        reach, rows = _reach(values, low, high), np.arange(len(values))
        groups = np.asarray([""] * len(values) if self.groups is None else self.groups)
        shown = np.ones(len(values), dtype=bool)
        if self.against is not None:
            shown = (low > self.against) | (high < self.against)
            ax.axvline(self.against, color=_ink(ax), linewidth=1)
        for (name, value), style in zip((self.lines or {}).items(), cycle(MARK_STYLES)):
            ax.axvline(value, color=_ink(ax, 0.75), linestyle=style, linewidth=1, label=name)
        self.errorbars_ = []
        for place, group in enumerate(dict.fromkeys(groups)):
            kinds = [(shown, f"C{place}", "excludes"), (~shown, ax.get_facecolor(), "includes")]
            kinds = [(of & (groups == group), face, verb) for of, face, verb in kinds]
            label = group or None
            for of, face, verb in (kind for kind in kinds if kind[0].any()):
                if self.groups is None and self.against is not None:
                    label = f"interval {verb} {self.against:g}"
                bars = ax.errorbar(
                    values[of], rows[of], xerr=reach[:, of], fmt=MARKERS[place % len(MARKERS)], color=f"C{place}",
                    markersize=5, markerfacecolor=face, capsize=2, label=label,
                )  # fmt: skip
                self.errorbars_.append(bars)
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
    values : array-like of shape (n_methods, 4), [unit of the score]
        Score of every method within bins X, L, M and H; NaN leaves a gap.
    low, high : array-like of shape (n_methods, 4), default=None
        Ends of the intervals; None or NaN draws none.
    limit : array-like of shape (3, 4), default=None, [unit of the score]
        The Bayes limit within the bins and the low and high ends of its interval, drawn as a step with a band over
        every bin; NaN ends draw no band. None draws no limit.
    ylabel : str, default="R² within the bin"
        What the score is, with its unit.

    Attributes
    ----------
    bars_ : list of matplotlib BarContainer, one for each method
    limit_ : matplotlib LineCollection, one line for each bin; only with a limit

    Examples
    --------
    >>> SNRDisplay(["ridge"], [[0.1, 0.3, 0.5, 0.7]]).names
    ['ridge']
    """

    names: Sequence
    values: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    _: KW_ONLY
    limit: ArrayLike | None = None
    ylabel: str = "R² within the bin"

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
        display : SNRDisplay
        """
        slices = row_slices(len(y_true), snr=snr)
        table = bootstrap_scores(y_true, predictions, slices, n_resamples=n_resamples, random_state=random_state)
        found = [_parts([table.estimate(score, name, part).interval() for part in SNR_NAMES]) for name in predictions]
        ylabel = _with_unit(f"{LABELS[score]} within the bin", None if score == "r2" else unit)
        return cls(list(predictions), *np.stack(found, axis=1), ylabel=ylabel).plot(ax)

    def _draw(self, ax):
        values = np.asarray(self.values, dtype=float)
        low, high = (values if end is None else np.asarray(end, dtype=float) for end in (self.low, self.high))
        reach, width, bins = _reach(values, low, high), 0.8 / len(values), np.arange(len(SNR_NAMES))
        self.bars_ = [
            ax.bar(
                bins + width * (place - (len(values) - 1) / 2), values[place], width=0.92 * width, label=name,
                yerr=reach[:, place], error_kw={"elinewidth": 1, "capsize": 2, "ecolor": _ink(ax, 0.75)},
            )
            for place, name in enumerate(self.names)
        ]  # fmt: skip
        if self.limit is not None:
            level, bottom, top = np.asarray(self.limit, dtype=float)
            ends = bins - 0.45, bins + 0.45
            self.limit_ = ax.hlines(
                level, *ends, color=_ink(ax, 0.75), linewidth=2, linestyle=(0, (3, 1)), label="Bayes limit"
            )
            ax.bar(ends[0], top - bottom, 0.9, bottom, align="edge", color=_ink(ax, 0.15), linewidth=0, zorder=0)
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
    x : array-like of shape (n_samples,), [any unit]
        The independent quantity, above 0.
    values : array-like of shape (n_samples,), [any unit]
        What may rise or fall with it.
    trend : Trend
        Of these rows, from :func:`trend`; ``str(trend)`` serves as a title.
    n_experts : int, default=None
        Number of experts; draws the entropy of equal weights, ln(n_experts), as a line. None draws none.
    xlabel, ylabel : str
        What both are, with their units; by default SNR and gate entropy.

    Attributes
    ----------
    hexagons_ : matplotlib PolyCollection, rows in every hexagon
    means_ : matplotlib ErrorbarContainer, mean of every bin at its median x

    Examples
    --------
    >>> snr = np.array([1.0, 3.0, 5.0, 9.0])
    >>> TrendDisplay(snr, 1 / snr, trend(snr, 1 / snr)).trend.counts.tolist()
    [1, 1, 1, 1]
    """

    x: ArrayLike
    values: ArrayLike
    trend: Trend
    _: KW_ONLY
    n_experts: int | None = None
    xlabel: str = "SNR = ||flux|| / ||error||"
    ylabel: str = "gate entropy [nats]"

    @classmethod
    def from_values(cls, x, values, *, n_experts=None, ylabel="gate entropy [nats]", ax=None):
        """Compute the trend of `values` with SNR `x` and draw both.

        Parameters
        ----------
        x : array-like of shape (n_samples,), [dimensionless]
            Signal-to-noise ratio.
        values : array-like of shape (n_samples,), [any unit]
            Such as :func:`gate_entropy`, :func:`gate_confidence` or a temperature.
        n_experts : int, default=None
            Number of experts, for the line of equal weights; None draws none.
        ylabel : str, default="gate entropy [nats]"
            What the values are, with their unit.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : TrendDisplay
        """
        return cls(x, values, trend(x, values), n_experts=n_experts, ylabel=ylabel).plot(ax)

    @classmethod
    def from_trace(cls, trace, snr, *, ax=None):
        """Draw the entropy of `trace.weights` against `snr`.

        Parameters
        ----------
        trace : MixtureTrace
            Stages of one prediction, from :meth:`~dualgate.DualTowerMoERegressor.trace`.
        snr : array-like of shape (n_samples,), [dimensionless]
            Signal-to-noise ratio of the same rows.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : TrendDisplay
        """
        return cls.from_values(snr, gate_entropy(trace.weights), n_experts=trace.weights.shape[1], ax=ax)

    def _draw(self, ax):
        x, values = np.asarray(self.x, dtype=float), np.asarray(self.values, dtype=float)
        self.hexagons_ = _density(ax, x, values, gridsize=(45, 22), xscale="log")
        bins, known = quality_bins(x, self.trend.edges), np.flatnonzero(self.trend.counts)
        means, low, high = np.array(_parts(self.trend.means))[:, known]
        centres = [np.median(x[bins == code]) for code in known]
        self.means_ = ax.errorbar(
            centres, means, yerr=_reach(means, low, high), fmt="o-", color="C1", markersize=5, capsize=3,
            label="mean of the bin",
        )  # fmt: skip
        for edge in self.trend.edges:
            if x.min() < edge < x.max():
                ax.axvline(edge, color=_ink(ax, 0.4), linewidth=0.6, linestyle=":")
        if self.n_experts is not None:
            limit = np.log(self.n_experts)
            ax.axhline(limit, color=_ink(ax, 0.75), linestyle="--", linewidth=1)
            ax.annotate(
                f"equal weights, ln {self.n_experts}", (1, limit), (-3, 2), fontsize="small", color=_ink(ax),
                xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", va="bottom",
            )  # fmt: skip
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        _plain_log_axis(ax.xaxis)


@dataclass(eq=False, repr=False)
class PredictionDisplay(Display):
    """Predicted against true targets, as the density of many rows, with the running median.

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
    hexagons_ : matplotlib PolyCollection, rows in every hexagon, in a logarithmic scale of colour
    median_ : matplotlib Line2D, median prediction in 15 groups of equally many rows
    band_ : list of two matplotlib Line2D, 16th and 84th percentile of the predictions in the same groups

    Examples
    --------
    >>> PredictionDisplay([1.0, 2.0], [1.1, 1.9], name="log g", unit="dex").name
    'log g'
    """

    y_true: ArrayLike
    y_pred: ArrayLike
    _: KW_ONLY
    name: str = "y"
    unit: str | None = None

    def _draw(self, ax):
        true, guess = np.asarray(self.y_true, dtype=float), np.asarray(self.y_pred, dtype=float)
        self.hexagons_ = _density(ax, true, guess, gridsize=45)
        bar = ax.figure.colorbar(self.hexagons_, ax=ax, label="rows")
        bar.ax.set_ylim(bottom=1)
        _plain_log_axis(bar.ax.yaxis)
        ends = [min(true.min(), guess.min()), max(true.max(), guess.max())]
        ax.plot(ends, ends, color=_ink(ax), linestyle="--", linewidth=1, label="equal")
        groups = [part for part in np.array_split(np.argsort(true), 15) if len(part)]
        low, middle, high = np.array([np.quantile(guess[part], [0.16, 0.5, 0.84]) for part in groups]).T
        centres = [np.median(true[part]) for part in groups]
        style = {"color": "C1", "linewidth": 1.2}
        (self.median_,) = ax.plot(centres, middle, marker="o", markersize=4, label="median", **style)
        self.band_ = ax.plot(centres, np.stack([low, high], 1), linestyle=":", **style)
        self.band_[0].set_label("16 and 84 %")
        labels = (_with_unit(f"{kind} {self.name}", self.unit) for kind in ("true", "predicted"))
        ax.set(**dict(zip(("xlabel", "ylabel"), labels, strict=True)))


@dataclass(eq=False, repr=False)
class ConfusionDisplay(Display):
    """Shares of the rows or weights of every true regime by the gate's regime, as a heat map in percent.

    Parameters
    ----------
    table : array-like of shape (n_rows, n_columns), [dimensionless]
        Such as :func:`mean_weights` by regime; NaN leaves a cell empty.
    row_names, column_names : sequence of str, default=None
        Names of rows and columns; None counts from 0.
    xlabel, ylabel : str
        What columns and rows are; by default the gate's regime and the true one.
    label : str, default="mean weight"
        What the cells hold.

    Attributes
    ----------
    image_ : matplotlib AxesImage
    texts_ : list of matplotlib Text, one for every cell that is known

    Examples
    --------
    >>> ConfusionDisplay([[0.9, 0.1], [0.3, 0.7]]).label
    'mean weight'
    """

    table: ArrayLike
    row_names: Sequence | None = None
    column_names: Sequence | None = None
    _: KW_ONLY
    xlabel: str = "regime of the gate"
    ylabel: str = "true regime"
    label: str = "mean weight"

    def _draw(self, ax):
        table = 100 * np.asarray(self.table, dtype=float)
        aspect = "equal" if table.shape[0] == table.shape[1] else "auto"
        self.image_ = ax.imshow(table, cmap="Blues", vmin=0, vmax=100, aspect=aspect)
        self.texts_ = [
            ax.text(
                column, row, f"{table[row, column]:.0f}", ha="center", va="center", fontsize="small",
                color="white" if table[row, column] > 55 else "black",
            )
            for row, column in np.argwhere(np.isfinite(table))
        ]  # fmt: skip
        for axis, names, size in zip("yx", (self.row_names, self.column_names), table.shape, strict=True):
            names = [str(code) for code in range(size)] if names is None else list(names)
            ax.set(**{f"{axis}ticks": range(size), f"{axis}ticklabels": names})
            if axis == "x" and size * max(map(len, names)) > 40:  # they would overlap
                ax.tick_params(axis="x", rotation=45)
                for text in ax.get_xticklabels():
                    text.set(ha="right", rotation_mode="anchor")
        ax.figure.colorbar(self.image_, ax=ax, label=f"{self.label} [%]")
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)


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
    step_ : float, [unit of coefs]
        Distance between the zero lines of two experts.
    marks_ : list of matplotlib Annotation, one for each line

    Examples
    --------
    >>> wave = np.linspace(8400.0, 8800.0, 5)
    >>> CoefficientDisplay(wave, np.ones((2, 5)), lines={"Ca II": 8542.1}).lines
    {'Ca II': 8542.1}
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
        wave, coefs = np.asarray(self.wave, dtype=float), np.atleast_2d(np.asarray(self.coefs, dtype=float))
        if coefs.shape[1] != len(wave):
            raise ValueError(
                f"CoefficientDisplay.coefs has shape {coefs.shape} and must be (n_experts, {len(wave)}): one column "
                "for every pixel of wave. Coefficients of projected columns must be mapped to pixels first."
            )
        largest = np.quantile(np.abs(coefs), 0.999)
        self.step_ = float(f"{2 * largest:.1g}") if largest > 0 else 1.0
        places = -np.arange(len(coefs))  # from top to bottom
        self.curves_ = []
        for place, row in zip(places, coefs, strict=True):
            ax.axhline(place, color=_ink(ax, 0.2), linewidth=0.6)
            self.curves_ += ax.plot(wave, place + row / self.step_, linewidth=0.6, color=f"C{-place % 10}")
        ax.set_yticks(places, range(len(coefs)) if self.names is None else self.names)
        ax.set_ylim(places[-1] - 0.8, 0.8)
        ax.set_xlim(wave[0], wave[-1])
        ax.set(xlabel="wavelength [Å]", ylabel="expert")
        self._draw_scale(ax, places.mean())
        self.marks_ = self._mark_lines(ax, wave)

    def _draw_scale(self, ax, middle):
        """Draw a bar as long as two zero lines are apart, to the right of the axes, with its length as text."""
        where = {"xycoords": ("axes fraction", "data"), "annotation_clip": False}
        ends = {
            "arrowstyle": "|-|,widthA=0.25,widthB=0.25",
            "shrinkA": 0,
            "shrinkB": 0,
            "linewidth": 0.8,
            "color": _ink(ax),
        }
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


def spread_out(places, gap, low, high):
    """Move sorted places apart to at least `gap`, as little as possible, within `low` to `high`.

    Neighbours that overlap share their shift: they stay centred on the mean of their own places.
    """

    def centre(cluster):
        half = gap * (len(cluster) - 1) / 2
        return min(max(np.mean(cluster), low + half), high - half)

    clusters = []
    for place in places:
        clusters.append([place])
        while len(clusters) > 1:
            left, right = clusters[-2:]
            if centre(right) - centre(left) >= gap * (len(left) + len(right)) / 2:
                break
            clusters[-2:] = [left + right]
    return np.array([centre(c) + gap * (step - (len(c) - 1) / 2) for c in clusters for step in range(len(c))])


def _parts(intervals):
    """Values, low ends and high ends of intervals, as three lists."""
    return [[getattr(each, part) for each in intervals] for part in ("value", "low", "high")]


def _reach(values, low, high):
    """Lengths of error bars below and above `values` (2, ...); a percentile interval of a few rows may exclude them."""
    return np.maximum(np.stack([values - low, high - values]), 0)


def _ink(ax, strength=1.0):
    """Colour of the axis labels, so that lines show on light and on dark paper."""
    from matplotlib.colors import to_rgba

    return to_rgba(ax.xaxis.label.get_color(), strength)


def _with_unit(name, unit):
    return name if unit is None else f"{name} [{unit}]"


def _density(ax, x, y, **style):
    """Hexagons coloured by their number of rows, in a logarithmic scale that shows single rows too."""
    from matplotlib.colors import LogNorm

    hexagons = ax.hexbin(x, y, mincnt=1, cmap="Blues", linewidths=0.1, norm=LogNorm(vmin=0.3), **style)
    hexagons.set_clim(vmax=max(2, hexagons.get_array().max()))
    return hexagons


def _plain_log_axis(axis):
    """Label a logarithmic axis with 1, 2, 5, 10 rather than powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
