"""Networks, fusions and the net of both as torch modules. Importing this module imports torch."""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.functional import log_softmax, softplus

TAIL = 3.0  # standard deviations up to which features stay linear
KERNEL = 5  # neighbouring features under a convolution
N_STRETCHES = 16  # stretches of features that the convolutional network averages over, at most
SOFTPLUS_OF_ONE = math.log(math.e - 1)  # softplus of this is one
RUN_ROWS = 16384  # rows per forward pass of a trained net, which bounds the memory of its layers


class Tower(nn.Module):
    """Standardise features as those of the training rows, compress their tails, and apply a network."""

    def __init__(self, features, network):
        super().__init__()
        mean, scale = features.mean(axis=0), features.std(axis=0)
        # a feature that is constant up to rounding is mapped to zero, also where it differs at prediction
        constant = scale <= 10 * np.finfo(np.float64).eps * np.sqrt(len(features)) * np.abs(mean)
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("scale", torch.as_tensor(np.where(constant, np.inf, scale)))
        self.network = network

    def forward(self, features):
        # float64 up to here: with a large offset or an extreme unit float32 would lose the digits that matter
        return self.network(_compress_tails(((features - self.mean) / self.scale).clamp(-1e6, 1e6).float()))


def _compress_tails(values):
    """Identity up to TAIL standard deviations, logarithmic beyond: error statistics have long tails."""
    beyond = (values.abs() - TAIL).clamp(min=0)
    return values.clamp(-TAIL, TAIL) + values.sign() * torch.log1p(beyond)


class _Network(nn.Module):
    """A linear map, the gate of a logistic regression, plus layers that learn its residual.

    A subclass sets `layers` after the linear map is made; None leaves the linear map alone.
    """

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.linear = nn.Linear(n_features, n_outputs)

    def forward(self, features):
        return self.linear(features) if self.layers is None else self.linear(features) + self.layers(features)

    def reset(self):
        """Set all outputs to zero, and return the parameters of the linear map."""
        for layer in (self.linear, *([] if self.layers is None else [self.layers[-1]])):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        return self.linear.weight, self.linear.bias


class Perceptron(_Network):
    """A linear map plus a multilayer perceptron with layers of widths `hidden`."""

    def __init__(self, n_features, n_outputs, hidden):
        super().__init__(n_features, n_outputs)
        widths = [n_features, *hidden]
        layers = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], n_outputs)) if hidden else None


class Convolutions(_Network):
    """A linear map plus one-dimensional convolutions along the features, with `hidden` channels.

    Each convolution but the last is followed by average pooling of pairs while at least `N_STRETCHES` values remain.
    Averages over at most `N_STRETCHES` stretches then enter a linear map, which keeps the rough position of a pattern.
    """

    def __init__(self, n_features, n_outputs, hidden):
        super().__init__(n_features, n_outputs)
        layers, length = [nn.Unflatten(1, (1, n_features))], n_features
        for layer, (n_in, n_out) in enumerate(pairwise([1, *hidden]), start=1):
            layers += [nn.Conv1d(n_in, n_out, KERNEL, padding=KERNEL // 2), nn.SiLU()]
            if layer < len(hidden) and length >= 2 * N_STRETCHES:
                layers.append(nn.AvgPool1d(2))
                length //= 2
        stretches = min(N_STRETCHES, length)
        layers += [nn.AdaptiveAvgPool1d(stretches), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1] * stretches, n_outputs)) if hidden else None


