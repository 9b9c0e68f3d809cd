"""The networks of a tower by name."""

from functools import partial


def make_network(class_name, n_features, n_outputs, hidden):
    """Make a named network; torch is imported here, not with the registry.

    Parameters
    ----------
    class_name : str
        Class in `dualgate.gating._nets`.
    n_features, n_outputs : int
    hidden : tuple of int
        Widths of its layers, or their channels; empty leaves a linear map.

    Returns
    -------
    module : torch.nn.Module
        From standardised features (n_samples, n_features) to logits (n_samples, n_outputs).
    """
    from dualgate.gating import _nets

    return getattr(_nets, class_name)(n_features, n_outputs, hidden)


NETWORKS = {"cnn": partial(make_network, "Convolutions"), "mlp": partial(make_network, "Perceptron")}
