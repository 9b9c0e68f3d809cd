"""Other regressors that the mixture is compared with; each is made from a seed."""

from sklearn.ensemble import HistGradientBoostingRegressor


def boosted_trees(seed: int):
    """Make the gradient boosting of scikit-learn."""
    return HistGradientBoostingRegressor(random_state=seed)


def light_trees(seed: int):
    """Make the gradient boosting of LightGBM.

    It keeps to one thread: several wait for each other without rest where anything else runs on the machine.
    """
    from lightgbm import LGBMRegressor

    return LGBMRegressor(random_state=seed, deterministic=True, force_row_wise=True, n_jobs=1, verbose=-1)
