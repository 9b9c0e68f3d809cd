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
# # Searching over fusions
#
# A `DualTowerMoERegressor` is an ordinary scikit-learn estimator. `GridSearchCV` compares the four ways to fuse the towers.
# With `memory=` the rows of a fold are reduced once and its experts fitted once, for all four. The search takes about a minute
# on one core.

# %%
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import GridSearchCV

from dualgate import DualTowerMoERegressor
from dualgate.datasets import make_spectra

data = make_spectra(3_000, random_state=42)
train, test = slice(0, 2_000), slice(2_000, None)
cache = TemporaryDirectory()
model = DualTowerMoERegressor.for_spectra(data.wave, experts="hierarchical", memory=cache.name, random_state=42)

# %% [markdown]
# `regimes` is passed to `fit` beside X and y, and cross-validation slices it with them.

# %%
space = {"fusion": ["concat", "logit_add", "poe", "temperature"]}
search = GridSearchCV(model, space, cv=3, scoring="r2")
search.fit(data.X[train], data.y[train], regimes=data.regimes[train])

results = pd.DataFrame(search.cv_results_).set_index("param_fusion")[
    ["mean_test_score", "std_test_score", "mean_fit_time"]
]
results.round(3)

# %% [markdown]
# The bars are standard deviations over folds. With this few rows they are wide, and the differences between fusions are not
# significant: `dualgate.select_towers` then chooses the simplest configuration within one standard error of the best.

# %%
figure, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
ax.errorbar(results["mean_test_score"], results.index, xerr=results["std_test_score"], fmt="o", capsize=3)
ax.set(xlabel="R² (mean and standard deviation of three folds)", ylabel="fusion")
ax.margins(y=0.2)
plt.show()
print(
    f"chosen: {search.best_params_['fusion']}, R2 on rows not used so far "
    f"{search.score(data.X[test], data.y[test]):.3f}"
)

# %% [markdown]
# Nested parameters are searched the same way, on the plain default object too: `quality_gate__hidden`,
# `experts__sharing`, `experts__n_components`.

# %%
cache.cleanup()
