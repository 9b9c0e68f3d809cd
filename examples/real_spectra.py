# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What real spectra do to a model, and what the likelihood does about it
#
# A simulator knows its errors; a telescope does not. Cosmic rays hit pixels, the continuum is wrong by a few per cent, the
# star moves, the stated errors are off. Here the same stars are observed once cleanly and once with each of these faults,
# and two models that were trained on the same clean rows predict them: one that takes every row at its word, and one whose
# likelihood has a place for the fault.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import r2_score

from dualgate import DualTowerMoERegressor
from dualgate.datasets import make_spectra
from dualgate.experts import ExtrapolationWarning

N_TRAIN, N_TEST = 4_000, 800
train = make_spectra(N_TRAIN, random_state=42)
clean = make_spectra(N_TEST, random_state=42, start=N_TRAIN)


def fit(**options):
    model = DualTowerMoERegressor.for_spectra(
        train.wave, experts__n_components=18, n_jobs=-1, random_state=42, **options
    )
    return model.fit(train.X, train.y, regimes=train.conditions)


trusting = fit(robust=False)
robust = fit()
print(f"R2 on clean rows: trusting {trusting.score(clean.X, clean.y):.3f}, robust {robust.score(clean.X, clean.y):.3f}")

# %% [markdown]
# The default, `robust=True`, costs nothing on clean rows. It leaves out pixels that deviate by more than 4.5 errors from
# what the factors explain, lets the scale of a spectrum be free to 10 %, and takes the stated errors to be right only up
# to a factor, which it estimates for each row.

# %%
STAR = int(np.argmax(clean.snr))
BAND = (clean.wave > 8450) & (clean.wave < 8700)
ALL = slice(30, -30)


def show(title, faulty, models, *, what="flux", band=BAND, width=1):
    """The fault in one spectrum (running mean of `width` pixels), then predicted against true log g of each model."""
    _, axes = plt.subplots(1, 3, figsize=(11, 3.2), width_ratios=(1.6, 1, 1), layout="constrained")
    for rows, color, label in ((clean, "0.5", "clean"), (faulty, "C3", "with the fault")):
        curve = np.convolve(rows[what][STAR], np.full(width, 1 / width), mode="same")
        axes[0].plot(rows.wave[band], curve[band], lw=0.8, color=color, label=label)
    low, high = np.nanpercentile(clean[what][STAR, band], [0.1, 99.9])
    axes[0].set(xlabel="wavelength [Å]", ylabel=f"{what} [mean flux]", title=title)
    axes[0].set_ylim(min(low, low / 2) if what == "error" else low - 0.2, high + 0.2 * (what == "flux"))
    for ax, (name, model) in zip(axes[1:], models.items(), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)
            prediction = model.predict(faulty.X)
        ax.plot(faulty.y, prediction, ".", ms=2, color="0.4" if model is trusting else "C0")
        ax.plot([1, 5], [1, 5], color="C1", lw=1)
        ax.set(xlabel="true log g", ylabel="predicted", xlim=(0.8, 5.2), ylim=(0.8, 5.2))
        ax.set_title(f"{name}: R2 {r2_score(faulty.y, prediction):.2f}", fontsize=10)
    axes[0].legend(fontsize=8)
    plt.show()


def observe(**faults):
    return make_spectra(N_TEST, random_state=42, start=N_TRAIN, faults=faults)


# %% [markdown]
# ## Cosmic rays
#
# Twenty pixels of each row are raised by thirty errors.

# %%
show("20 cosmic rays", observe(cosmic_rays=20), {"trusting": trusting, "robust": robust})

# %% [markdown]
# ## Errors that are not what is stated
#
# The stated errors are half of the true ones. The trusting model believes noise to be signal; the robust one finds the
# factor in the residuals of the row. `check_errors` finds it for a whole set, by wavelength too.

