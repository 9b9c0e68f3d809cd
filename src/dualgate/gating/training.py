"""Training of towers and fusion. Importing this module imports torch and skorch."""

import math
import threading
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import LRScheduler
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn
from torch.nn.functional import nll_loss

from dualgate.gating.nets import GateNet, Tower, as_tensors, run_gates

__all__ = ["GateSettings", "GateTarget", "fit_gates", "run_gates"]

MIN_GAIN = 1e-4  # fall of the loss that counts as an improvement, in units of the best loss so far
_TRAINING = threading.RLock()  # torch's default generator and number of threads belong to the whole process


@dataclass(frozen=True, eq=False)
class GateTarget:
    """What the gates are trained on.

    Parameters
    ----------
    loss : {"mse", "cross_entropy"}
        Squared error of the mixture's prediction, or negative log-likelihood of the true cell.
    values : ndarray
        For ``"mse"`` the experts' predictions and, in the last column, y, of shape (n_samples, n_experts + 1); for
        ``"cross_entropy"`` cell codes of shape (n_samples,).
    held_out : ndarray of bool of shape (n_samples,)
        Rows whose loss decides when training stops; if there are none, the training loss decides.
    """

    loss: str
    values: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """How the gates are trained; fields as the parameters of `DualTowerMoERegressor` with these names."""

    max_epochs: int
    lr: float
    batch_size: int
    warmup_epochs: int
    patience: int
    entropy_penalty: float
    weight_decay: float


class GateLoss(nn.Module):
    """Loss of the log-weights of a batch, plus `entropy_penalty` times the mean entropy of the weights [nats].

    The target of ``"mse"`` holds expert predictions and, in the last column, y; that of ``"cross_entropy"`` cell codes.
    """

    def __init__(self, loss, entropy_penalty):
        super().__init__()
        self.loss, self.entropy_penalty = loss, entropy_penalty

    def forward(self, log_weights, target):
        entropy = -(log_weights.exp() * log_weights).sum(1).mean() if self.entropy_penalty else None
        if self.loss == "cross_entropy":
            loss = nll_loss(log_weights, target)
        else:
            loss = ((log_weights.exp() * target[:, :-1]).sum(1) - target[:, -1]).square().mean()
        return loss if entropy is None else loss + self.entropy_penalty * entropy


class Batches:
    """Batches of a dataset of tensors; training batches are shuffled by `generator`, evaluation has none.

    A training batch of one row is merged with the batch before it, since batch normalisation needs two rows.
    """

    def __init__(self, dataset, batch_size, generator=None):
        self.dataset, self.batch_size, self.generator = dataset, batch_size, generator

    def __len__(self):
        n_whole, n_left = divmod(len(self.dataset), self.batch_size)
        is_merged = n_left == 1 and n_whole > 0 and self.generator is not None
        return n_whole + (n_left > 0 and not is_merged)

    def __iter__(self):
        n_rows, features, target = len(self.dataset), self.dataset.X, self.dataset.y
        order = torch.arange(n_rows) if self.generator is None else torch.randperm(n_rows, generator=self.generator)
        for rows in order.tensor_split([self.batch_size * batch for batch in range(1, len(self))]):
            yield {name: values[rows] for name, values in features.items()}, target[rows]


@contextmanager
def _exclusively(seed):
    """Train one fit at a time, with torch seeded and on one thread; restore its generator and threads afterwards.

    Networks may draw from torch's default generator (initial weights, dropout), which all threads share: only a lock
    keeps concurrent fits reproducible. The networks are so small that a second torch thread costs more than it saves.
    """
    with _TRAINING:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators too
                yield
        finally:
            torch.set_num_threads(n_threads)


