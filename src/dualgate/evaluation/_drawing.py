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
    clusters = []  # [wanted centre, size]
    for place in places:
        clusters.append([place, 1])
        while len(clusters) > 1:
            (left, n_left), (right, n_right) = clusters[-2:]
            if right - left >= gap * (n_left + n_right) / 2:
                break
            clusters[-2:] = [[(left * n_left + right * n_right) / (n_left + n_right), n_left + n_right]]
    moved = [centre + gap * (step - (size - 1) / 2) for centre, size in clusters for step in range(size)]
    overhang = max(0.0, low - min(moved, default=low)), max(0.0, max(moved, default=high) - high)
    return np.array(moved) + overhang[0] - overhang[1]
