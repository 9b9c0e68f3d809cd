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

from dualgate._validation import owner_name
from dualgate.gating.nets import as_tensors, build_net, run_gates, with_evidence

__all__ = ["GateSettings", "GateStart", "GateTarget", "check_device", "fit_gates", "run_gates"]

START_STEPS = 200  # of L-BFGS for the linear start, for the cells and for the likelihood each
START_PENALTY = 300  # over the number of rows: penalty of the linear start, 1 / C of a logistic regression
DOUBT = 2.0  # standard errors by which a trained net must be better than linear gates that were fitted to true cells
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


@dataclass(frozen=True, eq=False)
class GateStart:
    """What linear gates are fitted to before the training: the cells, then the likelihood of y.

    Parameters
    ----------
    cells : ndarray of int of shape (n_samples,)
        Cell of every row.
    variances : None or ndarray of shape (n_experts,)
        Residual variance of each expert, in the units of the target's `values`; None fits the cells alone.
    """

    cells: np.ndarray
    variances: np.ndarray | None


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
    """Mean loss of a batch of log-weights: of each row, plus `entropy_penalty` times the entropy of its weights [nats].

    The target of ``"mse"`` holds expert predictions and, in the last column, y; that of ``"cross_entropy"`` cell codes.
    """

    def __init__(self, loss, entropy_penalty):
        super().__init__()
        self.loss, self.entropy_penalty = loss, entropy_penalty

    def of_rows(self, log_weights, target):
        """Loss of every row (n_rows,)."""
        if self.loss == "cross_entropy":
            loss = nll_loss(log_weights, target, reduction="none")
        else:
            loss = ((log_weights.exp() * target[:, :-1]).sum(1) - target[:, -1]).square()
        if self.entropy_penalty:
            loss = loss - self.entropy_penalty * (log_weights.exp() * log_weights).sum(1)
        return loss

    def forward(self, log_weights, target):
        return self.of_rows(log_weights, target).mean()


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


