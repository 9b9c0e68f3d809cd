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
# # A first mixture on spectra
#
# A spectrum comes with an error for every pixel. How log g, the surface gravity, is best predicted from it depends on two
# things: *what kind of star it is*, and *how well it was measured*. This notebook fits a dual-tower mixture that uses both,
# and follows one star through every stage.

# %%
import matplotlib.pyplot as plt
import numpy as np

from dualgate import DualTowerMoERegressor
from dualgate.datasets import make_spectra
from dualgate.evaluation import SNR_RANGES, TrendDisplay, bootstrap_scores, quality_bins, row_slices

data = make_spectra(6_000, random_state=42)
print(data.X.shape, "= [flux | error], regimes", np.bincount(data.regimes))

# %% [markdown]
# Two stars of the same table, a bright one and a faint one. The calcium triplet at 8498, 8542 and 8662 Å carries most of
# the information about log g; at low signal-to-noise ratio it is hidden by noise. SNR is ||flux|| / ||error||.

# %%
bright, faint = np.argmax(data.snr), np.argmin(np.abs(data.snr - 2.0))
figure, axes = plt.subplots(2, 1, figsize=(9, 4.5), sharex=True, layout="constrained")
for ax, star in zip(axes, (bright, faint), strict=True):
    label = data.labels.iloc[star]
    ax.plot(data.wave, data.flux[star], lw=0.4, color="0.5", label="flux")
    ax.plot(data.wave, data.error[star], lw=0.8, color="C1", label="error")
    ax.set(ylim=(-0.5, 2.5), ylabel="flux [mean]")
    ax.set_title(
        f"T_eff {label.T_eff:.0f} K, log g {label.log_g:.1f}, [M/H] {label.M_H:+.1f}, SNR {label.snr:.1f}",
        loc="left",
        fontsize=10,
    )
axes[0].legend(loc="upper right", ncols=2)
axes[1].set_xlabel("wavelength [Å]")
plt.show()

# %% [markdown]
# ## Fit
#
# `for_spectra` with `experts="hierarchical"` sets up the dual tower. Every spectrum is reduced to Wiener scores, which weigh
# each pixel by its own error; ridge experts for nine regimes times four quality bins work on them. The physics gate reads lines and
# discriminants of the scores (linear estimates of regime and target), the quality gate statistics of the errors and the
# posterior variances of the scores. Regimes are needed to fit, not to predict.

# %%
train, test = slice(0, 5_000), slice(5_000, None)
model = DualTowerMoERegressor.for_spectra(data.wave, experts="hierarchical", fusion="poe", random_state=42)
model.fit(data.X[train], data.y[train], regimes=data.regimes[train])

single = DualTowerMoERegressor.for_spectra(
    data.wave, experts="hierarchical", quality_gate="drop", experts__quality_edges=None, random_state=42
)
single.fit(data.X[train], data.y[train], regimes=data.regimes[train])

print(f"R2 physics tower alone, 9 experts  {single.score(data.X[test], data.y[test]):.3f}")
print(f"R2 both towers, 9x4 experts        {model.score(data.X[test], data.y[test]):.3f}")

# %% [markdown]
# ## One star through every stage
#
# `trace` gives every stage of a prediction by name, in the order of the method.

# %%
star = test.start + int(np.argmin(np.abs(data.snr[test] - 5.0)))
trace = model.trace(data.X[[star]])

print(data.labels.iloc[star].round(2).to_dict())
names = model.tower_feature_names()
for name, value in zip(names["phys"], trace.phys_features[0], strict=True):
    print(f"  {name:28s} {value:8.3f}")
for name, value in zip(names["quality"][:10], trace.quality_features[0], strict=False):
    print(f"  {name:28s} {value:8.3f}")
print(f"prediction {trace.prediction[0]:.2f}, truth {data.y[star]:.2f}")

