"""Intervals hold what they promise: in every bin, whatever the density; and the variances of ridges are found."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax

from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts, MixtureDensity, PhysGate, QualityGate
from dualgate.experts import ExtrapolationWarning
from dualgate.intervals import CoverageWarning, IntervalScale, residual_variances
from dualgate.rows import as_source

COVERAGES = (0.68, 0.90, 0.95)
P = 20
FLUX, ERROR = slice(0, P), slice(P, None)


def gaussian(mean, std):
    """Density of one Gaussian for every row."""
    mean = np.asarray(mean, dtype=float)
    variance = np.broadcast_to(np.square(std), mean.shape)
    return MixtureDensity(np.zeros((len(mean), 1)), mean[:, None, None], variance[:, None, None, None])


def within(interval, y):
    return (interval[..., 0] <= y) & (y <= interval[..., 1])


def scatter_of_coverage(coverage, n_calibration, n_fresh):
    """Standard deviation of the coverage of fresh rows: that of a Beta and of a binomial distribution."""
    return np.sqrt(coverage * (1 - coverage) * (1 / n_calibration + 1 / n_fresh))


# ---- the law ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_rows=st.integers(4, 40),
    coverage=st.floats(0.05, 0.95),
    misplaced=st.floats(-3, 3),
    too_wide=st.floats(0.2, 5),
)
def test_left_out_one_by_one_the_share_inside_is_what_was_asked_for(seed, n_rows, coverage, misplaced, too_wide):
    """Exact for every set of rows and every density: a row is inside if its rank among all is small enough."""
    rng = np.random.default_rng(seed)
    y = rng.standard_t(3, size=n_rows)
    density = MixtureDensity(
        log_softmax(rng.normal(size=(n_rows, 3)), axis=1),
        misplaced + too_wide * rng.normal(size=(n_rows, 3, 1)),
        too_wide * rng.uniform(0.1, 1, size=(n_rows, 3, 1, 1)),
    )
    rank, inside = int(np.ceil(n_rows * coverage)), 0
    for row in range(n_rows):
        others = np.arange(n_rows) != row
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoverageWarning)
            interval = IntervalScale.of(density[others], y[others]).interval("model", density[[row]], None, coverage)
        inside += within(interval, y[[row]])[0]
    scores = np.sort(np.minimum(density.cdf(y), density.survival(y)))
    distinct = (np.diff(scores) > 1e-9 * scores[1:]).all()
    assert inside == rank if distinct else inside >= rank


def wrong_densities(y, level, truth, rng):
    """Densities of rows y = truth + level * noise that are wrong, each in its way."""
    n_rows = len(y)
    apart = np.stack([truth - 30, truth + 30], axis=1)[..., None]  # its distribution is flat where the rows are
    return {
        "right": gaussian(truth, level),
        "does not know the quality": gaussian(truth, 1.0),
        "far too narrow": gaussian(truth, 0.2 * level),
        "misplaced": gaussian(truth + 6 * level, level),
        "of noise": gaussian(rng.normal(size=n_rows), rng.uniform(0.5, 2, size=n_rows)),
        "flat": MixtureDensity(np.full((n_rows, 2), np.log(0.5)), apart, np.full((n_rows, 2, 1, 1), 0.01)),
    }


@pytest.mark.parametrize("seed", range(3))
def test_every_bin_of_quality_is_covered_whatever_the_density_is(seed):
    rng = np.random.default_rng(seed)
    n_calibration, n_fresh = 6000, 20_000
    quality = rng.uniform(0.5, 10, size=n_calibration + n_fresh)
    truth, level = rng.normal(size=len(quality)), 3 / quality
    y = truth + level * rng.standard_t(5, size=len(quality))
    old, new = slice(0, n_calibration), slice(n_calibration, None)
    for name, density in wrong_densities(y, level, truth, rng).items():
        scale = IntervalScale.of(density[old], y[old], quality[old])
        bins, old_bins = (np.digitize(quality[part], scale.edges) for part in (new, old))
        assert len(scale.scores) == 5
        for coverage in COVERAGES:
            inside = within(scale.interval("model", density[new], quality[new], coverage), y[new])
            for place in range(5):
                counts = (old_bins == place).sum(), (bins == place).sum()
                low = coverage - 4.5 * scatter_of_coverage(coverage, *counts)
                high = 1.0 if name == "flat" else 2 * coverage - low + 1 / counts[0]  # ties
                assert low < inside[bins == place].mean() <= high, (name, coverage, place)
    # what bins are for: one scale for all fails in them
    density = gaussian(truth, 1.0)
    inside = within(IntervalScale.of(density[old], y[old]).interval("model", density[new], None, 0.9), y[new])
    assert inside[bins == 0].mean() < 0.8
    assert inside[bins == 4].mean() > 0.97


def test_several_targets_are_covered_each():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(8000, 2)) * [1, 3]
    density = MixtureDensity(np.zeros((8000, 1)), np.zeros((8000, 1, 2)), np.tile(np.eye(2), (8000, 1, 1, 1)), False)
    interval = IntervalScale.of(density[:4000], y[:4000]).interval("model", density[4000:], None, 0.8)
    assert interval.shape == (4000, 2, 2)
    assert_allclose(within(interval, y[4000:]).mean(axis=0), 0.8, atol=4.5 * scatter_of_coverage(0.8, 4000, 4000))
    assert_allclose(np.diff(interval[0])[:, 0], 2 * 1.2816 * np.array([1, 3]), rtol=0.1)


def test_fewer_rows_than_the_coverage_needs_give_infinite_intervals_and_say_so():
    rng = np.random.default_rng(0)
    density, y = gaussian(np.zeros(19), 1.0), rng.normal(size=19)
    scale = IntervalScale.of(density, y)
    assert np.isfinite(scale.interval("model", density, None, 0.95)).all()  # 19 rows are what 0.95 needs
    with pytest.warns(CoverageWarning, match=r"coverage=0\.96 needs 24 calibration rows in every .* one has 19"):
        interval = scale.interval("model", density, None, 0.96)
    assert_array_equal(interval, np.tile([-np.inf, np.inf], (19, 1)))
    few = IntervalScale.of(density[:8], y[:8])
    with pytest.warns(CoverageWarning, match=r"needs 9 calibration rows .* one has 8"):
        few.interval("model", density, None, 0.9)


def test_densities_that_exclude_the_truth_give_infinite_intervals_and_say_so():
    density, y = gaussian(np.zeros(40), 1e-3), np.random.default_rng(0).normal(size=40)
    with pytest.warns(CoverageWarning, match=r"coverage=0\.9 reaches training rows whose densities exclude"):
        assert np.isinf(IntervalScale.of(density, y).interval("model", density, None, 0.9)).all()


def test_bins_of_quality_are_left_out_where_rows_are_few():
    rng = np.random.default_rng(0)
    quality, density, y = rng.uniform(size=3000), gaussian(np.zeros(3000), 1.0), rng.normal(size=3000)
    bins = {n: len(IntervalScale.of(density[:n], y[:n], quality[:n]).scores) for n in (300, 900, 3000)}
    assert bins == {300: 1, 900: 4, 3000: 4}
    same = IntervalScale.of(density, y, np.ones(3000))  # a quality that does not vary
    assert_allclose(same.interval("model", density[:5], np.ones(5), 0.5)[:, 1], 0.6745, atol=0.1)


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 1.5, np.nan, "most", None, True])
def test_a_coverage_that_cannot_be_is_named(coverage):
    scale = IntervalScale.of(gaussian(np.zeros(30), 1.0), np.arange(30.0))
    with pytest.raises(ValueError, match="coverage="):
        scale.interval("model", gaussian(np.zeros(3), 1.0), None, coverage)


def test_of_gaussians_it_is_what_crepes_finds():
    """The score of a Gaussian density is a normalised residual: both intervals are symmetric about the mean."""
    crepes = pytest.importorskip("crepes")
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=(2, 4000))
    std = np.exp(0.5 * std)
    y, old, new = mean + std * rng.standard_t(4, size=4000), slice(0, 2000), slice(2000, None)
    scale = IntervalScale.of(gaussian(mean[old], std[old]), y[old])
    peer = crepes.ConformalRegressor().fit(residuals=(y - mean)[old], sigmas=std[old])
    for coverage in (0.5, *COVERAGES):
        expected = peer.predict_int(mean[new], sigmas=std[new], confidence=coverage)
        assert_allclose(scale.interval("model", gaussian(mean[new], std[new]), None, coverage), expected, rtol=1e-6)


def test_in_bins_it_is_what_crepes_finds_in_categories():
    crepes = pytest.importorskip("crepes")
    rng = np.random.default_rng(1)
    mean, quality = rng.normal(size=6000), rng.uniform(1, 5, size=6000)
    y, old, new = mean + rng.normal(size=6000) / quality, slice(0, 4000), slice(4000, None)
    scale = IntervalScale.of(gaussian(mean[old], 1.0), y[old], quality[old])
    bins = np.digitize(quality, scale.edges)
    peer = crepes.ConformalRegressor().fit(residuals=(y - mean)[old], bins=bins[old])
    expected = peer.predict_int(mean[new], bins=bins[new], confidence=0.9)
    found = scale.interval("model", gaussian(mean[new], 1.0), quality[new], 0.9)
    assert_allclose(found, expected, rtol=1e-6)


# ---- variances of ridges ---------------------------------------------------------------------------------------------


def test_planted_variances_are_found():
    rng = np.random.default_rng(0)
    planted, n_rows = np.array([0.04, 1.0, 9.0]), 30_000
    log_weights = log_softmax(2 * rng.normal(size=(n_rows, 3)), axis=1)
    drawn = (rng.uniform(size=(n_rows, 1)) > np.exp(log_weights).cumsum(axis=1)).sum(axis=1).clip(max=2)
    known, predictions = rng.uniform(0, 0.5, size=(n_rows, 3)), 5 * rng.normal(size=(n_rows, 3))
    own = np.arange(n_rows), drawn
    y = predictions[own] + np.sqrt(planted[drawn] + known[own]) * rng.normal(size=n_rows)
    found = residual_variances(log_weights, y[:, None] - predictions, known, n_steps=60)
    assert_allclose(found, planted, rtol=0.1, atol=0.01)
    assert_allclose(residual_variances(log_weights, y[:, None] - predictions, known), planted, rtol=0.2, atol=0.1)


def test_an_expert_without_rows_has_a_typical_variance_and_none_has_none():
    rng = np.random.default_rng(0)
    log_weights = np.tile([0.0, -800.0], (500, 1))
    deviation = rng.normal(size=(500, 2))
    found = residual_variances(log_weights, deviation, np.zeros((500, 2)))
    assert_allclose(found, 1, rtol=0.25)
    exact = residual_variances(log_weights, np.zeros((500, 2)), np.zeros((500, 2)))
    assert (exact > 0).all()


# ---- mixtures --------------------------------------------------------------------------------------------------------


def draw(n_rows, seed):
    """Two regimes with a line of their own each, and errors that differ by a factor of ten."""
    rng, planted = np.random.default_rng(seed), np.random.default_rng(0)
    loadings, slopes = planted.normal(size=(3, P)), planted.normal(size=(2, 3))
    regimes, error = rng.integers(2, size=n_rows), np.exp(rng.uniform(-2, 0.3, size=(n_rows, 1))) * np.ones(P)
    factors = rng.normal(size=(n_rows, 3))
    factors[:, 0] += 3 * regimes
    y = np.einsum("ij,ij->i", factors, slopes[regimes]) + 0.1 * rng.normal(size=n_rows)
    return np.hstack([2 + factors @ loadings + error * rng.normal(size=error.shape), error]), y, regimes


TRAIN, FRESH = draw(2400, 1), draw(6000, 2)


def factor(**params):
    experts = FactorExperts(FLUX, ERROR, n_components=4, n_factors=3, refine=1)
    return DualTowerMoERegressor("drop", "drop", experts=experts, random_state=0).set_params(**params)


def towers_over(experts, **params):
    return DualTowerMoERegressor(
        PhysGate(FLUX), QualityGate(ERROR), experts=experts, **{"max_epochs": 3, "random_state": 0, **params}
    )


MAKERS = {
    "factor": factor,
    "alone": lambda: FactorExperts(FLUX, ERROR, n_components=4, n_factors=3, refine=1, random_state=0),
    "factor and towers": lambda: towers_over(FactorExperts(FLUX, ERROR, n_components=4, n_factors=3, refine=1)),
    "ridges": lambda: towers_over(HierarchicalExperts(FLUX, ERROR, projection="wiener")),
    "ridges of bins": lambda: towers_over(HierarchicalExperts(FLUX, ERROR, quality_edges=(4,))),
    "ridges, one tower": lambda: towers_over(HierarchicalExperts(FLUX, ERROR)).set_params(quality_gate="drop"),
    "ridges without errors": lambda: DualTowerMoERegressor(max_epochs=2, random_state=0),
}


@pytest.fixture(scope="module")
def models():
    kept = {}

    def fitted(name):
        if name not in kept:
            kept[name] = MAKERS[name]().fit(TRAIN[0], TRAIN[1], regimes=TRAIN[2])
        return kept[name]

    return fitted


def check_coverage(interval, y, quality, n_calibration=2400):
    order = np.argsort(quality)
    for rows in np.array_split(order, 3):  # coverage within thirds of the rows, sorted by their quality
        scatter = scatter_of_coverage(0.9, n_calibration / 3, len(rows))
        assert abs(within(interval[rows], y[rows]).mean() - 0.9) < 4.5 * scatter


@pytest.mark.parametrize("name", MAKERS)
def test_mixtures_cover_fresh_rows(models, name):
    model, (X, y, _) = models(name), FRESH
    interval = model.predict_interval(X, 0.9)
    assert interval.shape == (len(y), 2)
    assert np.isfinite(interval).all()
    if name == "ridges without errors":  # no quality is known: the promise is that for all rows
        assert abs(within(interval, y).mean() - 0.9) < 4.5 * scatter_of_coverage(0.9, len(TRAIN[1]), len(y))
    else:
        check_coverage(interval, y, -X[:, P])
    wider = model.predict_interval(X[:200], 0.95)
    assert (wider[:, 0] <= interval[:200, 0]).all()
    assert (wider[:, 1] >= interval[:200, 1]).all()
    assert_allclose(model.predict_interval(X[:200]), interval[:200], rtol=1e-5)


def test_the_calibration_is_that_of_the_model(models):
    """A density that is wrong by a factor is put right by scores, which a scale of other scores does not."""
    model, (X, y, _) = models("factor"), FRESH
    density, snr = model.predict_density(X), model.trace(X).snr
    narrow = MixtureDensity(density.log_weights, density.means, density.covariance / 9)
    assert within(model.intervals_.interval(model, narrow, snr, 0.9), y).mean() < 0.75
    half = slice(0, 3000)
    own = IntervalScale.of(narrow[half], y[half], snr[half])
    check_coverage(own.interval(model, narrow[3000:], snr[3000:], 0.9), y[3000:], snr[3000:], 3000)


def test_noisier_rows_have_wider_intervals(models):
    for name in ("factor", "ridges"):
        X = FRESH[0]
        width, noisy = np.ptp(models(name).predict_interval(X), axis=1), X[:, P] > 0.8
        assert width[noisy].mean() > 1.3 * width[X[:, P] < 0.2].mean()


@pytest.mark.parametrize("name", ["factor", "factor and towers", "ridges"])
def test_density_prediction_and_std_agree(models, name):
    model, X = models(name), FRESH[0][:300]
    density, (mean, std) = model.predict_density(X), model.predict(X, return_std=True)
    assert_allclose(mean, density.mean)
    assert_allclose(std, density.std)
    assert_allclose(model.predict(X), mean, rtol=1e-6, atol=1e-6)


def test_stated_scatter_of_ridges_is_that_of_their_errors(models):
    X, y, _ = FRESH
    for name in ("ridges", "ridges of bins", "ridges without errors"):
        mean, std = models(name).predict(X, return_std=True)
        assert abs(np.sqrt(np.mean(np.square((y - mean) / std))) - 1) < 0.12


def test_several_targets(models):
    X, y, regimes = TRAIN
    both = np.column_stack([y, 10 * y**2])
    fresh = np.column_stack([FRESH[1], 10 * FRESH[1] ** 2])
    interval = factor().fit(X, both, regimes=regimes).predict_interval(FRESH[0])
    assert interval.shape == (len(fresh), 2, 2)
    for target in range(2):
        check_coverage(interval[:, target], fresh[:, target], -FRESH[0][:, P])


@pytest.mark.parametrize("name", ["factor", "alone", "factor and towers", "ridges"])
def test_sources_and_batches_give_the_same_intervals(models, name, tmp_path):
    model, X = models(name), FRESH[0][:900]
    expected = model.predict_interval(X)
    np.save(tmp_path / "x.npy", X)
    assert_allclose(model.predict_interval(as_source(np.load(tmp_path / "x.npy", mmap_mode="r"))), expected, rtol=1e-6)
    order = np.random.default_rng(0).permutation(900)
    parts = np.concatenate([model.predict_interval(X[part]) for part in np.array_split(order, 7)])
    assert_allclose(parts, expected[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["factor", "ridges"])
def test_reduced_rows_give_the_same_intervals(models, name):
    model, X = models(name), FRESH[0][:400]
    assert_allclose(model.predict_interval(model.reduction_.read(X)), model.predict_interval(X), rtol=1e-6)
    reduction = MAKERS[name]().make_reduction().fit(TRAIN[0], TRAIN[1], regimes=TRAIN[2])
    again = MAKERS[name]().fit(reduction.read(TRAIN[0], training=True), TRAIN[1], regimes=TRAIN[2])
    unseen = reduction.read(FRESH[0])
    assert abs(within(again.predict_interval(unseen), FRESH[1]).mean() - 0.9) < 0.04


@pytest.mark.filterwarnings("ignore::dualgate.experts.EmptyCellWarning")  # few rows for its components too
def test_few_training_rows_give_infinite_intervals(models):
    X, y, regimes = (each[:60] for each in TRAIN)
    model = factor().fit(X, y, regimes=regimes)
    with pytest.warns(
        CoverageWarning, match="coverage=0.99 needs 99 calibration rows in every quality bin, one has 60"
    ):
        assert np.isinf(model.predict_interval(FRESH[0][:5], 0.99)).all()
    assert np.isfinite(model.predict_interval(FRESH[0][:5], 0.9)).all()


def test_rows_that_fall_back_have_no_density(models):
    model = towers_over(HierarchicalExperts(FLUX, ERROR), fallback_confidence=0.5, max_epochs=1)
    model.fit(TRAIN[0], TRAIN[1], regimes=TRAIN[2])
    for ask in (model.predict_interval, model.predict_density, lambda X: model.predict(X, return_std=True)):
        with pytest.raises(ValueError, match=r"fallback_confidence=0\.5.*no density.*Set it to None"):
            ask(FRESH[0])


@pytest.mark.parametrize("name", ["factor", "alone", "ridges"])
@pytest.mark.parametrize("coverage", [0, 1, 90, "0.9"])
def test_coverage_is_checked(models, name, coverage):
    with pytest.raises(ValueError, match=r"(DualTowerMoERegressor|FactorExperts)\..*coverage="):
        models(name).predict_interval(FRESH[0][:5], coverage)


def test_rows_unlike_the_training_rows_are_named(models):
    X = FRESH[0][:50].copy()
    X[:, FLUX] += 100 * np.random.default_rng(0).normal(size=(50, P))
    for name in ("factor", "alone"):
        with pytest.warns(ExtrapolationWarning):
            models(name).predict_interval(X)
