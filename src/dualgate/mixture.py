"""The mixture: two gates, a fusion, and the experts that they weigh."""

import numbers
import time
import warnings

import numpy as np
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from dualgate._components import NestedParams, realise
from dualgate._validation import allows_nan, check_choice, check_number, check_target, make_generator
from dualgate.experts import FactorExperts, HierarchicalExperts
from dualgate.experts.finding import FIND_ROWS, RegimeFinder
from dualgate.experts.regimes import describe_conditions, regime_codes
from dualgate.features import LineWindows, Nuisances, WienerScores
from dualgate.features.lines import check_wave
from dualgate.gating import FUSIONS, Fusion, PhysGate, QualityGate
from dualgate.gating.collapse import warn_of_collapse
from dualgate.intervals import CALIBRATION_ROWS, IntervalScale, residual_variances
from dualgate.reduction import FEATURES, HELD_ROWS, ReducedRows
from dualgate.rows import FitStages, choose_spread, map_blocks, open_fit_rows, open_rows, take_rows
from dualgate.snr import SNR_EDGES
from dualgate.trace import TRACE_WIDTH, MixtureTrace

LOSSES, STARTS = ("mse", "cross_entropy"), ("linear", "random")
TOWERS, EXPERTS = ("phys", "quality"), {"hierarchical": HierarchicalExperts, "factor": FactorExperts}
PRIOR_ROWS = 10  # rows of all cells that the residual variance of each expert includes
LEAST_VARIANCE = 1e-6  # of y
SCALE, SKY = 0.1, 5.0  # prior standard deviations of the scale of a spectrum, and of what is left of the sky
FACTOR_STEPS = 4  # of Wiener scores for spectra, before the factor mixture refines their loadings


def has_factor_experts(model):
    """Whether the experts of a mixture are factor experts, which describe rows and not targets alone."""
    return isinstance(vars(model).get("experts_") or model.make_experts(), FactorExperts)