# %%
weights = trace.weights.reshape(9, 4)
predictions = trace.expert_predictions.reshape(9, 4)
temperatures, metallicities = ("< 4500 K", "4500 to 5250 K", "> 5250 K"), ("[M/H] < -1", "-1 to 0", "> 0")
names = [f"{t}, {m}" for t in temperatures for m in metallicities]
figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
for ax, values, title, cmap in (
    (axes[0], weights, "weights", "Blues"),
    (axes[1], predictions, "expert_predictions [dex]", "viridis"),
):
    figure.colorbar(ax.imshow(values, cmap=cmap, aspect="auto"), ax=ax)
    ax.set(title=title, xticks=range(4), xticklabels=SNR_RANGES, xlabel="quality bin (SNR)")
axes[0].set(yticks=range(9), yticklabels=names)
axes[0].plot(quality_bins(data.snr[[star]])[0], data.regimes[star], "r*", ms=12, label="true cell")
axes[0].legend(loc="lower right")
plt.show()

# %% [markdown]
# The prediction is the sum of the right panel weighted by the left one. The star is at 4629 K and [M/H] -1.5; its true regime
# has the largest weights, and the neighbouring regimes share the rest. Two quality bins share them too: their experts read
# scores that are already weighed by the errors of the row, and differ little.
#
# ## Where it works, and how sure the gate is

# %%
prediction, snr = model.predict(data.X[test]), data.snr[test]
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
points = axes[0].scatter(data.y[test], prediction, c=snr, s=6, cmap="viridis", vmax=7)
axes[0].plot([1, 5], [1, 5], color="0.3", lw=1)
axes[0].set(xlabel="log g [dex]", ylabel="prediction [dex]", aspect="equal", title="predicted against true")
figure.colorbar(points, ax=axes[0], label="SNR")
TrendDisplay.from_trace(model.trace(data.X[test]), snr, ax=axes[1])
axes[1].set_title("gate entropy against SNR")
plt.show()

# %% [markdown]
# Predictions are shrunk towards the mean, as they should be for noisy rows. The entropy of the gate is largest at intermediate
# ratios, where two quality bins meet; the noisiest rows mostly have one cell.

# %%
predictions = {"single": single.predict(data.X[test]), "dual": prediction}
table = bootstrap_scores(data.y[test], predictions, row_slices(len(snr), snr=snr), random_state=42)
for name, (single_r2, dual_r2) in zip(table.slices[1:], table.values["r2"][1:], strict=True):
    print(f"bin {name}: single tower {single_r2:6.3f}   dual 9x4 {dual_r2:6.3f}")

# %% [markdown]
# ## The same as a likelihood
#
# Without `experts=`, `for_spectra` makes a factor mixture. How likely a spectrum is under each component, given its errors, is
# the weight of the component; no gate is trained. The prediction is a density, here of six stars in the order of their SNR, with
# the true log g as a line.

# %%
likelihood = DualTowerMoERegressor.for_spectra(data.wave, n_jobs=-1, random_state=42)
likelihood.fit(data.X[train], data.y[train], regimes=data.regimes[train])
density = likelihood.predict_density(data.X[test])
print(f"R2 of the factor mixture, {likelihood.experts_.n_components_} components: "
      f"{likelihood.score(data.X[test], data.y[test]):.3f}")  # fmt: skip
inside = np.abs(density.cdf(data.y[test]) - 0.5) < 0.45
print(f"{inside.mean():.1%} of the stars within their 90 % intervals")

grid, chosen = np.linspace(0, 6, 301), np.argsort(snr)[np.linspace(20, len(snr) - 20, 6).astype(int)]
figure, axes = plt.subplots(2, 3, figsize=(9, 4.5), sharex=True, layout="constrained")
values = np.exp([density[chosen].log_density(value) for value in grid])
for ax, row, value in zip(axes.flat, chosen, values.T, strict=True):
    ax.fill_between(grid, value, alpha=0.4)
    ax.axvline(data.y[test][row], color="k", lw=1)
    ax.set_title(f"SNR {snr[row]:.1f}", fontsize=10)
    ax.set_ylim(0)
figure.supxlabel("log g [dex]")
figure.supylabel("predictive density")
plt.show()
