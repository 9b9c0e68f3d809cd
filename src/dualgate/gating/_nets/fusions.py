"""The fusions as torch modules, from both towers' logits to log-weights of the experts."""

import math

import torch
from torch import nn
from torch.nn.functional import log_softmax, softplus

SOFTPLUS_OF_ONE = math.log(math.e - 1)  # softplus of this is one


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
