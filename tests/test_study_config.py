import json
import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils import Bunch

from dualgate import DualTowerMoERegressor
from dualgate.study.cli import stages_hash
from dualgate.study.config import SCORES, ConfigError, StudyConfig, Training, load_config
from dualgate.study.inputs import StudyRows
from dualgate.study.methods import METHODS

TABLE = "[data]\nsource = 't.csv'\nflux = ['f*']\nerror = ['e*']\ntarget = 'y'\n"


# ---- the file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data]\nsourc = 'embedded'", '[data] sourc: unknown key; did you mean "source"?'),
        ("[trainin]\nlr = 1", 'trainin: unknown key; did you mean "training"?'),
        ("seed = 3", 'seed: unknown key; did you mean "seeds"?'),
        ("rows = 999", "rows = 999: must be at least 1,000"),
        ("rows = 2000.5", "rows = 2000.5: must be an integer"),
        ("rows = true", "rows = True: must be an integer"),
        ("seeds = []", "seeds = []: must name one value or more"),
        ("seeds = [1, 1]", "seeds = [1, 1]: must name one value or more, and none twice"),
        ("seeds = [-1]", "seeds = [-1]: must be at least 0"),
        ("methods = 3", "methods = 3: must be a list, or a text"),
        ("full = 'yes'", "full = 'yes': must be true or false"),
        ("data = 'embedded'", "[data] must be a section of keys"),
        ("[training]\nlr = 0.0", "[training] lr = 0.0: must be above 0"),
        ("[training]\nlr = inf", "[training] lr = inf: must be finite"),
        ("[training]\nmax_epochs = 0", "[training] max_epochs = 0: must be at least 1"),
        ("[thresholds]\nrho = 'high'", "[thresholds] rho = 'high': must be a number"),
        ("[thresholds]\nfirst = 0.02", "[thresholds] first = 0.02: must not be above continue = 0.01"),
        ("[thresholds]\nboundary = [1.0]", "[thresholds] boundary: holds 1 distances, the rows have 2 conditions"),
        ("[bootstrap]\nresamples = 1", "[bootstrap] resamples = 1: must be at least 20"),
        ("[data]\nflux = ['a']", "[data] flux: names a column of a table, but source = 'embedded' is none"),
        ("[data]\nsource = 't.csv'", "[data] flux: missing"),
        ("[data]\nsource = 't.csv'\nflux = 'f'\ntarget = 'y'", "[data] error: missing, and quality too"),
        ("rows = ", "is no TOML file"),
        (f"{TABLE}quality = ['q']", "[data] quality: cannot be given together with error"),
        (f"{TABLE}conditions = ['T']", "[data] regime_edges: must hold edges for each of 1 conditions, not for 0"),
        (f"{TABLE}conditions = ['T']\nregime_edges = [[1], [2]]", "edges for each of 1 conditions, not for 2"),
        (f"{TABLE}conditions = ['T']\nregime_edges = [[2, 1]]", "[data] regime_edges = [[2, 1]]: must increase"),
        (
            f"{TABLE}conditions = ['T']\nregime_edges = [[1]]\nregimes = 'r'",
            "[data] conditions: cannot be given together",
        ),
        (f"{TABLE}wave = [2, 1]", "[data] wave = [2, 1]: must increase"),
        (f"{TABLE}[scores]\nmax_iter = 3", "[scores] max_iter = 3: is for spectra"),
        (f"{TABLE}[limit]\nrows = 3", "[limit] rows = 3: must be 0 where source = 't.csv'"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(text, message, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(str(path), {})


def test_flags_override_the_file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("rows = 5000\nfull = true\n[data]\nsource = 'shards/*.h5'\n[training]\nlr = 0.1\n")
    config = load_config(str(path), {"rows": 6000, "data": {"source": "embedded"}})
    assert (config.rows, config.data.source, config.training.lr, config.full) == (6000, "embedded", 0.1, True)
    assert load_config(str(path), {"methods": ["poe_9"]}).full is False
    assert load_config(None, {}).rows == 20_000


def test_the_effective_configuration_reads_back_as_itself():
    config = StudyConfig.of({"thresholds": {"continue": 0.02}, "data": {"source": "a/*.h5"}})
    plain = json.loads(json.dumps(config.as_dict()))

    def given_keys(mapping):
        return {k: given_keys(v) if isinstance(v, dict) else v for k, v in mapping.items() if v is not None}

    assert StudyConfig.of(given_keys(plain)) == config
    assert plain["thresholds"]["boundary"] == [100.0, 0.1]


def test_the_defaults_of_training_are_those_of_the_mixture():
    model = DualTowerMoERegressor()
    for part in fields(Training):
        assert getattr(Training(), part.name) == getattr(model, part.name)


def test_every_key_is_documented():
    page = (Path(__file__).parents[1] / "docs" / "study.md").read_text(encoding="utf-8")
    page = page[page.index("## Configuration") : page.index("## Stages")]
    made = [part.default_factory for part in fields(StudyConfig) if part.default_factory is not MISSING]
    for section in (StudyConfig, *made):
        for part in fields(section):
            assert re.search(rf"\b{part.name.rstrip('_')}\b", page), part.name


# ---- hashes ----------------------------------------------------------------------------------------------


def hash_of(content="rows", **more):
    return stages_hash(StudyConfig.of(more), [content])


CHANGED = {"batch_size": 77, "validation_fraction": 0.3, "lr": 0.3}
TRAINING = [{part.name: CHANGED.get(part.name, 77)} for part in fields(Training)]


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ({"out": "elsewhere"}, True),
        ({"methods": ["poe_9"]}, True),
        ({"full": True, "scores": SCORES[False]}, True),  # as in a run of few
        ({"seeds": [7]}, True),
        ({"thresholds": {"continue": 0.5}}, True),
        ({"bootstrap": {"resamples": 50}}, True),
        ({"rows": 20_000}, True),  # what it is anyway
        ({"rows": 5000}, False),
        ({"data": {"source": "a.h5"}}, False),
        ({"content": "others"}, False),
        *(({"training": changed}, False) for changed in TRAINING),
    ],
)
def test_what_changes_numbers_starts_separate_stages(more, same):
    assert (hash_of(**more) == hash_of()) == same


