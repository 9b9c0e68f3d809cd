"""Model cards: numbers that are those of the model, and text that stays text."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import mean_absolute_error, r2_score

from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts, PhysGate, QualityGate
from dualgate.export import model_card
from dualgate.features import signal_to_noise

P = 12
FLUX, ERROR = slice(0, P), slice(P, None)
HEADINGS = ["What it is", "Data", "Regimes", "Scores", "Limits", "Provenance"]


def draw(n_rows, seed):
    rng = np.random.default_rng(seed)
    z, regimes = rng.normal(size=(n_rows, 2)), rng.integers(2, size=n_rows)
    error = np.exp(rng.uniform(-2, 1, size=(n_rows, 1))) * np.ones(P)
    loadings = np.random.default_rng(9).normal(size=(2, P))
    flux = 1 + z @ loadings + error * rng.normal(size=error.shape)
    return np.hstack([flux, error]), z[:, 0] + 0.3 * regimes, regimes


@pytest.fixture(scope="module")
def rows():
    return draw(800, 0), draw(500, 1)


def factor():
    return FactorExperts(FLUX, ERROR, n_components=3, n_factors=2, refine=1, random_state=0)


def hierarchical():
    return HierarchicalExperts(FLUX, ERROR, quality_edges=(2, 4), clip=True, random_state=0)


def mixture(experts=None):
    gates = PhysGate(FLUX), QualityGate(ERROR)
    return DualTowerMoERegressor(*gates, experts=experts or hierarchical(), max_epochs=1, random_state=0)


def table_of(card):
    """Rows of the table of scores, by slice."""
    part = card.split("## Scores")[1].split("## Limits")[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
    return {cells[0].partition(",")[0]: dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]}


@pytest.mark.parametrize(
    "make", [factor, hierarchical, mixture, lambda: mixture(factor())], ids=["factor", "ridges", "mixture", "both"]
)
def test_scores_are_those_of_the_model(make, rows):
    (X, y, regimes), (unseen, truth, codes) = rows
    model = make().fit(X, y, regimes=regimes)
    card = model_card(model, unseen, truth, regimes=codes, data="Drawn with a seed.")
    assert re.findall("^## (.*)$", card, re.MULTILINE) == HEADINGS
    assert "Drawn with a seed." in card
    found, prediction = table_of(card), model.predict(unseen)
    slices = {"all": np.ones(len(truth), bool), "H": signal_to_noise(unseen[:, FLUX], unseen[:, ERROR]) > 7}
    slices |= {"regime 1": codes == 1}
    for name, chosen in slices.items():
        shown = found[name]
        assert int(shown["number"]) == chosen.sum()
        assert float(shown["R² [95 %]"].split()[0]) == pytest.approx(
            r2_score(truth[chosen], prediction[chosen]), abs=1e-3
        )
        assert float(shown["MAE"]) == pytest.approx(mean_absolute_error(truth[chosen], prediction[chosen]), rel=0.01)
    if isinstance(model, DualTowerMoERegressor):
        low, high = model.predict_interval(unseen, 0.9).T
    elif isinstance(model, FactorExperts):
        low, high = (model.predict_density(unseen).quantile(share) for share in (0.05, 0.95))
    else:
        return
    inside = (low <= truth) & (truth <= high)
    assert float(found["all"]["within 90% interval"]) == pytest.approx(inside.mean(), abs=1e-3)


def test_a_card_without_rows_says_so_and_names_what_the_model_is(rows):
    X, y, regimes = rows[0]
    card = model_card(mixture().fit(X, y, regimes=regimes))
    assert "No rows were given to score it." in card
    assert "2 regimes times 3 quality bins" in card
    assert "a physics tower and a quality tower (ConcatFusion)" in card
    assert "Training rows: 800." in card
    assert "random_state=0" in card


def test_names_of_columns_stay_text(rows):
    X, y, _ = rows[0]
    evil = "<script>alert(1)</script>|[x](javascript:alert(1))```"
    frame = pd.DataFrame(X, columns=[evil, *(f"c{i}" for i in range(2 * P - 1))])
    model = HierarchicalExperts([evil, "c1"], random_state=0).fit(frame, y)
    card = model_card(model, data=f"{evil}\n# Heading")
    text, _, code = card.partition("```python\n")
    assert "alert(1)" in text
    assert "<script" not in text
    assert "](" not in text
    assert re.findall("^# .*$", text, re.MULTILINE) == ["# Model card: HierarchicalExperts"]
    assert code.count("```") == 1
    assert "alert(1)" in code


def test_names_of_columns_stay_text_in_a_notebook(rows):
    X, y, _ = rows[0]
    evil = "<img src=x onerror=alert(1)>"
    frame = pd.DataFrame(X, columns=[evil, *(f"c{i}" for i in range(2 * P - 1))])
    model = HierarchicalExperts([evil, "c1"], random_state=0).fit(frame, y)
    shown = model._repr_html_()
    assert "onerror=alert(1)" in shown
    assert "<img src=x" not in shown


def test_what_does_not_fit_is_named(rows):
    X, y, _ = rows[0]
    with pytest.raises(NotFittedError):
        model_card(factor())
    model = factor().fit(X, np.column_stack([y, -y]))
    with pytest.raises(ValueError, match="give both X and y"):
        model_card(model, X)
    with pytest.raises(ValueError, match="one target"):
        model_card(model, X, np.column_stack([y, -y]))
