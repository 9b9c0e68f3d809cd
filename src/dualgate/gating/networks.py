"""The networks a tower may be made of, by name."""


def perceptron(n_features, n_outputs, hidden):
    """Make a linear map beside a multilayer perceptron.

    Parameters
    ----------
    n_features, n_outputs : int
    hidden : tuple of int
        Widths of its layers; empty leaves the linear map.

    Returns
    -------
    module : torch.nn.Module
    """
    from dualgate.gating._nets import Perceptron

    return Perceptron(n_features, n_outputs, hidden)


def convolutions(n_features, n_outputs, hidden):
    """Make a linear map beside one-dimensional convolutions along the features.

    Parameters
    ----------
    n_features, n_outputs : int
    hidden : tuple of int
        Channels of its layers; empty leaves the linear map.

    Returns
    -------
    module : torch.nn.Module
    """
    from dualgate.gating._nets import Convolutions

    return Convolutions(n_features, n_outputs, hidden)


NETWORKS = {"cnn": convolutions, "mlp": perceptron}