# %%
halved = observe(errors=0.5)
show("errors stated at half", halved, {"trusting": trusting, "robust": robust}, what="error")
checked = robust.check_errors(halved.X)
print(
    f"true errors are {checked.factor:.2f} times the stated ones; by pixel from "
    f"{np.nanpercentile(checked.by_pixel, 1):.2f} to {np.nanpercentile(checked.by_pixel, 99):.2f} of that"
)

# %% [markdown]
# ## A continuum that is wrong
#
# Every spectrum is multiplied by its own random cubic of 5 %. `continuum=0.05` integrates over such cubics: what they
# could have done is no evidence any more. That costs information on clean rows too, so it is off by default.

# %%
flexible = fit(continuum=0.05)
print(f"R2 of the model with continuum=0.05 on clean rows: {flexible.score(clean.X, clean.y):.3f}")
show(
    "continuum off by 5 %",
    observe(continuum=0.05),
    {"trusting": trusting, "continuum=0.05": flexible},
    band=ALL,
    width=25,
)

# %% [markdown]
# ## Stars that move
#
# Velocities up to 160 km/s shift the lines by up to ten pixels. With `velocity=160` the evidence of velocities is compared;
# log g is averaged over them, and the velocity itself is part of the answer.

# %%
moving = fit(velocity=160)
shifted = observe(velocity=(-150, 150))
show("velocities within 150 km/s", shifted, {"trusting": trusting, "velocity=160": moving})

# %%
velocity, std = moving.predict_velocity(shifted.X)
true = shifted.labels["velocity"].to_numpy()
figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
points = ax.scatter(true, velocity - true, s=4, c=np.log10(std), cmap="viridis_r")
ax.axhline(0, color="C1", lw=1)
ax.set(xlabel="true velocity [km/s]", ylabel="predicted minus true [km/s]", ylim=(-100, 100))
figure.colorbar(points, label="log10 of the stated standard deviation [km/s]")
plt.show()
bright = shifted.snr > 4
print(
    f"scatter of rows with SNR above 4: {1.48 * np.median(np.abs(velocity - true)[bright]):.1f} km/s, "
    f"stated {np.median(std[bright]):.1f} km/s"
)

# %% [markdown]
# ## Bad pixels
#
# A pixel whose flux is NaN or whose error is infinite has weight zero, in training and in prediction. Nothing has to be
# filled in. Here 30 % of the pixels are missing.

# %%
missing = observe(bad_pixels=0.3)
print(f"R2 with 30 % of the pixels missing: {robust.score(missing.X, missing.y):.3f}")

# %% [markdown]
# ## Stars that do not belong
#
# `novelty` gives the probability that a row like the training rows, measured as well, is as unusual. Here half of the light
# comes from a second star, the sky was subtracted badly, or the spectrum is shifted although the model was told that it is
# not. A faint row can hide much; the p-value says so by not being small.

# %%
odd = {
    "usual": clean,
    "moved by 10 pixels": observe(shift=10.0),
    "5 % of the sky left": observe(sky=0.05),
    "a companion": observe(companion=0.5),
}
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
edges = np.quantile(clean.snr, np.linspace(0, 1, 9))
for place, (name, rows) in enumerate(odd.items()):
    p_values = robust.novelty(rows.X)
    bins = np.digitize(clean.snr, edges[1:-1])
    share = [np.mean(p_values[bins == bin_] < 0.01) for bin_ in range(8)]
    ax.plot((edges[1:] + edges[:-1]) / 2, share, "o-", ms=3, color=f"C{place}", label=name)
ax.set(xlabel="signal-to-noise ratio", ylabel="share of rows with p < 0.01", ylim=(-0.03, 1.03))
ax.legend(fontsize=8)
plt.show()

# %% [markdown]
# Rows that are far outside everything seen in training, most often because of their unit, are named at once.

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    robust.predict(np.hstack([clean.flux, 1 / clean.error**2]))
print(caught[0].message)
