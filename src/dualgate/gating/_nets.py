"""Every torch module, and the skorch fit. The only file that imports torch."""

import math
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.helper import predefined_split
from torch import nn
from torch.nn.functional import log_softmax, softplus
from torch.utils.data import Dataset

SOFTPLUS_OF_ONE = math.log(math.e - 1)  # softplus of this is one
TAIL = 3.0  # standard deviations up to which a tower's feature enters as it is


class Tower(nn.Module):
    """Standardise features, tame their tails, and add a linear map and a multilayer perceptron.

    The linear map is the gate a logistic regression would find; the perceptron has only its errors to mend.
    """

    def __init__(self, features, hidden, n_outputs):
        super().__init__()
        mean, scale = features.mean(axis=0), features.std(axis=0)
        # what is constant but for rounding has no say, however it may move later
        constant = scale <= 10 * np.finfo(np.float64).eps * np.sqrt(len(features)) * np.abs(mean)
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("scale", torch.as_tensor(np.where(constant, np.inf, scale)))
        widths = [features.shape[1], *hidden]
        self.linear = nn.Linear(widths[0], n_outputs)
        layers = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], n_outputs)) if hidden else None

    def forward(self, features):
        # in double up to here: a large offset or an odd unit would cost the digits that matter
        features = _tame(((features - self.mean) / self.scale).clamp(-1e6, 1e6).float())
        return self.linear(features) if self.layers is None else self.linear(features) + self.layers(features)


def _tame(values):
    """Identity up to TAIL standard deviations, logarithmic beyond: error statistics have long tails."""
    beyond = (values.abs() - TAIL).clamp(min=0)
    return values.clamp(-TAIL, TAIL) + values.sign() * torch.log1p(beyond)


def _joint(over_regimes, over_bins, n_bins):
    """Sum of log-weights over regimes and over bins; elementwise where there is a single bin."""
    if n_bins == 1:
        return over_regimes + over_bins
    return (over_regimes[:, :, None] + over_bins[:, None, :]).flatten(1)


class LogitAdd(nn.Module):
    """softmax(a + b)."""

    def __init__(self, n_bins):
        super().__init__()
        self.n_bins = n_bins

    def forward(self, phys_logits, quality_logits):
        return log_softmax(_joint(phys_logits, quality_logits, self.n_bins), dim=1)


class ProductOfExperts(nn.Module):
    """p^alpha q^beta, normalised; the exponents depend on how much each tower claims to know."""

    def __init__(self, n_bins):
        super().__init__()
        self.n_bins = n_bins
        self.slope = nn.Parameter(torch.zeros(2))
        self.offset = nn.Parameter(torch.full((2,), SOFTPLUS_OF_ONE))

    def exponents(self, *log_probabilities):
        """Return one exponent per tower and sample, each of shape (n_samples, 1)."""
        gains = [_information_gain(logp) for logp in log_probabilities]
        return [softplus(self.slope[i] * gain + self.offset[i]) for i, gain in enumerate(gains)]

    def forward(self, phys_logits, quality_logits):
        p, q = log_softmax(phys_logits, dim=1), log_softmax(quality_logits, dim=1)
        alpha, beta = self.exponents(p, q)
        return log_softmax(_joint(alpha * p, beta * q, self.n_bins), dim=1)


def _information_gain(logp):
    """Share of the largest possible entropy that a distribution has removed: 0 uniform, 1 certain."""
    if logp.shape[1] == 1:
        return torch.zeros_like(logp)
    return 1 + (logp.exp() * logp).sum(1, keepdim=True) / math.log(logp.shape[1])


class Temperature(nn.Module):
    """softmax(a / tau), tau = 1 + softplus(t); times softmax over quality bins where there are several."""

    def __init__(self, n_bins):
        super().__init__()
        self.n_bins = n_bins

    def forward(self, phys_logits, quality_logits):
        tau = 1 + softplus(quality_logits[:, :1])
        over_regimes = log_softmax(phys_logits / tau, dim=1)
        if self.n_bins == 1:
            return over_regimes
        return _joint(over_regimes, log_softmax(quality_logits[:, 1:], dim=1), self.n_bins)


