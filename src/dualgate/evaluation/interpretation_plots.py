"""Displays of what a model has learned: trends with SNR, confusion of regimes, coefficients by pixel."""

import numpy as np

from dualgate.evaluation._drawing import draw_density, interval_reach, make_axes, plain_log_axis, spread_out
from dualgate.evaluation.diagnostics import snr_bins
from dualgate.evaluation.interpretation import trend


class TrendDisplay:
    """A gate's entropy, confidence or temperature against SNR: density, means in bins and rank correlation.

    Parameters
    ----------
    x : array-like of shape (n_samples,), [any unit]
        What the trend runs along, above 0.
    values : array-like of shape (n_samples,), [any unit]
        What may rise or fall with it.
    trend : Trend
        Of these rows, from :func:`trend`.
    xlabel, ylabel : str
        What both are, with their units.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    hexagons_ : matplotlib PolyCollection, rows in every hexagon
    means_ : matplotlib ErrorbarContainer, mean of every bin at its median x

    Examples
    --------
    >>> snr = np.array([1.0, 3.0, 5.0, 9.0])
    >>> TrendDisplay(snr, 1 / snr, trend(snr, 1 / snr)).trend.direction
    'falls'
    """

    def __init__(self, x, values, trend, *, xlabel="SNR = ||flux|| / ||error||", ylabel="gate entropy [nats]"):
        self.x = x
        self.values = values
        self.trend = trend
        self.xlabel = xlabel
        self.ylabel = ylabel

    @classmethod
    def from_values(cls, x, values, *, ylabel="gate entropy [nats]", ax=None):
        """Find the trend of `values` along SNR `x` and draw both.

        Parameters
        ----------
        x : array-like of shape (n_samples,), [dimensionless]
            Signal-to-noise ratio.
        values : array-like of shape (n_samples,), [any unit]
            Such as :func:`gate_entropy`, :func:`gate_confidence` or a temperature.
        ylabel : str, default="gate entropy [nats]"
            What the values are, with their unit.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : TrendDisplay
        """
        return cls(x, values, trend(x, values), ylabel=ylabel).plot(ax=ax)

    def plot(self, ax=None, *, hexbin_kwargs=None):
        """Draw the density of rows, the mean of every bin with its interval, and the rank correlation.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        hexbin_kwargs : dict, default=None
            Style of the density, passed to :meth:`~matplotlib.axes.Axes.hexbin`.

        Returns
        -------
        self : TrendDisplay
        """
        self.ax_ = make_axes(ax)
        self.figure_ = self.ax_.figure
        x, values = np.asarray(self.x, dtype=float), np.asarray(self.values, dtype=float)
        style = {"gridsize": (45, 22), "xscale": "log", **(hexbin_kwargs or {})}
        self.hexagons_ = draw_density(self.ax_, x, values, **style)
        bins = snr_bins(x, self.trend.edges)
        known = np.flatnonzero(self.trend.counts)
        means, low, high = np.array([[m.value, m.low, m.high] for m in self.trend.means])[known].T
        centres = [np.median(x[bins == code]) for code in known]
        reach = interval_reach(means, low, high)
        self.means_ = self.ax_.errorbar(
            centres, means, yerr=reach, fmt="o-", color="C1", markersize=5, capsize=3, label="mean of the bin"
        )
        for edge in self.trend.edges:
            if x.min() < edge < x.max():
                self.ax_.axvline(edge, color="0.6", linewidth=0.6, linestyle=":")
        rho, chance = self.trend.rho, self.trend.p_value
        odds = "p < 0.001" if chance < 0.001 else f"p = {chance:.2g}"
        self.ax_.set_title(f"rank correlation {rho}, {odds}", fontsize="small", loc="left")
        self.ax_.set(xlabel=self.xlabel, ylabel=self.ylabel)
        plain_log_axis(self.ax_.xaxis)
        return self


class ConfusionDisplay:
    """Shares of every true regime's rows or weights by the gate's regime, as a heat map.

    Parameters
    ----------
    table : array-like of shape (n_rows, n_columns), [dimensionless]
        Such as `RegimeConfusion.mean_weights`, or mean weights by SNR bin; NaN leaves a cell empty.
    row_names, column_names : sequence of str, default=None
        Names of rows and columns; None counts from 0.
    xlabel, ylabel : str
        What columns and rows are.
    label : str, default="mean weight"
        What the cells hold.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    image_ : matplotlib AxesImage
    texts_ : list of matplotlib Text, one for every cell that is known

    Examples
    --------
    >>> ConfusionDisplay([[0.9, 0.1], [0.3, 0.7]]).label
    'mean weight'
    """

    def __init__(
        self, table, row_names=None, column_names=None, *, xlabel="regime of the gate", ylabel="true regime",
        label="mean weight",
    ):  # fmt: skip
        self.table = table
        self.row_names = row_names
        self.column_names = column_names
        self.xlabel = xlabel
        self.ylabel = ylabel
        self.label = label

    def plot(self, ax=None):
        """Draw the table with its numbers, in percent.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : ConfusionDisplay
        """
        self.ax_ = make_axes(ax)
        self.figure_ = self.ax_.figure
        table = 100 * np.asarray(self.table, dtype=float)
        aspect = "equal" if table.shape[0] == table.shape[1] else "auto"
        self.image_ = self.ax_.imshow(table, cmap="Blues", vmin=0, vmax=100, aspect=aspect)
        self.texts_ = [
            self.ax_.text(
                column, row, f"{table[row, column]:.0f}", ha="center", va="center", fontsize="small",
                color="white" if table[row, column] > 55 else "black",
            )
            for row, column in np.argwhere(np.isfinite(table))
        ]  # fmt: skip
        for axis, names, size in zip("yx", (self.row_names, self.column_names), table.shape, strict=True):
            names = [str(code) for code in range(size)] if names is None else list(names)
            self.ax_.set(**{f"{axis}ticks": range(size), f"{axis}ticklabels": names})
            if axis == "x" and size * max(map(len, names)) > 40:  # they would run into each other
                self.ax_.tick_params(axis="x", rotation=45)
                for text in self.ax_.get_xticklabels():
                    text.set(ha="right", rotation_mode="anchor")
        self.figure_.colorbar(self.image_, ax=self.ax_, label=f"{self.label} [%]")
        self.ax_.set(xlabel=self.xlabel, ylabel=self.ylabel)
        return self


