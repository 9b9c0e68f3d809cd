"""The hall where the rooms meet: two gates, a fusion, and the experts they weigh."""

from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from dualgate._components import NestedParams, realise
from dualgate._fitting import check_parameters, check_routing, gate_readings, learn
from dualgate._training import train
from dualgate._validation import check_target, make_generator
from dualgate.experts import HierarchicalExperts
from dualgate.features.lines import check_wave
from dualgate.gating import FUSIONS, Fusion, PhysGate, QualityGate
from dualgate.reduced import ReducedRows
from dualgate.rows import check_fit_rows, check_rows_or_source, checked_once, map_blocks
from dualgate.spectral import spectral_components
from dualgate.trace import MixtureTrace


class DualTowerMoERegressor(NestedParams, RegressorMixin, BaseEstimator):
    r"""Mixture of linear experts, weighed by a physics tower and a quality tower.

    .. math:: \hat y = \sum_k w_k(x)\, f_k(x), \qquad
        w = \mathrm{fusion}(\mathrm{tower}_{phys}(x), \mathrm{tower}_{quality}(x))

    The experts are ridges in closed form, one for each cell of physical regime and quality bin. The towers are small
    networks, trained on the squared error of the final prediction with expert predictions that are cross-fitted.

    Regimes are known at most while fitting. Without them the estimator finds its own: k-means clusters of the
    standardised features of the physics gate (of the quality gate where physics is dropped), refined by
    expectation-maximisation where that makes the error of a mixture fall, so that each regime has a line of its own.

    Parameters
    ----------
    phys_gate : None, "drop" or PhysGate
        What kind of object is it? None is ``PhysGate()``.
    quality_gate : None, "drop" or QualityGate
        How well was it measured? None is ``QualityGate()``. With one tower dropped, the other speaks alone.
    fusion : {"concat", "logit_add", "poe", "temperature"} or Fusion
        How both become one set of weights.
    experts : None or HierarchicalExperts
        None is ``HierarchicalExperts()``.
    routing : "soft", "hard" or int
        Use all experts, only the first, or only the top so many; at prediction, not while fitting.
    fallback_confidence : None or float in [0, 1]
        Rows whose largest weight, before routing, is smaller are answered by the root ridge.
    loss : {"mse", "cross_entropy"}
        What the gates are trained on: squared error of the mixture's prediction, or the true cell.
    cross_fit : bool
        Train the gates on predictions of experts that did not see the row. False trains on in-sample predictions,
        which flatter the experts; it is there for comparison.
    entropy_penalty : float
        Times the mean entropy of the weights [nats], added to the loss, which for ``"mse"`` is in units of the variance
        of y. Above zero it sharpens the gates, below zero it flattens them, towards equal weights for all experts.
    weight_decay : float
        Decoupled weight decay of Adam: times the learning rate, the share of every weight that a step takes off.
    n_regimes : int
        Regimes to find where none are given, at most; on average each has twenty rows or more.
    max_epochs : int
        Passes over the rows while training the gates, at most.
    lr : float
        Learning rate of Adam after warm-up; it falls as half a cosine until `max_epochs`.
    batch_size : None or int
        Rows per step. None is a thirtieth of the rows, at least 32 and at most 512; of many, a 150th up to 2,048.
    warmup_epochs : int
        Epochs over which the learning rate rises from zero; 0 is none.
    validation_fraction : float in [0, 0.5]
        Rows held out to stop early; with fewer than ten the training loss is watched.
    patience : int
        Epochs without improvement before training stops and goes back to the best.
    memory : None, str or joblib.Memory
        Caches gate features and expert fits, so that a search over fusions fits the experts once per fold. It takes an
        integer `random_state`: without one every fit draws folds of its own.
    n_jobs : None or int
        Threads that read rows and compute features; -1 is one per core.
    device : str
        Where torch trains the gates.
    random_state : int, RandomState, Generator or None
        The same seed gives the same predictions, bit for bit. Global generators are not touched.
    verbose : int
        Above 0 prints the losses of every epoch.

    Attributes
    ----------
    phys_gate_, quality_gate_ : PhysGate, QualityGate or None
    fusion_ : Fusion
    experts_ : HierarchicalExperts
    net_ : torch.nn.Module
        Towers and fusion.
    history_ : list of dict
        Losses by epoch.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if `X` has column names.

    See Also
    --------
    dualgate.experts.HierarchicalExperts : The experts, and the oracle that knows the regime.

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
        cross_fit=True,
        entropy_penalty=0.0,
        weight_decay=0.0,
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
    def for_spectra(cls, wave, **params):
        """Make a mixture for stellar spectra, X = [flux | error].

        9 x 4 experts work on Wiener scores, whose loadings are smooth and supervised by y and the regimes; predictions
        are held within the range of the targets. The physics gate reads nine line features and linear discriminants of
        the scores, the quality gate ten statistics of the errors and the posterior variances of the scores.
        `regimes` may be given to `fit` as codes or as conditions (T_eff [K], [M/H] [dex]), cut at 4500, 5250; -1, 0.
        Where there is noise-free flux, scores that learned from it are better:
        ``experts__projection=FrozenEstimator(WienerScores(32, columns=..., error_columns=...).fit(X, clean=flux))``.

        Parameters
        ----------
        wave : array-like of shape (n_pixels,), [angstrom]
            Wavelength of every pixel, increasing; at least 8143 to 8725.
        **params : dict
            Any parameter, nested ones too, as in `set_params`: ``experts__quality_edges=None``, ``fusion="poe"``.

        Returns
        -------
        model : DualTowerMoERegressor
            An ordinary estimator, not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> model = DualTowerMoERegressor.for_spectra(np.linspace(7100, 8850, 4096), quality_gate="drop")
        >>> model.experts.quality_edges
        (2, 4, 7)
        """
        model = cls(**spectral_components(check_wave("DualTowerMoERegressor.for_spectra", wave)))
        return model.set_params(**params)

    def fit(self, X, y, *, regimes=None, checkpoint=None):
        """Fit the experts in closed form, then train the gates.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
            A source, or an array on disk (memory map, h5py, Zarr, Dask), is read twice (for Wiener scores in part more
            often) and never held; the gates' features learn from a sample of its rows, the towers from 200,000.
        y : array-like of shape (n_samples,)
            Targets.
        regimes : None or array-like of shape (n_samples,) or (n_samples, n_conditions)
            Integer codes 0, 1, ..., or physical conditions that ``experts.regime_edges`` cuts. None finds regimes.
        checkpoint : None or path
            File that keeps what was found so far while a source is read, so that a fit that was killed goes on where it
            was. It needs an integer `random_state`, and stays until it is deleted.

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
            self.n_features_in_ = X.reader.n_features_in_
        else:
            rows, y = check_fit_rows(self, X, y)
        check_parameters(self)
        self._realise("fusion")  # an unknown name is an error even where a dropped tower leaves nothing to fuse
        generator = make_generator(self, self.random_state)
        vars(self).pop("net_", None)  # a fit that fails leaves no half of an older one
        with checked_once(rows):
            lesson = learn(self, X, rows, y, regimes, generator, checkpoint)
            self.phys_gate_, self.quality_gate_ = (lesson.gates.get(name) for name in ("phys", "quality"))
            self.experts_ = lesson.experts
            train(self, lesson, generator)
        return self

    def predict(self, X):
        """Predict by the weighted experts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        prediction : ndarray of shape (n_samples,), [unit of y]
        """
        return self._map(X, "prediction")

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
        check_is_fitted(self, "net_")
        shape = self.experts_.n_regimes_, self.experts_.coef_.shape[1]
        gates = self._gates().items()
        return {name: [*map(str, gate.get_feature_names_out()), *gate.reading_names(*shape)] for name, gate in gates}

    def _map(self, X, what):
        """Predict block by block, and keep the named property of each block's trace, or all its stages."""
        check_is_fitted(self, "net_")
        check_routing(self)
        if isinstance(X, ReducedRows):
            stages = self._stages(X.features, {"projected": X.projected, "variances": X.variances})
            return stages if what == "stages" else getattr(self._trace(stages), what)
        rows = check_rows_or_source(self, X, reset=False)
        rows = X if hasattr(X, "columns") else rows

        def run(first, block):
            features = {name: gate.transform(block) for name, gate in self._gates().items()}
            stages = self._stages(features, self.experts_._reduce_block(first, block))
            return stages if what == "stages" else getattr(self._trace(stages), what)

        with checked_once(rows):
            return map_blocks(self, run, rows, n_jobs=self.n_jobs)

    def _gates(self):
        gates = {"phys": self.phys_gate_, "quality": self.quality_gate_}
        return {name: gate for name, gate in gates.items() if gate is not None}

    def _stages(self, features, reduced):
        """Stages by name, the absent ones left out, from the gates' features and the experts' reduced rows."""
        from dualgate.gating._nets import run_gates

        each = self.experts_._predict_projected(reduced["projected"])  # the last is the root's
        features = gate_readings(self._gates(), self.experts_, features, **reduced)
        logits = run_gates(self.net_, features)
        stages = {
            **{f"{name}_features": values for name, values in features.items()},
            **dict(zip(("phys_logits", "quality_logits", "log_weights"), logits, strict=True)),
            "expert_predictions": each[:, :-1],
            "root_prediction": each[:, -1],
        }
        return {name: values for name, values in stages.items() if values is not None}

    def _trace(self, stages):
        return MixtureTrace(**stages, routing=self.routing, fallback_confidence=self.fallback_confidence)

    def _realise(self, name):
        table = {
            "phys_gate": (PhysGate, PhysGate, {}),
            "quality_gate": (QualityGate, QualityGate, {}),
            "fusion": (FUSIONS["concat"], Fusion, FUSIONS),
            "experts": (HierarchicalExperts, HierarchicalExperts, {}),
        }
        default, base, aliases = table[name]
        others = ("drop",) if name.endswith("gate") else ()
        return realise(self, name, getattr(self, name), default=default, base=base, aliases=aliases, others=others)
