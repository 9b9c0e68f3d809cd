"""The networks of a tower by name: ``network(n_features, n_outputs, hidden)`` makes a torch.nn.Module."""

from functools import partial


def _make(class_name, *sizes):
    """Make a network of a class in `dualgate.gating.nets`, which imports torch: here, not with the registry."""
    from dualgate.gating import nets

    return getattr(nets, class_name)(*sizes)


NETWORKS = {"cnn": partial(_make, "Convolutions"), "mlp": partial(_make, "Perceptron")}
