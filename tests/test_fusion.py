import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dualgate.gating import FUSIONS
from dualgate.gating.nets import SOFTPLUS_OF_ONE

SHAPES = [(2, 1), (9, 1), (9, 4)]


def outputs_for(fusion, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(5, width, generator=generator) for width in fusion.n_outputs(*shape)]


def stir(module, seed=1):
    """Give every parameter a value of its own: a law must not rest on how a module starts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alias", sorted(FUSIONS))
def test_fusion_gives_a_distribution(alias, shape):
    fusion = FUSIONS[alias]()
    weights = stir(fusion.build(*shape))(*outputs_for(fusion, shape)).exp()
    assert weights.shape == (5, shape[0] * shape[1])
    assert_close(weights.sum(-1), torch.ones(5))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alias", sorted(FUSIONS))
def test_both_towers_move_the_weights(alias, shape):
    fusion = FUSIONS[alias]()
    module, (phys, quality) = stir(fusion.build(*shape)), outputs_for(fusion, shape)
    base = module(phys, quality)
    assert not torch.allclose(base, module(phys.flip(0), quality))
    assert not torch.allclose(base, module(phys, quality.flip(0)))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_of_experts_with_unit_exponents_is_logit_addition(shape):
    fusion = FUSIONS["poe"]()
    product, outputs = stir(fusion.build(*shape)), outputs_for(fusion, shape)
    added = FUSIONS["logit_add"]().build(*shape)(*outputs)
    assert not torch.allclose(product(*outputs), added)
    with torch.no_grad():
        product.slope.zero_()
        product.offset.fill_(SOFTPLUS_OF_ONE)
    assert_close(product(*outputs), added)


def test_logit_addition_multiplies_probabilities():
    fusion = FUSIONS["logit_add"]()
    phys, quality = outputs_for(fusion, (9, 1))
    product = phys.softmax(1) * quality.softmax(1)
    assert_close(fusion.build(9, 1)(phys, quality).exp(), product / product.sum(1, keepdim=True))
    phys, quality = outputs_for(fusion, (9, 4))
    outer = phys.softmax(1)[:, :, None] * quality.softmax(1)[:, None, :]
    assert_close(fusion.build(9, 4)(phys, quality).exp(), outer.flatten(1))


@pytest.mark.parametrize("shape", SHAPES)
def test_concat_with_a_linear_head_is_a_sum_of_logits(shape):
    fusion = FUSIONS["concat"]()
    module, (phys, quality) = stir(fusion.build(*shape)), outputs_for(fusion, shape)
    a, b = outputs_for(fusion, shape, seed=5)

    def interaction(module):
        """Mixed difference of the logits, zero for any sum f(phys) + g(quality) up to a row's normalisation."""
        logits = [module(x, y) for x, y in ((phys, quality), (a, quality), (phys, b), (a, b))]
        mixed = logits[0] - logits[1] - logits[2] + logits[3]
        return (mixed - mixed.mean(1, keepdim=True)).abs().max().item()

    assert interaction(module) > 1e-2
    module.head[1] = nn.Identity()
    assert interaction(module) < 1e-4


def test_temperature_never_sharpens_and_a_large_one_flattens():
    fusion = FUSIONS["temperature"]()
    module, (phys, _) = fusion.build(9, 1), outputs_for(fusion, (9, 1))
    entropies = []
    for t in (-30.0, 0.0, 3.0, 300.0):
        log_weights = module(phys, torch.full((5, 1), t))
        entropies.append(-(log_weights.exp() * log_weights).sum(1).mean().item())
    cold = phys.log_softmax(1)
    assert np.isclose(entropies[0], -(cold.exp() * cold).sum(1).mean().item())  # tau = 1
    assert np.all(np.diff(entropies) > 0)
    assert np.isclose(entropies[-1], np.log(9), atol=1e-3)


def test_a_confident_tower_has_the_larger_exponent_in_a_product():
    module = FUSIONS["poe"]().build(9, 1)
    with torch.no_grad():
        module.slope.fill_(2.0)
    sharp, flat = torch.zeros(1, 9), torch.zeros(1, 9)
    sharp[0, 0] = 10.0
    alpha, beta = module.exponents(sharp.log_softmax(1), flat.log_softmax(1))
    assert alpha.item() > beta.item()
    assert np.isclose(beta.item(), 1.0)


@pytest.mark.parametrize("alias", sorted(FUSIONS))
def test_a_tower_alone_gives_a_distribution_and_starts_as_a_softmax(alias):
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    module = FUSIONS[alias]().build_alone(9)
    assert_close(module(logits), logits.log_softmax(1))
    assert_close(stir(module)(logits).exp().sum(1), torch.ones(5))