def fit_gates(
    features, networks, fusion, n_regimes, n_bins, target, settings, *, before=(), seed, device="cpu", verbose=0
):
    """Train towers and fusion together.

    Parameters
    ----------
    features : dict of str to ndarray of shape (n_samples, n_gate_features)
        Under "phys" and "quality"; a dropped tower is absent.
    networks : dict of str to callable
        ``network(n_features, n_outputs)`` makes the module of a tower.
    fusion : Fusion
    n_regimes, n_bins : int
        Numbers of regimes and of quality bins.
    target : GateTarget
    settings : GateSettings
    before : sequence of (GateTarget, GateSettings)
        Earlier phases of the training: each continues with the net of the phase before it, with a new optimiser and
        learning-rate schedule, and ends at its best epoch.
    seed : int
        Seed of initial weights, batches and dropout.
    device : str
        Where torch trains.
    verbose : int
        Above 0 prints the losses of every epoch to standard output.

    Returns
    -------
    net : GateNet
        On the CPU, in evaluation mode, at its best epoch.
    history : list of dict
        "loss", "epoch" (from 1 in every phase), "train_loss" and, with held-out rows, "valid_loss" of every epoch.

    Raises
    ------
    ValueError
        If the training loss is not finite after the last epoch.

    Notes
    -----
    One fit trains at a time in a process: further threads wait, so that fits in threads equal serial ones bit for bit
    and leave torch's default generator as it was. Processes train in parallel. On two cores four-fold cross-validation
    in two or four threads took as long with the lock as without it, within the scatter of the timings.
    """
    with _exclusively(seed):
        net = _build(
            {name: each[~target.held_out] for name, each in features.items()}, networks, fusion, n_regimes, n_bins
        )
        generator = torch.Generator().manual_seed(seed)
        history = []
        for phase in [*before, (target, settings)]:
            history += _train(net, features, *phase, generator, device, verbose)
        return net.to("cpu").eval(), history


def _build(features, networks, fusion, n_regimes, n_bins):
    """Make the net for these training features."""
    n_experts = n_regimes * n_bins
    alone = len(features) == 1
    widths = (n_experts, n_experts) if alone else fusion.n_outputs(n_regimes, n_bins)
    towers = {
        name: Tower(features[name], networks[name](features[name].shape[1], width))
        for name, width in zip(("phys", "quality"), widths, strict=True)
        if name in features
    }
    return GateNet(towers, fusion.build_alone(n_experts) if alone else fusion.build(n_regimes, n_bins))


def _train(net, features, target, settings, generator, device, verbose):
    """Train `net` in place for one phase, load its best epoch, and return the history of the phase."""
    values = torch.as_tensor(target.values, dtype=torch.int64 if target.loss == "cross_entropy" else torch.float32)
    train, valid = (
        Dataset(as_tensors(features, rows), values[torch.as_tensor(rows)])
        for rows in (~target.held_out, target.held_out)
    )
    trainer = NeuralNet(
        net,
        criterion=GateLoss(target.loss, settings.entropy_penalty),
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=settings.weight_decay,
        lr=settings.lr,
        batch_size=settings.batch_size,
        iterator_train=Batches,
        iterator_train__generator=generator,
        iterator_valid=Batches,
        train_split=predefined_split(valid) if len(valid) else None,
        callbacks=[("rate", _schedule(settings, len(Batches(train, settings.batch_size, generator))))],
        device=device,
        verbose=0,  # skorch's log prints escape sequences for colours, into files too
    ).initialize()
    trainer.notify("on_train_begin", X=train, y=None)
    history, n_misses, best, threshold = [], 0, None, math.inf
    while len(history) < settings.max_epochs and n_misses < settings.patience:
        trainer.fit_loop(train, epochs=1)  # skorch's `fit` would take Ctrl-C for the end of the training
        losses = {
            name: trainer.history[-1][name] for name in ("train_loss", "valid_loss") if name in trainer.history[-1]
        }
        history.append({"loss": target.loss, "epoch": len(history) + 1, **losses})
        watched = losses.get("valid_loss", losses["train_loss"])
        if watched < threshold:
            n_misses, best, threshold = 0, deepcopy(net.state_dict()), watched - MIN_GAIN * abs(watched)
        else:
            n_misses += 1
        if verbose:
            shown = "".join(f"  {name.removesuffix('_loss')} {loss:.4g}" for name, loss in losses.items())
            print(f"epoch {len(history)}/{settings.max_epochs}{shown}", flush=True)
    _check_convergence(history[-1]["train_loss"], settings)
    if n_misses and best is not None:
        net.load_state_dict(best)
    return history


def _schedule(settings, n_batches):
    """Learning rate by step: linear warm-up, times half a cosine that falls to a hundredth."""
    n_warmup, n_steps = settings.warmup_epochs * n_batches, settings.max_epochs * n_batches

    def rate(step):
        warm = min(1.0, (step + 1) / n_warmup) if n_warmup else 1.0
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps))))

    return LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=rate, step_every="batch")


def _check_convergence(train_loss, settings):
    """Raise ValueError if the training loss is not finite."""
    if math.isfinite(train_loss):
        return
    penalty = settings.entropy_penalty
    raise ValueError(
        f"DualTowerMoERegressor.lr={settings.lr!r} let the gates' training diverge: its loss is {train_loss}. Try a "
        f"smaller learning rate{f', or an entropy_penalty closer to zero than {penalty!r}.' if penalty else '.'}"
    )