class Head(nn.Module):
    """A hidden layer that starts at zero: what it adds, it has to learn."""

    def __init__(self, n_inputs, hidden, n_experts):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_inputs, hidden), nn.SiLU(), nn.Linear(hidden, n_experts))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, logits):
        return self.layers(logits)


class Concat(nn.Module):
    """softmax(a + b + h(a, b)), h a hidden layer on both towers side by side."""

    def __init__(self, n_inputs, hidden, n_experts, n_bins):
        super().__init__()
        self.n_bins = n_bins
        self.head = Head(n_inputs, hidden, n_experts)

    def forward(self, phys_logits, quality_logits):
        interaction = self.head(torch.cat([phys_logits, quality_logits], dim=1))
        return log_softmax(_joint(phys_logits, quality_logits, self.n_bins) + interaction, dim=1)


class Alone(nn.Module):
    """softmax(a), or softmax(a + h(a)) with a head: one tower that speaks over all experts."""

    def __init__(self, head=None):
        super().__init__()
        self.head = head

    def forward(self, logits):
        return log_softmax(logits if self.head is None else logits + self.head(logits), dim=1)


class GateNet(nn.Module):
    """Towers and fusion as one module; a dropped tower is None, and the other then speaks over all experts."""

    def __init__(self, phys_tower, quality_tower, fusion):
        super().__init__()
        self.phys_tower, self.quality_tower, self.fusion = phys_tower, quality_tower, fusion

    def stages(self, phys=None, quality=None):
        """Return phys_logits, quality_logits (None where dropped) and log_weights."""
        phys_logits = None if self.phys_tower is None else self.phys_tower(phys)
        quality_logits = None if self.quality_tower is None else self.quality_tower(quality)
        if phys_logits is None or quality_logits is None:
            return phys_logits, quality_logits, self.fusion(quality_logits if phys_logits is None else phys_logits)
        return phys_logits, quality_logits, self.fusion(phys_logits, quality_logits)

    def forward(self, phys=None, quality=None):
        return self.stages(phys, quality)[2]


class MixtureSquaredError(nn.Module):
    """Mean squared error of the mixture's prediction; the target holds expert predictions and, last, y."""

    def forward(self, log_weights, target):
        prediction = (log_weights.exp() * target[:, :-1]).sum(1)
        return (prediction - target[:, -1]).square().mean()


class Rows(Dataset):
    """Features by tower name, and targets, all as tensors; indexable by a whole batch."""

    def __init__(self, features, target):
        self.features, self.target = features, target

    def __len__(self):
        return len(self.target)

    def __getitem__(self, rows):
        return {name: values[rows] for name, values in self.features.items()}, self.target[rows]


class Batches:
    """Iterate over `Rows` a batch at a time, shuffled by `generator` if there is one."""

    def __init__(self, dataset, batch_size, generator=None):
        self.dataset, self.batch_size, self.generator = dataset, batch_size, generator

    def __iter__(self):
        n_rows = len(self.dataset)
        shuffled = self.generator is not None
        order = torch.randperm(n_rows, generator=self.generator) if shuffled else torch.arange(n_rows)
        for rows in order.split(self.batch_size):
            yield self.dataset[rows]


