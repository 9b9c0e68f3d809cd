"""The parts of a mixture for stellar spectra: what `DualTowerMoERegressor.for_spectra` is made of."""

from dualgate.experts import HierarchicalExperts
from dualgate.features import LineWindows, WienerScores
from dualgate.gating import PhysGate, QualityGate


def spectral_components(wave):
    """Make gates and experts for X = [flux | error] on the pixels of `wave` [angstrom], by parameter name."""
    n_pixels = len(wave)
    flux, error = slice(0, n_pixels), slice(n_pixels, None)
    experts = HierarchicalExperts(
        flux,
        error,
        quality_edges=(2, 4, 7),
        regime_edges=((4500, 5250), (-1, 0)),
        projection=WienerScores(12, columns=flux, error_columns=error, supervised=True, smooth=True),
        clip=True,
    )
    return {
        "phys_gate": PhysGate(flux, LineWindows(wave), scores=True),
        "quality_gate": QualityGate(error, variances=True),
        "experts": experts,
    }