def build_network(name, network, n_features, n_outputs):
    """Call a user's `network`, and return its result if that is a module with inputs and outputs of the right shape.

    Messages call the parameter `name`, such as "PhysGate.network".
    """
    wanted = f"a torch.nn.Module from features (n_samples, {n_features:,}) to logits (n_samples, {n_outputs:,})"
    if isinstance(network, nn.Module):
        raise ValueError(
            f"{name}={network!r} is a module: give what makes one, a callable network(n_features, n_outputs), so that "
            "every fit starts with a new module."
        )
    built = network(n_features, n_outputs)
    if not isinstance(built, nn.Module):
        raise ValueError(f"{name}={network!r} returned {built!r}: it must return {wanted}.")
    try:
        with torch.no_grad():
            outputs = built.eval()(torch.zeros(2, n_features))
        found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        problem = f"turns features of shape (2, {n_features:,}) into {found}, not (2, {n_outputs:,})"
    except RuntimeError as error:
        found, problem = None, f"fails on float32 features of shape (2, {n_features:,}): {error}"
    if found != (2, n_outputs):
        raise ValueError(f"{name}={network!r} returned a module that {problem}: it must be {wanted}.")
    return built


class _Fusing(nn.Module):
    """Base of the fusions; `n_bins` is the number of quality bins, 1 for a single tower."""

    def __init__(self, n_bins=1):
        super().__init__()
        self.n_bins = n_bins

    def joint(self, over_regimes, over_bins=None):
        """Sum of log-weights over regimes and over bins, elementwise with one bin; a single tower's are the sum."""
        if over_bins is None:
            return over_regimes
        if self.n_bins == 1:
            return over_regimes + over_bins
        return (over_regimes[:, :, None] + over_bins[:, None, :]).flatten(1)


class LogitAdd(_Fusing):
    """softmax(a + b), or softmax(a) of a single tower."""

    def forward(self, *logits):
        return log_softmax(self.joint(*logits), dim=1)


class ProductOfExperts(_Fusing):
    """p^alpha q^beta, normalised; each exponent depends on how much entropy its tower removes."""

    def __init__(self, n_bins):
        super().__init__(n_bins)
        self.slope = nn.Parameter(torch.zeros(2))
        self.offset = nn.Parameter(torch.full((2,), SOFTPLUS_OF_ONE))

    def exponents(self, *log_probabilities):
        """Return one exponent per tower and sample, each of shape (n_samples, 1)."""
        gains = [_information_gain(logp) for logp in log_probabilities]
        return [softplus(self.slope[i] * gain + self.offset[i]) for i, gain in enumerate(gains)]

    def forward(self, phys_logits, quality_logits):
        p, q = log_softmax(phys_logits, dim=1), log_softmax(quality_logits, dim=1)
        alpha, beta = self.exponents(p, q)
        return log_softmax(self.joint(alpha * p, beta * q), dim=1)


def _information_gain(logp):
    """Share of the largest possible entropy that a distribution has removed: 0 uniform, 1 certain."""
    if logp.shape[1] == 1:
        return torch.zeros_like(logp)
    return 1 + (logp.exp() * logp).sum(1, keepdim=True) / math.log(logp.shape[1])


class Temperature(_Fusing):
    """softmax(a / tau), tau = 1 + softplus(t); times softmax over quality bins where there are several."""

    def forward(self, phys_logits, quality_logits):
        tau = 1 + softplus(quality_logits[:, :1])
        over_regimes = log_softmax(phys_logits / tau, dim=1)
        if self.n_bins == 1:
            return over_regimes
        return self.joint(over_regimes, log_softmax(quality_logits[:, 1:], dim=1))


class Concat(_Fusing):
    """softmax(a + b + h([a; b])), h a hidden layer on the concatenated logits; softmax(a + h(a)) of a single tower.

    The output of h is zero before training.
    """

    def __init__(self, n_inputs, hidden, n_experts, n_bins=1):
        super().__init__(n_bins)
        self.head = nn.Sequential(nn.Linear(n_inputs, hidden), nn.SiLU(), nn.Linear(hidden, n_experts))
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)

    def forward(self, *logits):
        return log_softmax(self.joint(*logits) + self.head(torch.cat(logits, dim=1)), dim=1)