@contextmanager
def _own_room(seed):
    """Seed torch and keep it to one thread inside; leave its generator and its threads as they were.

    The towers are so small that a second thread costs more than it brings, and far more on a busy machine.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would move those of accelerators too
            yield
    finally:
        torch.set_num_threads(n_threads)


def _tensors(features, rows=slice(None)):
    return {name: torch.tensor(values[rows], dtype=torch.float64) for name, values in features.items()}


def fit_gates(features, hidden, fusion, shape, target, training, *, seed, device="cpu", verbose=0):
    """Train towers and fusion together.

    Parameters
    ----------
    features : dict of str to ndarray of shape (n_samples, n_gate_features)
        Under "phys" and "quality"; a dropped tower is absent.
    hidden : dict of str to tuple of int
    fusion : Fusion
    shape : tuple of int
        Numbers of regimes and of quality bins.
    target : tuple (loss, values, validation_rows)
        "mse" with expert predictions and y side by side, or "cross_entropy" with cell codes; and a mask of the rows
        held out for early stopping.
    training : dict
        max_epochs, lr, batch_size, warmup_epochs, patience.
    seed : int

    Returns
    -------
    net : GateNet
        On the CPU, in evaluation mode, at its best epoch.
    history : list of dict
        Losses by epoch.
    """
    loss, values, held_out = target
    kind = torch.int64 if loss == "cross_entropy" else torch.float32
    values = torch.as_tensor(values, dtype=kind)
    train = Rows(_tensors(features, ~held_out), values[torch.as_tensor(~held_out)])
    valid = Rows(_tensors(features, held_out), values[torch.as_tensor(held_out)])
    with _own_room(seed):
        net = _build({name: values[~held_out] for name, values in features.items()}, hidden, fusion, shape)
        has_valid = len(valid) > 0
        trainer = NeuralNet(
            net,
            criterion=nn.NLLLoss if loss == "cross_entropy" else MixtureSquaredError,
            optimizer=torch.optim.Adam,
            lr=training["lr"],
            max_epochs=training["max_epochs"],
            batch_size=training["batch_size"],
            iterator_train=Batches,
            iterator_train__generator=torch.Generator().manual_seed(seed),
            iterator_valid=Batches,
            train_split=predefined_split(valid) if has_valid else None,
            callbacks=_callbacks(training, len(train), has_valid),
            device=device,
            verbose=verbose,
        )
        if not verbose:
            trainer.set_params(callbacks__print_log=None)
        trainer.fit(train, y=None)
    if not math.isfinite(trainer.history[-1]["train_loss"]):
        raise ValueError(
            f"DualTowerMoERegressor.lr={training['lr']!r} let the gates' training diverge: its loss is "
            f"{trainer.history[-1]['train_loss']}. Try a smaller learning rate."
        )
    history = [
        {name: epoch[name] for name in ("epoch", "train_loss", "valid_loss") if name in epoch}
        for epoch in trainer.history
    ]
    return trainer.module_.to("cpu").eval(), history


def _build(features, hidden, fusion, shape):
    n_regimes, n_bins = shape
    alone = len(features) == 1
    widths = (n_regimes * n_bins,) * 2 if alone else fusion.n_outputs(n_regimes, n_bins)
    towers = [
        Tower(features[name], hidden[name], width) if name in features else None
        for name, width in zip(("phys", "quality"), widths, strict=True)
    ]
    return GateNet(*towers, fusion.build_alone(n_regimes * n_bins) if alone else fusion.build(n_regimes, n_bins))


def _callbacks(training, n_rows, has_valid):
    """Learning rate by step, and a stop that goes back to the best epoch."""
    per_epoch = math.ceil(n_rows / training["batch_size"])
    n_warmup, n_steps = training["warmup_epochs"] * per_epoch, training["max_epochs"] * per_epoch

    def rate(step):  # linear warm-up, then half a cosine down to a hundredth
        warm = min(1.0, (step + 1) / n_warmup) if n_warmup else 1.0
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps))))

    stop = EarlyStopping(
        monitor="valid_loss" if has_valid else "train_loss",
        patience=training["patience"],
        load_best=True,
        sink=lambda text: None,
    )
    schedule = LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=rate, step_every="batch")
    return [("rate", schedule), ("early_stopping", stop)]


def run_gates(net, features):
    """Run the stages of a trained net.

    Parameters
    ----------
    net : GateNet
    features : dict of str to ndarray of shape (n_samples, n_gate_features)

    Returns
    -------
    phys_logits, quality_logits : ndarray or None
        None for a dropped tower.
    log_weights : ndarray of shape (n_samples, n_experts)
    """
    with torch.inference_mode():
        stages = net.stages(**_tensors(features))
    return tuple(None if stage is None else stage.numpy().astype(np.float64) for stage in stages)
