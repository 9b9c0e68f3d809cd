"""The parts of a mixture for stellar spectra: what `DualTowerMoERegressor.for_spectra` is made of."""

from sklearn.compose import ColumnTransformer

from dualgate.experts import HierarchicalExperts
from dualgate.features import LineWindows, NoiseWhitenedPCA
from dualgate.gating import PhysGate, QualityGate


def spectral_components(wave):
    """Make gates and experts for X = [flux | error] on the pixels of `wave` [angstrom], by parameter name."""
    flux, error = slice(0, len(wave)), slice(len(wave), None)
    features = ColumnTransformer(
        [
            ("lines", LineWindows(wave), flux),
            ("components", NoiseWhitenedPCA(4, columns=flux, error_columns=error), slice(0, None)),
        ]
    )
    experts = HierarchicalExperts(
        flux,
        error,
        quality_edges=(2, 4, 7),
        regime_edges=((4500, 5250), (-1, 0)),
        projection="whitened",
        n_components=50,
        clip=True,
    )
    return {"phys_gate": PhysGate(features=features), "quality_gate": QualityGate(error), "experts": experts}
