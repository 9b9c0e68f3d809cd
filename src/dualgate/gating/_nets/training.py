"""Towers and fusion as one module, and the skorch fit that trains it."""

import math
from contextlib import contextmanager

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import Dataset

from dualgate.gating._nets.towers import Tower

RUN_ROWS = 16384  # rows that go through a trained net at once: its layers must fit into memory


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


class WithEntropy(nn.Module):
    """A loss, plus so many times the mean entropy of the weights [nats]."""

    def __init__(self, loss, penalty):
        super().__init__()
        self.loss, self.penalty = loss, penalty

    def forward(self, log_weights, target):
        entropy = -(log_weights.exp() * log_weights).sum(1).mean()
        return self.loss(log_weights, target) + self.penalty * entropy


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


def fit_gates(features, networks, fusion, shape, target, training, *, seed, device="cpu", verbose=0):
    """Train towers and fusion together.

    Parameters
    ----------
    features : dict of str to ndarray of shape (n_samples, n_gate_features)
        Under "phys" and "quality"; a dropped tower is absent.
    networks : dict of str to callable
        ``network(n_features, n_outputs)`` makes the module of a tower.
    fusion : Fusion
    shape : tuple of int
        Numbers of regimes and of quality bins.
    target : tuple (loss, values, validation_rows)
        "mse" with expert predictions and y side by side, or "cross_entropy" with cell codes; and a mask of the rows
        held out for early stopping.
    training : dict
        max_epochs, lr, batch_size, warmup_epochs, patience, entropy_penalty, weight_decay.
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
        net = _build({name: values[~held_out] for name, values in features.items()}, networks, fusion, shape)
        has_valid = len(valid) > 0
        trainer = NeuralNet(
            net,
            criterion=_criterion(loss, training["entropy_penalty"]),
            optimizer=torch.optim.AdamW,
            optimizer__weight_decay=training["weight_decay"],
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
        _train(trainer, train, training)
    penalised = training["entropy_penalty"] != 0
    if not math.isfinite(trainer.history[-1]["train_loss"]):
        raise ValueError(
            f"DualTowerMoERegressor.lr={training['lr']!r} let the gates' training diverge: its loss is "
            f"{trainer.history[-1]['train_loss']}. Try a smaller learning rate"
            + (f", or an entropy_penalty closer to zero than {training['entropy_penalty']!r}." if penalised else ".")
        )
    history = [
        {name: epoch[name] for name in ("epoch", "train_loss", "valid_loss") if name in epoch}
        for epoch in trainer.history
    ]
    return trainer.module_.to("cpu").eval(), history


def _train(trainer, rows, training):
    """Train an epoch at a time until patience is over; skorch's `fit` would take Ctrl-C for the end of the training."""
    trainer.initialize()
    trainer.notify("on_train_begin", X=rows, y=None)
    stop = dict(trainer.callbacks_)["early_stopping"]
    while len(trainer.history) < training["max_epochs"] and stop.misses_ < training["patience"]:
        trainer.fit_loop(rows, epochs=1)
    trainer.notify("on_train_end", X=rows, y=None)


def _criterion(loss, entropy_penalty):
    criterion = nn.NLLLoss() if loss == "cross_entropy" else MixtureSquaredError()
    return WithEntropy(criterion, entropy_penalty) if entropy_penalty else criterion


def _build(features, networks, fusion, shape):
    n_regimes, n_bins = shape
    alone = len(features) == 1
    widths = (n_regimes * n_bins,) * 2 if alone else fusion.n_outputs(n_regimes, n_bins)
    towers = [
        Tower(features[name], networks[name](features[name].shape[1], width)) if name in features else None
        for name, width in zip(("phys", "quality"), widths, strict=True)
    ]
    return GateNet(*towers, fusion.build_alone(n_regimes * n_bins) if alone else fusion.build(n_regimes, n_bins))


def _callbacks(training, n_rows, has_valid):
    """Learning rate by step, and a count of epochs without gain that goes back to the best one."""
    per_epoch = math.ceil(n_rows / training["batch_size"])
    n_warmup, n_steps = training["warmup_epochs"] * per_epoch, training["max_epochs"] * per_epoch

    def rate(step):  # linear warm-up, then half a cosine down to a hundredth
        warm = min(1.0, (step + 1) / n_warmup) if n_warmup else 1.0
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps))))

    stop = EarlyStopping(
        monitor="valid_loss" if has_valid else "train_loss",
        patience=math.inf,  # at its end the callback would raise KeyboardInterrupt: `_train` counts
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
    n_rows = len(next(iter(features.values())))
    pieces = []
    with torch.inference_mode():
        for first in range(0, max(n_rows, 1), RUN_ROWS):
            stages = net.stages(**_tensors(features, slice(first, first + RUN_ROWS)))
            pieces.append([None if stage is None else stage.numpy().astype(np.float64) for stage in stages])
    return tuple(None if parts[0] is None else np.concatenate(parts) for parts in zip(*pieces, strict=True))