class DualTowerMoERegressor(NestedParams, RegressorMixin, BaseEstimator):
    r"""Mixture of linear experts, weighed by a physics tower and a quality tower.

    .. math:: \hat y = \sum_k w_k(x)\, f_k(x), \qquad
        w = \mathrm{fusion}(\mathrm{tower}_{phys}(x), \mathrm{tower}_{quality}(x))

    The experts are ridges in closed form, one for each cell of physical regime and quality bin, or the components of a
    factor mixture (:class:`~dualgate.experts.FactorExperts`), whose log evidence of a row, given its errors, is added
    to the logits that the fusion gives. The towers are small networks, trained on the squared error of the final
    prediction with expert predictions that are cross-fitted. With both towers dropped the evidence alone decides.

    Regimes are known at most while fitting. Without them the estimator finds its own: k-means clusters of the
    standardised features of the physics gate (of the quality gate where physics is dropped), refined by
    expectation-maximisation where that makes the error of a mixture fall, so that each regime has a line of its own.
    With up to 2,000 rows, each is sorted by regimes that have not seen the targets of its fold for the predictions that
    the gates are trained on, so that these are cross-fitted too; of more rows, the difference is small
    (``benchmarks/found_regimes.py``).

    Parameters
    ----------
    phys_gate : None, "drop" or PhysGate, default=None
        What kind of object is it? None is ``PhysGate()``.
    quality_gate : None, "drop" or QualityGate, default=None
        How well was it measured? None is ``QualityGate()``. With one tower dropped the other decides alone; both can be
        dropped where the experts have evidence.
    fusion : {"concat", "logit_add", "poe", "temperature"} or Fusion, default="concat"
        How both become one set of weights.
    experts : None, "hierarchical", "factor", HierarchicalExperts or FactorExperts, default=None
        None is ``HierarchicalExperts()``.
    routing : "soft", "hard" or int, default="soft"
        Use all experts, only the first, or only the top so many; at prediction, not while fitting.
    fallback_confidence : None or float in [0, 1], default=None
        Rows whose largest weight, before routing, is smaller are answered by the root ridge. Not for factor experts.
    loss : {"mse", "cross_entropy"}, default="mse"
        What the gates are trained on: squared error of the mixture's prediction, or the true cell.
    start : {"linear", "random"}, default="linear"
        What the training begins with: random weights. ``"linear"`` compares the trained net with linear gates, which
        are fitted to the cells of the training rows (a logistic regression) and, where the regimes were found and the
        loss is ``"mse"``, to the likelihood of y under the weighted experts; the one with the smaller loss on held-out
        rows is kept, linear gates of given regimes in doubt too. A callable network is trained from random weights.
        Over factor experts the towers always begin without output, and stay so where training does not help.
    cross_fit : bool, default=True
        Train the gates on predictions of experts that did not see the row. False trains on in-sample predictions,
        which flatter the experts; it is there for comparison.
    entropy_penalty : float, default=0.0
        Times the mean entropy of the weights [nats], added to the loss, which for ``"mse"`` is in units of the variance
        of y. Above zero it sharpens the gates, below zero it flattens them, towards equal weights for all experts.
    weight_decay : float, default=0.1
        Decoupled weight decay of Adam: times the learning rate, the share of every weight that a step takes off.
    n_regimes : int, default=9
        Regimes to find where none are given, at most; on average each has twenty rows or more. Factor experts find
        none: they choose their number of components.
    max_epochs : int, default=30
        Passes over the rows while training the gates, at most.
    lr : float, default=0.01
        Learning rate of Adam after warm-up; it falls as half a cosine until `max_epochs`.
    batch_size : None or int, default=None
        Rows per step. None is a thirtieth of the rows, at least 32 and at most 512; of many, a 150th up to 2,048.
    warmup_epochs : int, default=2
        Epochs over which the learning rate rises from zero; 0 is none.
    validation_fraction : float in [0, 0.5], default=0.1
        Rows held out to stop early; with fewer than ten the training loss is watched.
    patience : int, default=8
        Epochs without improvement before training stops and goes back to the best.
    memory : None, str or joblib.Memory, default=None
        Caches gate features and expert fits, so that a search over fusions fits the experts once per fold. It takes an
        integer `random_state`: without one every fit draws folds of its own. Its files are pickles, as those of
        `checkpoint` of `fit`.
    n_jobs : None or int, default=None
        Threads that read rows and compute features; -1 is one per core.
    device : str, default="cpu"
        Where torch trains the gates.
    random_state : int, RandomState, Generator or None, default=None
        The same seed gives the same predictions, bit for bit. Global generators are not touched.
    verbose : int, default=0
        Above 0 prints the losses of every epoch.

    Attributes
    ----------
    phys_gate_, quality_gate_ : PhysGate, QualityGate or None
    fusion_ : Fusion
    experts_ : HierarchicalExperts or FactorExperts
    net_ : torch.nn.Module or None
        Towers and fusion; None where both towers are dropped.
    history_ : list of dict
        Losses by epoch, of the net that was kept; empty where both towers are dropped.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if `X` has column names.

    See Also
    --------
    dualgate.experts.HierarchicalExperts : Ridges, and the oracle that knows the regime.
    dualgate.experts.FactorExperts : A mixture whose weights are a likelihood.

    References
    ----------
    Jacobs, Jordan, Nowlan & Hinton 1991, Neural Computation 3, 79. Jordan & Jacobs 1994, Neural Computation 6, 181.
    Gershenfeld 1997, Annals of the New York Academy of Sciences 808, 18 (regimes that are found). Loshchilov & Hutter
    2019, International Conference on Learning Representations (decoupled weight decay).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(600, 4))
    >>> y = np.where(X[:, 0] > 0, X[:, 1], -X[:, 1])
    >>> model = DualTowerMoERegressor(n_regimes=4, random_state=0).fit(X, y, regimes=(X[:, 0] > 0).astype(int))
    >>> bool(model.score(X, y) > 0.95)
    True
    """

    # cross-validation under metadata routing slices `regimes` without being asked
    __metadata_request__fit = {"regimes": True}  # noqa: RUF012  (scikit-learn reads it from the class)
    _component_names = ("phys_gate", "quality_gate", "fusion", "experts")

    def __init__(
        self,
        phys_gate=None,
        quality_gate=None,
        fusion="concat",
        experts=None,
        *,
        routing="soft",
        fallback_confidence=None,
        loss="mse",
        start="linear",
        cross_fit=True,
        entropy_penalty=0.0,
        weight_decay=0.1,
        n_regimes=9,
        max_epochs=30,
        lr=1e-2,
        batch_size=None,
        warmup_epochs=2,
        validation_fraction=0.1,
        patience=8,
        memory=None,
        n_jobs=None,
        device="cpu",
        random_state=None,
        verbose=0,
    ):
        self.phys_gate = phys_gate
        self.quality_gate = quality_gate
        self.fusion = fusion
        self.experts = experts
        self.routing = routing
        self.fallback_confidence = fallback_confidence
        self.loss = loss
        self.start = start
        self.cross_fit = cross_fit
        self.entropy_penalty = entropy_penalty
        self.weight_decay = weight_decay
        self.n_regimes = n_regimes
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.warmup_epochs = warmup_epochs
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.memory = memory
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def for_spectra(cls, wave, *, experts="factor", towers=None, continuum=None, velocity=None, robust=None, **params):
        """Make a mixture for stellar spectra, X = [flux | error].

        By default a factor mixture alone: experts and their weights follow from the likelihood of a row, given its
        errors (:class:`~dualgate.experts.FactorExperts`). ``experts="hierarchical"`` makes the dual tower: 9 x 4 ridges
        on Wiener scores, whose predictions are held within the range of the targets, a physics gate that reads nine
        line features and linear discriminants of the scores, and a quality gate that reads ten statistics of the errors
        and the posterior variances of the scores. In both the loadings are smooth and supervised by y and the regimes.
        `regimes` may be given to `fit` as codes or as conditions (T_eff [K], [M/H] [dex]), cut at 4500, 5250; -1, 0.
        Where there is noise-free flux, loadings that learned from it are better:
        ``experts__projection=FrozenEstimator(WienerScores(32, columns=..., error_columns=...).fit(X, clean=flux))``.

        Pixels whose flux or error is NaN or infinite have weight zero, in `fit` and in every prediction;
        :func:`~dualgate.datasets.join_spectra` makes X of flux, errors and a mask.

        Parameters
        ----------
        wave : array-like of shape (n_pixels,), [angstrom]
            Wavelength of every pixel, increasing; at least 8143 to 8725 where there are towers.
        experts : {"factor", "hierarchical"}, default="factor"
        towers : None or bool, default=None
            Whether there are gates. None is no for factor experts, yes for hierarchical ones.
        continuum : None or float, default=None
            Prior standard deviation of the coefficients of a cubic by which a spectrum may be multiplied, such as 0.05.
            It costs information on clean spectra.
        velocity : None or float, default=None, [km/s]
            Largest velocity along the line of sight, either sign; None is spectra at rest. Training spectra are at
            rest in any case.
        robust : None or bool, default=None
            Whether pixels that deviate too far are left out, the scale of a spectrum is free to 10 %, some of the sky
            may be left in it, and its errors are right up to a factor only. None is yes for factor experts, where it
            costs nothing on clean rows but half as much time again, and no for hierarchical ones.
        **params : dict
            Any parameter, nested ones too, as in `set_params`: ``experts__quality_edges=None``, ``fusion="poe"``.

        Returns
        -------
        model : DualTowerMoERegressor
            An ordinary estimator, not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> wave = np.linspace(7100, 8850, 4096)
        >>> DualTowerMoERegressor.for_spectra(wave).experts.n_components
        'auto'
        >>> model = DualTowerMoERegressor.for_spectra(wave, experts="hierarchical", quality_gate="drop")
        >>> model.experts.quality_edges
        (2.0, 4.0, 7.0)

        Rows with masked pixels:

        >>> from dualgate.datasets import join_spectra
        >>> rng = np.random.default_rng(0)
        >>> flux, error = rng.normal(1, 0.1, size=(200, 30)), np.full((200, 30), 0.1)
        >>> X = join_spectra(flux, error, mask=rng.uniform(size=(200, 30)) < 0.2)
        >>> model = DualTowerMoERegressor.for_spectra(np.arange(30.0), experts__n_components=1, random_state=0)
        >>> bool(np.isfinite(model.fit(X, flux.mean(axis=1)).predict(X)).all())
        True
        """
        if not isinstance(experts, str) or experts not in EXPERTS:
            raise ValueError(
                f"DualTowerMoERegressor.for_spectra: experts={experts!r} must be one of 'factor', 'hierarchical'; set "
                "their parameters by experts__name=..., or experts of your own by set_params afterwards."
            )
        for name, value in {"towers": towers, "robust": robust}.items():
            if value not in (None, True, False):
                raise ValueError(f"DualTowerMoERegressor.for_spectra: {name}={value!r} must be None, True or False.")
        towers = experts == "hierarchical" if towers is None else towers
        wave = check_wave("DualTowerMoERegressor.for_spectra", wave, windows=towers)
        flux, error = slice(0, len(wave)), slice(len(wave), None)
        read = {"columns": flux, "error_columns": error, "supervised": True, "smooth": True}
        regime_edges = ((4500, 5250), (-1, 0))
        robust, nuisances = experts == "factor" if robust is None else robust, None
        if robust or continuum is not None or velocity is not None:
            scale, sky = (SCALE, SKY) if robust else (None, None)
            nuisances = Nuisances(
                wave, scale=scale, continuum=continuum, sky=sky, velocity=velocity, robust=robust, free_errors=robust
            )
        phys_gate = PhysGate(flux, LineWindows(wave), discriminants=True) if towers else "drop"
        quality_gate = QualityGate(error, score_variances=True) if towers else "drop"
        if experts == "factor":
            projection = WienerScores("auto", max_iter=FACTOR_STEPS, nuisances=nuisances, **read)
            made = FactorExperts(flux, error, n_factors=8, regime_edges=regime_edges, projection=projection)
        else:
            made = HierarchicalExperts(
                flux, error, quality_edges=SNR_EDGES, regime_edges=regime_edges, clip=True,
                projection=WienerScores(12, nuisances=nuisances, **read),
            )  # fmt: skip
        return cls(phys_gate, quality_gate, experts=made, start="random", weight_decay=0.0).set_params(**params)

    def fit(self, X, y, *, regimes=None, checkpoint=None):
        """Fit the experts in closed form, then train the gates.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
            A source, or an array on disk (memory map, h5py, Zarr, Dask), is read twice (for Wiener scores in part more
            often) and never held; the gates' features learn from a sample of its rows, the towers from 200,000.
        y : array-like of shape (n_samples,)
            Targets.
        regimes : None or array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
            Integer codes 0, 1, ..., or physical conditions that ``experts.regime_edges`` cuts. None finds regimes.
        checkpoint : None or path, default=None
            Directory that keeps what was found so far, so that a fit that was killed continues there. It needs an
            integer `random_state`, and stays until it is deleted. Its files are pickles, which can run any code when
            they are read: name a directory that you alone write. Files that others own or may write are refused.

        Returns
        -------
        self : DualTowerMoERegressor

        Raises
        ------
        ValueError
            If a parameter, `X`, `y` or `regimes` is not as described; the message names it. An
            :class:`~dualgate.experts.EmptyCellWarning` names cells without rows, a
            :class:`~dualgate.gating.GateCollapseWarning` experts that the gates do not use.
        """
        if isinstance(X, ReducedRows):
            rows, y = X, check_target(self, y)
            check_consistent_length(X, y)
            self.n_features_in_ = X.reduction.n_features_in_
        else:
            rows, y = open_fit_rows(self, X, y)
        self._check_parameters()
        generator = make_generator(self, self.random_state)
        vars(self).pop("experts_", None)  # a fit that fails leaves no half of an older one
        experts, started = self._make_experts(generator), time.perf_counter()
        stages = FitStages.of(self, self.memory, checkpoint, rows, y, regimes)
        codes, n_regimes = None, self.n_regimes
        if regimes is not None:
            codes, n_regimes = regime_codes(experts, regimes, experts.regime_edges, len(y))
        reduction, rows, begun = self._reduce(X, rows, y, codes, n_regimes, experts, stages)
        self._report(started, f"{len(rows):,} rows reduced")
        finder = None
        if regimes is None and not isinstance(experts, FactorExperts):
            finder = stages.stage(
                "regimes",
                [reduction.settings, self.n_regimes, experts.random_state],
                lambda: self._find_regimes(reduction, rows, y, experts.random_state),
            )
            n_regimes = finder.n_regimes_
        kept = np.zeros(len(y), dtype=bool)
        kept[generator.permutation(len(y))[: HELD_ROWS if reduction.gates else CALIBRATION_ROWS]] = True
        learned = experts.learn(
            reduction, rows, y, codes, n_regimes, finder=finder, begun=begun, kept=kept, stages=stages,
            ranges=describe_conditions(regimes, experts.regime_edges), depends=[regimes, self.n_regimes],
        )  # fmt: skip
        self._report(started, f"{experts.n_experts_} experts fitted")
        self.reduction_ = reduction
        self.phys_gate_, self.quality_gate_ = (reduction.gates.get(name) for name in TOWERS)
        self.net_, self.history_, self.discriminants_, self.fusion_ = None, [], None, self._realise("fusion")
        self.expert_variances_ = None
        crossed = experts.cross_fitted_stages(learned)
        if reduction.gates:
            self._train_gates(experts, learned, crossed, y[kept], generator, regimes_found=regimes is None)
            self._report(started, "gates trained")
        elif self.fusion not in (None, "concat"):
            warnings.warn(
                f"DualTowerMoERegressor.fusion={self.fusion!r} changes nothing where both towers are dropped: keep a "
                "tower, or compare fusions with experts='hierarchical'.",
                UserWarning,
                stacklevel=2,
            )
        self.experts_ = experts
        self._calibrate(learned, crossed, y[kept])
        return self

    def _check_parameters(self):
        """Check the constructor arguments that are not components."""
        factor = isinstance(self._realise("experts"), FactorExperts)
        if self._towerless and not factor:
            raise ValueError(
                "DualTowerMoERegressor.phys_gate='drop' and quality_gate='drop' leave no tower: keep at least one, or "
                "use experts='factor', which can do without."
            )
        if factor and self.fallback_confidence is not None:
            raise ValueError(
                f"DualTowerMoERegressor.fallback_confidence={self.fallback_confidence!r} needs a root ridge, which "
                "factor experts do not have: leave it None."
            )
        check_choice(self, "loss", self.loss, LOSSES)
        check_choice(self, "start", self.start, STARTS)
        self._check_routing()
        for name, low in {"n_regimes": 1, "max_epochs": 1, "warmup_epochs": 0, "patience": 1}.items():
            check_number(self, name, getattr(self, name), kind=numbers.Integral, low=low)
        if self.batch_size is not None:
            check_number(self, "batch_size", self.batch_size, kind=numbers.Integral, low=1)
        check_number(self, "lr", self.lr, low=0, strict=True)
        check_number(self, "entropy_penalty", self.entropy_penalty)
        check_number(self, "weight_decay", self.weight_decay, low=0)
        check_number(self, "validation_fraction", self.validation_fraction, low=0, high=0.5)
        if self.device != "cpu":
            from dualgate.gating.training import check_device

            check_device(self, self.device)
        self._realise("fusion")  # an unknown name is an error even where a dropped tower leaves nothing to fuse

    @property
    def _towerless(self):
        return all(isinstance(gate, str) and gate == "drop" for gate in (self.phys_gate, self.quality_gate))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = allows_nan(self.make_reduction())
        if self._towerless:  # gates have one target
            tags.target_tags.multi_output = get_tags(self.make_experts()).target_tags.multi_output
        return tags

    def _check_routing(self):
        """Check the arguments that act at prediction, and may have been set after `fit`."""
        if self.routing not in ("soft", "hard"):
            hint = "use 'soft', 'hard', or how many experts to keep."
            check_number(self, "routing", self.routing, kind=numbers.Integral, low=1, hint=hint)
        if self.fallback_confidence is not None:
            check_number(self, "fallback_confidence", self.fallback_confidence, low=0, high=1)

    def _report(self, started, what):
        if self.verbose:
            print(f"DualTowerMoERegressor: {what}, {time.perf_counter() - started:.1f} s", flush=True)

    def _make_experts(self, generator):
        """Make the experts, with a seed of their own."""
        experts, seed = self._realise("experts"), int(generator.integers(2**31))
        if isinstance(experts.random_state, (np.random.Generator, np.random.RandomState)):
            seed = int(make_generator(experts, experts.random_state).integers(2**31))
        if not isinstance(experts.random_state, numbers.Integral):
            experts.set_params(random_state=seed)
        if experts.n_jobs is None:
            experts.set_params(n_jobs=self.n_jobs)
        experts.check_parameters()
        return experts

    def make_reduction(self):
        """Make the reduction of rows to what gates and experts work with.

        Returns
        -------
        reduction : Reduction
            Not fitted. `fit`, `predict` and `trace` take the `ReducedRows` that it reads in place of X.
        """
        return self.make_experts().make_reduction(self._make_gates(), self.n_jobs)

    def make_experts(self):
        """Make the experts, not fitted, from what the parameter `experts` is."""
        return self._realise("experts")

    def known_codes(self, regimes, n_samples):
        """Codes of regimes as `fit` takes them, None where they are to be found (n_samples,)."""
        if regimes is None:
            return None
        experts = self.make_experts()
        return regime_codes(experts, regimes, experts.regime_edges, n_samples)[0]

    def _make_gates(self):
        return {name: self._realise(f"{name}_gate") for name in TOWERS if getattr(self, f"{name}_gate") != "drop"}

    def _reduce(self, X, rows, y, codes, n_regimes, experts, stages):
        """Fit the reduction, and hold the rows reduced where they are few enough; with what the experts began."""
        gates = self._make_gates()
        if isinstance(rows, ReducedRows):
            return rows.reduction.with_gates(gates), rows, None
        reduction = experts.make_reduction(gates, self.n_jobs).prepare(X, rows)
        experts.check_memory(reduction, n_regimes)
        begun = experts.learn_reduction(reduction, X, rows, y, codes, stages)
        return reduction, reduction.hold(rows, stages), begun

    def _find_regimes(self, reduction, rows, y, seed):
        """Find regimes in some of the rows."""
        chosen = choose_spread(len(y), FIND_ROWS)
        if isinstance(rows, ReducedRows):
            columns = rows[chosen].columns
        else:
            some = take_rows(rows, chosen, n_jobs=self.n_jobs, finite=not allows_nan(reduction))
            columns = reduction.reduce(chosen, some, training=True)
        tower, common_unit = next(iter(reduction.gates)), reduction.projection_.common_unit
        finder = RegimeFinder(self.n_regimes, seed, tower)
        return finder.fit(columns[FEATURES + tower], columns["projected"], y[chosen], common_unit=common_unit)

    def _calibrate(self, learned, crossed, y):
        """Find the variances of ridges and the scale of intervals from cross-fitted predictions."""
        chosen = choose_spread(len(y), CALIBRATION_ROWS)
        columns = {name: values[chosen] for name, values in learned.columns.items()}
        stages, y = {name: values[chosen] for name, values in crossed.items()}, y[chosen]
        log_weights = self._fused(self._tower_features(columns, columns["folds"]), stages.get("log_evidence"))[2]
        if "expert_variances" not in stages:
            known = self.experts_.score_variances(columns)
            self.expert_variances_ = residual_variances(log_weights, y[:, None] - stages["expert_predictions"], known)
            stages["expert_variances"] = self.expert_variances_ + known
        density = MixtureTrace(log_weights=log_weights, **stages).density
        self.intervals_ = IntervalScale.of(density, y, columns.get("snr"))

    def _train_gates(self, experts, learned, crossed, y, generator, *, regimes_found):
        """Train towers and fusion on the rows that were kept, and warn where they leave experts without weight."""
        from dualgate.gating.training import GateSettings, GateTarget, fit_gates, run_gates

        columns = learned.columns
        if any(getattr(gate, "discriminants", False) for gate in self.reduction_.gates.values()):
            self.discriminants_ = experts.discriminants(learned)
        features, cells = self._tower_features(columns, columns["folds"]), columns["cells"]
        stages = crossed if self.cross_fit else experts.stages(columns)
        if self.loss == "cross_entropy":
            values = cells
        else:  # in standard deviations of y, so that the learning rate means the same for every target
            values = (np.column_stack([stages["expert_predictions"], y]) - y.mean()) / (y.std() or 1.0)
        linear = None
        if self.start == "linear" and "log_evidence" not in stages:
            linear = self._linear_start(cells, values, regimes_found)
        held_out = np.zeros(len(y), dtype=bool)
        n_held_out = int(self.validation_fraction * len(y))
        if n_held_out >= 10:
            held_out[generator.permutation(len(y))[:n_held_out]] = True
        batch_size = self.batch_size or int(max(np.clip(len(y) // 30, 32, 512), min(len(y) // 150, 2048)))
        names = ("max_epochs", "lr", "warmup_epochs", "patience", "entropy_penalty", "weight_decay")
        self.net_, self.history_ = fit_gates(
            features,
            {name: gate.build_network for name, gate in self.reduction_.gates.items()},
            self.fusion_,
            experts.n_regimes_,
            experts.n_quality_bins_,
            GateTarget(self.loss, values, held_out),
            GateSettings(batch_size=batch_size, **{name: getattr(self, name) for name in names}),
            log_evidence=stages.get("log_evidence"),
            start=linear,
            seed=int(generator.integers(2**31)),
            device=self.device,
            verbose=self.verbose,
        )
        if self.history_[0]["start"] == "random":  # from a linear start experts lose their weight to better ones
            weights = np.exp(run_gates(self.net_, features, stages.get("log_evidence"))[2]).mean(axis=0)
            warn_of_collapse(self, weights, experts.cell_counts_)

    def _linear_start(self, cells, values, regimes_found):
        """Return what linear gates are fitted to: cells and, of found regimes, residual variances of the experts."""
        from dualgate.gating.training import GateStart

        if self.loss == "cross_entropy" or not regimes_found:
            return GateStart(cells, None)
        squares = np.square(np.take_along_axis(values, cells[:, None], axis=1)[:, 0] - values[:, -1])
        counts, sums = (np.bincount(cells, each, values.shape[1] - 1) for each in (None, squares))
        variances = (sums + PRIOR_ROWS * squares.mean()) / (counts + PRIOR_ROWS)
        return GateStart(cells, np.maximum(variances, LEAST_VARIANCE))

    def _tower_features(self, columns, folds=None):
        """Return the features of each tower; by `folds`, with discriminants that did not see the training rows."""
        discriminants = None
        if self.discriminants_ is not None:
            discriminants = lambda: self.discriminants_(columns["projected"], folds)  # noqa: E731
        return {
            name: gate.tower_features(columns[FEATURES + name], discriminants, columns.get("variances"))
            for name, gate in self.reduction_.gates.items()
        }

    def predict(self, X, return_std=False):
        """Predict by the weighted experts.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        return_std : bool, default=False
            Whether to return the standard deviation of the predictive density too; see `predict_density`.

        Returns
        -------
        prediction : ndarray of shape (n_samples,) or (n_samples, n_targets), [unit of y]
        std : ndarray of the same shape, [unit of y]
            Only if `return_std`.
        """
        if not return_std:
            return self._map(X, "prediction")
        density = self.predict_density(X)
        return density.mean, density.std

    def predict_density(self, X):
        """Predictive density of the target of every row: a mixture of Gaussians, one for each expert.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        density : MixtureDensity
            Its mean is what `predict` returns.

        Raises
        ------
        ValueError
            If `fallback_confidence` is set: the root ridge has no density.
        """
        return self._trace_of_density(X).density

    def _trace_of_density(self, X):
        if self.fallback_confidence is not None:
            raise ValueError(
                f"DualTowerMoERegressor.fallback_confidence={self.fallback_confidence!r}: rows that fall back on the "
                "root ridge have no density. Set it to None."
            )
        return self.trace(X)

    def predict_interval(self, X, coverage=0.9):
        """Find an interval that holds the target of a row with a given probability.

        Quantiles of the predictive density, widened or narrowed so that among training rows of the same
        signal-to-noise ratio, predicted by experts that did not see them, the share inside is `coverage`
        (:class:`~dualgate.intervals.IntervalScale`). This holds for new rows that are drawn as the training rows were,
        up to what is left of those rows in experts that began from a fit to all (``docs/uncertainty.md``).

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        coverage : float in (0, 1), default=0.9

        Returns
        -------
        interval : ndarray of shape (n_samples, 2) or (n_samples, n_targets, 2), [unit of y]
            Infinite, with a :class:`~dualgate.intervals.CoverageWarning`, where there are too few rows to tell.
        """
        trace = self._trace_of_density(X)
        return self.intervals_.interval(self, trace.density, trace.snr, coverage)

    @available_if(has_factor_experts)
    def score_samples(self, X):
        """How well factor experts describe each row; see :meth:`FactorExperts.score_samples`.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of shape (n_samples,), [dimensionless]
            About 0 with scatter 1 for rows like the training rows, far below for others.
        """
        check_is_fitted(self, "experts_")
        return self.experts_.score_samples(X)

    @available_if(has_factor_experts)
    def novelty(self, X):
        """Probability that a row like the training rows is as unusual; see :meth:`FactorExperts.novelty`.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        p_values : ndarray of shape (n_samples,), in (0, 1]
        """
        check_is_fitted(self, "experts_")
        return self.experts_.novelty(X)

    @available_if(has_factor_experts)
    def predict_velocity(self, X):
        """Posterior of the velocity along the line of sight; see :meth:`FactorExperts.predict_velocity`.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        velocity, std : ndarray of shape (n_samples,), [km/s]
        """
        check_is_fitted(self, "experts_")
        return self.experts_.predict_velocity(X)

    @available_if(has_factor_experts)
    def check_errors(self, X):
        """Compare the residuals of rows with their stated errors; see :meth:`FactorExperts.check_errors`.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        errors : Bunch
            ``factor``, ``by_pixel`` and ``by_row``.
        """
        check_is_fitted(self, "experts_")
        return self.experts_.check_errors(X)

    def predict_weights(self, X):
        """Weights of the experts.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        weights : ndarray of shape (n_samples, n_experts)
            After routing; a row sums to one. Expert ``k * n_quality_bins_ + s`` serves regime k at quality bin s.
        """
        return self._map(X, "weights")

    def trace(self, X):
        """Every stage of the prediction for `X`, by name.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
            Every stage of every row is kept, some kilobytes a row.

        Returns
        -------
        trace : MixtureTrace
        """
        return self._trace(self._map(X, "stages"))

    def tower_feature_names(self):
        """Names of what each tower reads: the columns of a trace's `phys_features` and `quality_features`.

        Returns
        -------
        names : dict of str to list of str
            Under "phys" and "quality"; a dropped tower is absent.
        """
        check_is_fitted(self, "experts_")
        shape = self.experts_.n_regimes_, self.experts_.n_projected
        return {
            name: [*map(str, gate.get_feature_names_out()), *gate.extra_feature_names(*shape)]
            for name, gate in self.reduction_.gates.items()
        }

    def fuse(self, features, log_evidence=None):
        """Run towers and fusion on tower features.

        Parameters
        ----------
        features : dict of str to ndarray of shape (n_samples, n_tower_features)
            Under "phys" and "quality", such as `phys_features` and `quality_features` of a trace; a dropped tower is
            absent.
        log_evidence : None or ndarray of shape (n_samples, n_experts), default=None
            That of a trace, where the experts have evidence.

        Returns
        -------
        log_weights : ndarray of shape (n_samples, n_experts)
            Before routing.
        """
        check_is_fitted(self, "experts_")
        if features.keys() != self.reduction_.gates.keys():
            raise ValueError(
                f"DualTowerMoERegressor.fuse: features of {sorted(features)} must be those of the towers, "
                f"{sorted(self.reduction_.gates)}."
            )
        if (log_evidence is None) == isinstance(self.experts_, FactorExperts):
            raise ValueError(
                "DualTowerMoERegressor.fuse: log_evidence must be given for factor experts, and for them alone: take "
                "that of a trace."
            )
        return self._fused(features, log_evidence)[2]

    def _fused(self, features, log_evidence):
        """Logits of both towers, None for a dropped one, and log-weights."""
        if self.net_ is None:
            return None, None, log_softmax(log_evidence, axis=1)
        from dualgate.gating.nets import run_gates

        return run_gates(self.net_, features, log_evidence)

    def pixel_coefficients(self):
        """Coefficients of every expert and, last, of the root ridge if there is one, on the flux columns.

        Returns
        -------
        coefficients : ndarray of shape (n_experts + 1, n_pixels), [unit of y per unit of flux], or None
            For rows with typical errors; None where the projection has no such coefficients.
        """
        check_is_fitted(self, "experts_")
        return self.reduction_.projection_.to_pixels(self.experts_.projected_coefficients())

    def _map(self, X, what):
        """Predict block by block, and keep the named property of each block's trace, or all its stages."""
        check_is_fitted(self, "experts_")
        self._check_routing()

        def finish(stages):
            return stages if what == "stages" else getattr(self._trace(stages), what)

        if isinstance(X, ReducedRows):
            return finish(self._stages(X.columns))
        watch = self.experts_.watch()

        def read(first, block):
            stages = self._stages(self.reduction_.reduce(first, block))
            if watch is not None:
                watch.see(stages["misfit"], first, block)
            return finish(stages)

        width = TRACE_WIDTH * self.experts_.n_experts_
        found = map_blocks(self, read, open_rows(self, X, reset=False), n_jobs=self.n_jobs, width=width)
        if watch is not None:
            watch.warn(self)
        return found

    def _stages(self, columns):
        """Stages of the prediction for reduced rows by name, without those of a dropped tower."""
        features, stages = self._tower_features(columns), self.experts_.stages(columns)
        if self.expert_variances_ is not None:
            stages["expert_variances"] = self.expert_variances_ + self.experts_.score_variances(columns)
        logits = self._fused(features, stages.get("log_evidence"))
        if "snr" in columns:
            stages["snr"] = columns["snr"]
        stages |= {f"{name}_features": values for name, values in features.items()}
        stages |= dict(zip(("phys_logits", "quality_logits", "log_weights"), logits, strict=True))
        return {name: values for name, values in stages.items() if values is not None}

    def _trace(self, stages):
        return MixtureTrace(**stages, routing=self.routing, fallback_confidence=self.fallback_confidence)

    def _realise(self, name):
        table = {
            "phys_gate": (PhysGate, PhysGate, {}),
            "quality_gate": (QualityGate, QualityGate, {}),
            "fusion": (FUSIONS["concat"], Fusion, FUSIONS),
            "experts": (HierarchicalExperts, tuple(EXPERTS.values()), EXPERTS),
        }
        default, base, aliases = table[name]
        others = ("drop",) if name.endswith("gate") else ()
        return realise(self, name, getattr(self, name), default=default, base=base, aliases=aliases, others=others)
