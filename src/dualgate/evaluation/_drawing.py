"""What the Displays share: axes, ticks and markers."""

import numpy as np

from dualgate.evaluation.diagnostics import SNR_NAMES, SNR_RANGES

MARKERS = "osD^vPX<>"


def make_axes(ax):
    """Axes to draw on: the given ones or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def plain_log_axis(axis):
    """Label a logarithmic axis with 1, 2, 5, 10 rather than powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def snr_axis(ax):
    """Name the four SNR bins at 0 to 3 along the horizontal axis, from the noisiest to the clearest."""
    ticks = [f"{name}\n{limits}" for name, limits in zip(SNR_NAMES, SNR_RANGES, strict=True)]
    ax.set_xticks(range(len(SNR_NAMES)), ticks)
    ax.grid(axis="y", alpha=0.3)
    ax.set(xlabel="SNR bin")


def draw_density(ax, x, y, **hexbin_kwargs):
    """Hexagons coloured by their rows, in a logarithmic scale that shows single rows too, with a colour bar."""
    from matplotlib.colors import LogNorm

    style = {"mincnt": 1, "cmap": "Blues", "linewidths": 0.1, "norm": LogNorm(vmin=0.3), **hexbin_kwargs}
    hexagons = ax.hexbin(x, y, **style)
    hexagons.set_clim(vmax=max(2, hexagons.get_array().max()))
    bar = ax.figure.colorbar(hexagons, ax=ax, label="rows")
    bar.ax.set_ylim(bottom=1)
    plain_log_axis(bar.ax.yaxis)
    return hexagons


def with_unit(name, unit):
    """Axis label with its unit in brackets, if there is one."""
    return name if unit is None else f"{name} [{unit}]"


def interval_reach(values, low, high):
    """Lengths below and above `values` for error bars (2, ...); NaN ends draw none."""
    return np.stack([values - low, high - values])


def spread_out(places, gap, low, high):
    """Move sorted places apart to at least `gap`, as little as possible, within `low` to `high`.

    Neighbours that collide share their shift: they stay centred on the mean of their own places.
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