def check_device(owner, device):
    """Raise a ValueError where torch has no such device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{owner_name(owner)}.device={device!r} must be a device that torch can use here: {reason}"
        ) from None


def fit_gates(
    features, networks, fusion, n_regimes, n_bins, target, settings, *, log_evidence=None, start=None, seed,
    device="cpu", verbose=0
):  # fmt: skip
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
    log_evidence : None or ndarray of shape (n_samples, n_experts), default=None
        Of the experts, cross-fitted; the towers then start without output, and stay so where training does not help.
    start : None or GateStart, default=None
        Compares the trained net with linear gates that are fitted by L-BFGS: a logistic regression of the cells, then,
        with `variances`, the mixture's likelihood. Returned is the one with the smaller loss on the held-out rows; the
        trained net, whose epoch was chosen by the same rows, must be better than a mere classification by two standard
        errors. Linear gates that are chosen are fitted to all rows in the end. None trains alone, and so does a network
        of the user's own.
    seed : int
        Seed of initial weights, batches and dropout.
    device : str, default="cpu"
        Where torch trains.
    verbose : int, default=0
        Above 0 prints the losses of every epoch to standard output.

    Returns
    -------
    net : GateNet
        On the CPU, in evaluation mode; a trained one at its best epoch.
    history : list of dict
        By epoch: "start" ("random", "linear" or "evidence"), "loss", "epoch", "train_loss" and, with held-out rows,
        "valid_loss". Linear gates have epoch 0 alone.

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
        seen = {name: each[~target.held_out] for name, each in features.items()}
        generator = torch.Generator().manual_seed(seed)
        net = build_net(seen, networks, fusion, n_regimes, n_bins)
        corrects = log_evidence is not None and net.reset() is not None
        features = with_evidence(features, log_evidence)
        history = _train(net, features, target, settings, generator, device, verbose, keep_start=corrects)
        if corrects:
            history = [{**epoch, "start": "evidence"} for epoch in history]
        if start is not None:
            linear = build_net(seen, networks, fusion, n_regimes, n_bins)
            if _fit_linear(linear, features, target, start, ~target.held_out, one_tower=n_bins == 1):
                found = _compare(linear, net, features, target, start, settings)
                if found is not None:
                    everything = np.ones(len(target.held_out), dtype=bool)
                    _fit_linear(linear, features, target, start, everything, one_tower=n_bins == 1)
                    net, history = linear, [found]
        return net.to("cpu").eval(), history


def _fit_linear(net, features, target, start, rows, *, one_tower):
    """Fit the linear maps of the towers to some rows, of the first tower alone with `one_tower`.

    Returns whether the towers have such maps.
    """
    maps = net.reset()
    if maps is None:
        return False
    maps = maps[:1] if one_tower else maps
    inputs, cells = as_tensors(features, rows), torch.as_tensor(start.cells[rows], dtype=torch.int64)
    level = None
    if start.variances is not None:
        values, variances = torch.as_tensor(target.values[rows]).double(), torch.as_tensor(start.variances)
        level = -0.5 * ((values[:, :-1] - values[:, -1:]).square() / variances + variances.log())

    def cell_loss(log_weights):
        return nll_loss(log_weights, cells, reduction="sum")

    def likelihood_loss(log_weights):
        return -torch.logsumexp(log_weights + level, dim=1).sum()

    for loss in (cell_loss,) if level is None else (cell_loss, likelihood_loss):
        parameters = [each for pair in maps for each in pair]
        optimiser = torch.optim.LBFGS(parameters, max_iter=START_STEPS, line_search_fn="strong_wolfe")

        def closure(loss=loss, optimiser=optimiser):
            optimiser.zero_grad()
            # falls with the number of rows, as do the errors of the discriminants that the gates read
            penalty = 0.5 * START_PENALTY / len(cells) * sum(weight.square().sum() for weight, _ in maps)
            value = (loss(net(**inputs)) + penalty) / len(cells)
            value.backward()
            return value

        optimiser.step(closure)
    return True


def _datasets(features, target):
    """Training and held-out rows."""
    values = torch.as_tensor(target.values, dtype=torch.int64 if target.loss == "cross_entropy" else torch.float32)
    return [
        Dataset(as_tensors(features, rows), values[torch.as_tensor(rows)])
        for rows in (~target.held_out, target.held_out)
    ]


def _compare(linear, trained, features, target, start, settings):
    """Return the record of linear gates where they are to be kept in place of a trained net, else None."""
    criterion, sets = GateLoss(target.loss, settings.entropy_penalty), _datasets(features, target)
    watched = sets[-1] if len(sets[-1]) else sets[0]

    def losses(net, rows):
        return criterion.of_rows(net.to("cpu").eval()(**rows.X), rows.y)

    with torch.inference_mode():
        gain = losses(linear, watched) - losses(trained, watched)
        doubt = DOUBT if start.variances is None else 0.0
        if gain.mean() > doubt * gain.std() / len(gain) ** 0.5:
            return None
        record = {"start": "linear", "loss": target.loss, "epoch": 0}
        names = ("train_loss", "valid_loss")
        return record | {
            name: losses(linear, rows).mean().item() for name, rows in zip(names, sets, strict=True) if len(rows)
        }


def _train(net, features, target, settings, generator, device, verbose, *, keep_start=False):
    """Train `net` in place and load its best epoch; returns the history.

    With `keep_start` the net may also stay as it was before the first epoch.
    """
    train, valid = _datasets(features, target)
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
    if keep_start:
        watched = valid if len(valid) else train
        with torch.inference_mode():
            lowest = trainer.criterion_(net(**watched.X), watched.y).item()
        best, threshold = deepcopy(net.state_dict()), lowest - MIN_GAIN * abs(lowest)
    while len(history) < settings.max_epochs and n_misses < settings.patience:
        trainer.fit_loop(train, epochs=1)  # skorch's `fit` would take Ctrl-C for the end of the training
        losses = {
            name: trainer.history[-1][name] for name in ("train_loss", "valid_loss") if name in trainer.history[-1]
        }
        history.append({"start": "random", "loss": target.loss, "epoch": len(history) + 1, **losses})
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