class CoefficientDisplay:
    """Coefficients of every expert along the wavelength, one above the other, with marks of spectral lines.

    Parameters
    ----------
    wave : array-like of shape (n_pixels,), [angstrom]
        Wavelength of every pixel, increasing.
    coefs : array-like of shape (n_experts, n_pixels), [unit of y per unit of flux]
        Coefficients in pixels.
    names : sequence of str, length n_experts, default=None
        Names of the experts from top to bottom; None counts from 0.
    lines : dict of str to float, default=None, [angstrom]
        Wavelengths to mark, by name; those outside `wave` are left out. None marks none.
    unit : str, default="unit of y per unit of flux"
        Unit of the coefficients.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    curves_ : list of matplotlib Line2D, one an expert, each divided by `step_`
    step_ : float, [unit of coefs]
        Distance between the zero lines of two experts.
    marks_ : list of matplotlib Annotation, one a line

    Examples
    --------
    >>> wave = np.linspace(8400.0, 8800.0, 5)
    >>> CoefficientDisplay(wave, np.ones((2, 5)), lines={"Ca II": 8542.1}).lines
    {'Ca II': 8542.1}
    """

    def __init__(self, wave, coefs, names=None, *, lines=None, unit="unit of y per unit of flux"):
        self.wave = wave
        self.coefs = coefs
        self.names = names
        self.lines = lines
        self.unit = unit

    def plot(self, ax=None):
        """Draw one curve for every expert and the marks of the lines.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure, as tall as the experts need.

        Returns
        -------
        self : CoefficientDisplay

        Raises
        ------
        ValueError
            If `coefs` has not one column for every pixel.
        """
        wave, coefs = np.asarray(self.wave, dtype=float), np.atleast_2d(np.asarray(self.coefs, dtype=float))
        if coefs.shape[1] != len(wave):
            raise ValueError(
                f"CoefficientDisplay.coefs has shape {coefs.shape} and must be (n_experts, {len(wave)}): one column "
                "for every pixel of wave. Coefficients of projected columns must be mapped to pixels first."
            )
        self.ax_ = make_axes(ax)
        self.figure_ = self.ax_.figure
        if ax is None:
            self.figure_.set_size_inches(8, 1.6 + 0.55 * len(coefs))
        largest = np.quantile(np.abs(coefs), 0.999)
        self.step_ = float(f"{2 * largest:.1g}") if largest > 0 else 1.0
        places = -np.arange(len(coefs))  # from top to bottom
        for place in places:
            self.ax_.axhline(place, color="0.8", linewidth=0.6)
        self.curves_ = [
            self.ax_.plot(wave, place + row / self.step_, linewidth=0.6, color=f"C{-place % 10}")[0]
            for place, row in zip(places, coefs, strict=True)
        ]
        self.ax_.set_yticks(places, range(len(coefs)) if self.names is None else self.names)
        self.ax_.set_ylim(places[-1] - 0.8, 0.8)
        self.ax_.set_xlim(wave[0], wave[-1])
        self.ax_.set(xlabel="wavelength [Å]", ylabel="expert")
        self._draw_scale(places.mean())
        self.marks_ = self._mark_lines(wave)
        return self

    def _draw_scale(self, middle):
        """Draw a bar as long as two zero lines are apart, to the right of the axes, and what it is worth."""
        where = {"xycoords": ("axes fraction", "data"), "annotation_clip": False}
        ends = {"arrowstyle": "|-|,widthA=0.25,widthB=0.25", "shrinkA": 0, "shrinkB": 0, "linewidth": 0.8}
        self.ax_.annotate("", (1.015, middle - 0.5), (1.015, middle + 0.5), arrowprops=ends, **where)
        self.ax_.annotate(
            f"{self.step_:g} {self.unit}", (1.015, middle), (6, 0), textcoords="offset points", rotation=90,
            fontsize="small", ha="left", va="center", **where,
        )  # fmt: skip

    def _mark_lines(self, wave):
        """Mark the lines with thin verticals, and write their names above, moved apart where they would collide."""
        lines = self.lines or {}
        inside = sorted((place, name) for name, place in lines.items() if wave[0] <= place <= wave[-1])
        for place, _ in inside:
            self.ax_.axvline(place, color="0.5", linewidth=0.5, linestyle=":", zorder=0)
        span = wave[-1] - wave[0]
        labels = spread_out([place for place, _ in inside], 0.027 * span, wave[0], wave[-1])
        return [
            self.ax_.annotate(
                name, (place, 1), (label, 1.05), xycoords=("data", "axes fraction"), fontsize="x-small",
                textcoords=("data", "axes fraction"), rotation=90, ha="center", va="bottom",
                arrowprops={"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
            )
            for label, (place, name) in zip(labels, inside, strict=True)
        ]  # fmt: skip
