"""The towers as torch modules: what every network is given, and the networks that have a name."""

from itertools import pairwise

import numpy as np
import torch
from torch import nn

TAIL = 3.0  # standard deviations up to which a tower's feature enters as it is
KERNEL = 5  # features that a convolution sees at once
N_PLACES = 16  # places along the features that the convolutional network tells apart, at most


class Tower(nn.Module):
    """Standardise features, tame their tails, and hand them to a network.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
        Of the training rows.
    network : torch.nn.Module
        From standardised features (n_samples, n_features), float32, to logits (n_samples, n_outputs).
    """

    def __init__(self, features, network):
        super().__init__()
        mean, scale = features.mean(axis=0), features.std(axis=0)
        # what is constant but for rounding has no say, however it may move later
        constant = scale <= 10 * np.finfo(np.float64).eps * np.sqrt(len(features)) * np.abs(mean)
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("scale", torch.as_tensor(np.where(constant, np.inf, scale)))
        self.network = network

    def forward(self, features):
        # in double up to here: a large offset or an odd unit would cost the digits that matter
        return self.network(_tame(((features - self.mean) / self.scale).clamp(-1e6, 1e6).float()))


def _tame(values):
    """Identity up to TAIL standard deviations, logarithmic beyond: error statistics have long tails."""
    beyond = (values.abs() - TAIL).clamp(min=0)
    return values.clamp(-TAIL, TAIL) + values.sign() * torch.log1p(beyond)


class Perceptron(nn.Module):
    """A linear map and a multilayer perceptron, added.

    The linear map is the gate a logistic regression would find; the perceptron has only its errors to mend.
    """

    def __init__(self, n_features, n_outputs, hidden):
        super().__init__()
        widths = [n_features, *hidden]
        self.linear = nn.Linear(n_features, n_outputs)
        layers = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], n_outputs)) if hidden else None

    def forward(self, features):
        return self.linear(features) if self.layers is None else self.linear(features) + self.layers(features)


class Convolutions(nn.Module):
    """A linear map and one-dimensional convolutions along the features, added.

    Each convolution but the last is followed by a pooling of pairs, as long as more than `N_PLACES` are left; averages
    over `N_PLACES` stretches, or fewer, go to the outputs by a linear map, so that where a pattern stands still tells.
    """

    def __init__(self, n_features, n_outputs, channels):
        super().__init__()
        self.linear = nn.Linear(n_features, n_outputs)
        layers, length = [], n_features
        for layer, (n_in, n_out) in enumerate(pairwise([1, *channels]), start=1):
            layers += [nn.Conv1d(n_in, n_out, KERNEL, padding=KERNEL // 2), nn.SiLU()]
            if layer < len(channels) and length >= 2 * N_PLACES:
                layers.append(nn.AvgPool1d(2))
                length //= 2
        places = min(N_PLACES, length)
        layers += [nn.AdaptiveAvgPool1d(places), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(channels[-1] * places, n_outputs)) if channels else None

    def forward(self, features):
        if self.layers is None:
            return self.linear(features)
        return self.linear(features) + self.layers(features[:, None, :])


def build_network(name, network, n_features, n_outputs):
    """Call a user's `network`, and return what it made if that is a module of the right shape in and out.

    Parameters
    ----------
    name : str
        Whose parameter it is, such as "PhysGate.network".
    network : callable
    n_features, n_outputs : int
    """
    wanted = f"a torch.nn.Module from features (n_samples, {n_features:,}) to logits (n_samples, {n_outputs:,})"
    if isinstance(network, nn.Module):
        raise ValueError(
            f"{name}={network!r} is a module: give what makes one, a callable network(n_features, n_outputs), so that "
            "every fit starts anew."
        )
    built = network(n_features, n_outputs)
    if not isinstance(built, nn.Module):
        raise ValueError(f"{name}={network!r} returned {built!r}: it must return {wanted}.")
    try:
        with torch.no_grad():
            outputs = built.eval()(torch.zeros(2, n_features))
    except RuntimeError as error:
        raise ValueError(
            f"{name}={network!r} returned a module that fails on float32 features of shape (2, {n_features:,}): "
            f"{error}. It must be {wanted}."
        ) from error
    found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    if found != (2, n_outputs):
        raise ValueError(
            f"{name}={network!r} returned a module that turns features of shape (2, {n_features:,}) into {found}, not "
            f"(2, {n_outputs:,}): it must be {wanted}."
        )
    return built