def test_columns_and_code_change_the_stages_and_the_place_does_not(monkeypatch):
    table = tomllib.loads(TABLE)["data"]
    one = hash_of(data=table)
    assert hash_of(data=table | {"source": "elsewhere/t.csv"}) == one
    assert hash_of(data=table | {"target": "z"}) != one
    monkeypatch.setattr("dualgate.rows.store.code_hash", lambda *modules: "other")
    assert hash_of(data=table) != one


def test_a_full_run_computes_scores_as_the_estimator_does():
    """What `--full` fills in is what `for_spectra` has."""
    wave = np.linspace(7100, 8850, 4096)
    own = DualTowerMoERegressor.for_spectra(wave, experts="hierarchical").get_params()
    filled = StudyConfig.of({"full": True}).as_dict()["scores"]
    assert filled.pop("components") == DualTowerMoERegressor.for_spectra(wave).experts.n_components
    assert filled == {name: own[f"experts__projection__{name}"] for name in filled}
    quick = StudyConfig.of({"scores": {"max_iter": 3}})
    made = StudyRows(quick).make_model(Bunch(wave=wave), 1).get_params()
    asked = quick.as_dict()["scores"]
    assert {name: made[f"experts__projection__{name}"] for name in filled} == {name: asked[name] for name in filled}
    assert made["experts__projection__max_iter"] == 3
    mixed = StudyRows(quick).make_model(Bunch(wave=wave), 1, "factor").get_params()
    assert mixed["experts__n_components"] == asked["components"] == 36


def test_another_version_of_a_method_s_package_is_another_fit(monkeypatch):
    def keys(number):
        monkeypatch.setattr("dualgate.study.methods.version", lambda package: number)
        return {name: method.fit_key for name, method in METHODS.items()}

    one, two = keys("4.1"), keys("4.2")
    assert {name for name in one if one[name] != two[name]} == {"lightgbm"}
