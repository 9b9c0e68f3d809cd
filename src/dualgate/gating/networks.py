"""The networks of a tower by name: ``network(n_features, n_outputs, hidden)`` makes a torch.nn.Module."""

from functools import partial


def make_module(class_name, *sizes):
    """Make a module of a class in `dualgate.gating.nets`, which imports torch: here, not with the registries."""
    from dualgate.gating import nets

    return getattr(nets, class_name)(*sizes)


NETWORKS = {"cnn": partial(make_module, "Convolutions"), "mlp": partial(make_module, "Perceptron")}
