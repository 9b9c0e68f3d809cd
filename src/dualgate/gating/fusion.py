"""Fusions of the logits of two towers into expert weights, and the registry that names them."""

import numbers
from abc import ABC, abstractmethod

from sklearn.base import BaseEstimator

from dualgate._validation import check_number
from dualgate.gating.networks import make_module


class Fusion(BaseEstimator, ABC):
    """Combine the logits of two towers into expert weights.

    With a single quality bin both towers return logits of the regimes. With several the physics tower returns logits of
    regimes, the quality tower logits of quality bins, and the fusion weights of all cells, regime slowest. A new
    fusion is a subclass registered in `FUSIONS`.
    """

    def n_outputs(self, n_regimes, n_bins):
        """Numbers of logits that the towers return.

        Parameters
        ----------
        n_regimes, n_bins : int

        Returns
        -------
        n_phys, n_quality : int
        """
        return n_regimes, n_regimes if n_bins == 1 else n_bins

    @abstractmethod
    def build(self, n_regimes, n_bins):
        """Make the torch module from (phys_logits, quality_logits) to log-weights.

        Parameters
        ----------
        n_regimes, n_bins : int

        Returns
        -------
        module : torch.nn.Module
            Its output has shape (n_samples, n_regimes * n_bins), and the exponentials of a row sum to 1.
        """

    def build_alone(self, n_experts):
        """Make the torch module from the logits of a single tower to log-weights, where the other is dropped.

        Parameters
        ----------
        n_experts : int

        Returns
        -------
        module : torch.nn.Module
        """
        return make_module("LogitAdd")


class LogitAddFusion(Fusion):
    r"""Add the towers' logits: the quality tower is a bias on the experts.

    .. math:: w_{ks} \propto \exp(a_k + b_s)

    With a single quality bin :math:`w_k \propto \exp(a_k + b_k)`.

    Examples
    --------
    >>> LogitAddFusion().n_outputs(9, 4)
    (9, 4)
    """

    def build(self, n_regimes, n_bins):  # noqa: D102
        return make_module("LogitAdd", n_bins)


class ProductOfExpertsFusion(Fusion):
    r"""Multiply the towers' probabilities, each raised to a confidence that depends on the sample.

    .. math:: w_{ks} \propto p_k^{\,\alpha}\, q_s^{\,\beta}, \qquad
        \alpha = \mathrm{softplus}(u\, g(p) + v), \quad g(p) = 1 - H(p) / \log K

    :math:`g` is the share of entropy that a tower removes, so that an uncertain tower can be given less weight; u and v
    are learned, one pair per tower. With unit exponents this is logit addition.

    References
    ----------
    Cao & Fleet 2014, arXiv:1410.7827 (generalised product of experts). Hinton 2002, Neural Computation 14, 1771.

    Examples
    --------
    >>> ProductOfExpertsFusion().n_outputs(9, 1)
    (9, 9)
    """

    def build(self, n_regimes, n_bins):  # noqa: D102
        return make_module("ProductOfExperts", n_bins)


class TemperatureFusion(Fusion):
    r"""Scale the logits of the physics tower by a temperature that the quality tower sets.

    .. math:: w_k \propto \exp(a_k / \tau), \qquad \tau = 1 + \mathrm{softplus}(t) \ge 1

    The first quality output is t. With several quality bins the others are logits over them, and the weights are the
    product of both distributions.

    Examples
    --------
    >>> TemperatureFusion().n_outputs(9, 1)
    (9, 1)
    """

    def n_outputs(self, n_regimes, n_bins):  # noqa: D102
        return n_regimes, 1 if n_bins == 1 else 1 + n_bins

    def build(self, n_regimes, n_bins):  # noqa: D102
        return make_module("Temperature", n_bins)


class ConcatFusion(Fusion):
    r"""Concatenate the towers' logits and add the output of a hidden layer on them.

    .. math:: w_{ks} \propto \exp(a_k + b_s + h_{ks}([a; b])), \qquad h = V \sigma(U [a; b] + c) + d

    A linear head alone would be a sum of logits; with the hidden layer quality can change the effect of a physical
    feature. V and d start at zero, where this is logit addition. A single tower keeps the layer, so that one tower and
    two are compared with the same layers.

    Parameters
    ----------
    hidden : int, default=32
        Width of the layer after the concatenation.

    Examples
    --------
    >>> ConcatFusion(hidden=16).n_outputs(9, 4)
    (9, 4)
    """

    def __init__(self, *, hidden=32):
        self.hidden = hidden

    def build(self, n_regimes, n_bins):  # noqa: D102
        return self._concat(sum(self.n_outputs(n_regimes, n_bins)), n_regimes * n_bins, n_bins)

    def build_alone(self, n_experts):  # noqa: D102
        return self._concat(n_experts, n_experts)

    def _concat(self, n_inputs, n_experts, n_bins=1):
        hidden = check_number(self, "hidden", self.hidden, kind=numbers.Integral, low=1)
        return make_module("Concat", n_inputs, hidden, n_experts, n_bins)


FUSIONS = {
    "concat": ConcatFusion,
    "logit_add": LogitAddFusion,
    "poe": ProductOfExpertsFusion,
    "temperature": TemperatureFusion,
}