class GateNet(nn.Module):
    """Towers and fusion as one module.

    Parameters
    ----------
    towers : dict of str to Tower
        "phys", "quality" or both, in this order; a dropped tower is absent.
    fusion : torch.nn.Module
        From the towers' logits to normalised log-weights (n_samples, n_experts).
    """

    def __init__(self, towers, fusion):
        super().__init__()
        self.towers, self.fusion = nn.ModuleDict(towers), fusion

    def stages(self, log_evidence=None, **features):
        """Return phys_logits, quality_logits (None where dropped) and log_weights; evidence is added to the logits."""
        logits = {name: tower(features[name]) for name, tower in self.towers.items()}
        log_weights = self.fusion(*logits.values())
        if log_evidence is not None:
            log_weights = log_softmax(log_weights + log_evidence.to(log_weights.dtype), dim=1)
        return logits.get("phys"), logits.get("quality"), log_weights

    def forward(self, **features):
        return self.stages(**features)[2]

    def reset(self):
        """Set the outputs of all towers to zero; weights and biases of their linear maps, None where one has none."""
        networks = [tower.network for tower in self.towers.values()]
        return [network.reset() for network in networks] if all(hasattr(n, "reset") for n in networks) else None


def build_net(features, networks, fusion, n_regimes, n_bins):
    """Make the net for these training features; arguments as for :func:`~dualgate.gating.training.fit_gates`."""
    n_experts = n_regimes * n_bins
    alone = len(features) == 1
    widths = (n_experts, n_experts) if alone else fusion.n_outputs(n_regimes, n_bins)
    towers = {
        name: Tower(features[name], networks[name](features[name].shape[1], width))
        for name, width in zip(("phys", "quality"), widths, strict=True)
        if name in features
    }
    return GateNet(towers, fusion.build_alone(n_experts) if alone else fusion.build(n_regimes, n_bins))


def state_of(net):
    """Weights and buffers of a net by name, as arrays."""
    return {name: values.numpy() for name, values in net.state_dict().items()}


def restore_net(state, networks, fusion, n_regimes, n_bins):
    """Make the net again that `state_of` took the state of; raises a RuntimeError where a shape is another."""
    with torch.device("meta"):  # shapes alone: neither memory nor random numbers
        features = {name: np.zeros((1, len(state[f"towers.{name}.mean"]))) for name in networks}
        net = build_net(features, networks, fusion, n_regimes, n_bins)
    net.load_state_dict({name: torch.tensor(values) for name, values in state.items()}, assign=True)
    return net.eval()


def as_tensors(features, rows=slice(None)):
    """Copy rows of the features into float64 tensors, by tower name."""
    return {name: torch.tensor(values[rows], dtype=torch.float64) for name, values in features.items()}


def with_evidence(features, log_evidence):
    """Features by name with the log evidence of the experts among them, less its largest value of the row."""
    if log_evidence is None:
        return features
    return {**features, "log_evidence": log_evidence - log_evidence.max(axis=1, keepdims=True)}


def run_gates(net, features, log_evidence=None):
    """Run the stages of a trained net.

    Parameters
    ----------
    net : GateNet
    features : dict of str to ndarray of shape (n_samples, n_gate_features)
        By tower name, "phys" and "quality".
    log_evidence : None or ndarray of shape (n_samples, n_experts), default=None
        Of experts that have it.

    Returns
    -------
    phys_logits, quality_logits : ndarray of shape (n_samples, n_outputs) or None
        None for a dropped tower.
    log_weights : ndarray of shape (n_samples, n_experts)
        Logarithms of the experts' weights; the weights of a row sum to 1.
    """
    n_rows = len(next(iter(features.values())))
    features, pieces = with_evidence(features, log_evidence), []
    with torch.inference_mode():
        for first in range(0, max(n_rows, 1), RUN_ROWS):
            stages = net.stages(**as_tensors(features, slice(first, first + RUN_ROWS)))
            pieces.append([None if stage is None else stage.numpy().astype(np.float64) for stage in stages])
    return tuple(None if parts[0] is None else np.concatenate(parts) for parts in zip(*pieces, strict=True))
