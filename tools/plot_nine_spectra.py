"""Draw ``docs/figures/nine_spectra.png``: one star of each regime, as simulated and without noise."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from dualgate.datasets import make_spectra

TARGET = Path(__file__).resolve().parents[1] / "docs" / "figures" / "nine_spectra.png"
LINES = {"Na I": 8189.0, "Ca II": 8542.1, "TiO": 7589.0, "CN": 7873.0, "K I": 7699.0}


def pick(data):
    """Return for each regime the bright row nearest to the middle of its regime; dwarfs and giants by turns."""
    rows = []
    for regime in range(9):
        wanted = 4.5 if regime % 2 else 1.8
        candidates = np.flatnonzero((data.regimes == regime) & (data.snr > 4) & (np.abs(data.y - wanted) < 0.4))
        centre = data.conditions[data.regimes == regime].mean(axis=0)
        rows.append(candidates[np.argmin(np.abs((data.conditions[candidates] - centre) / (700.0, 1.0)).sum(axis=1))])
    return rows


def main():
    """Draw and save."""
    data = make_spectra(4000, random_state=42)
    clean = make_spectra(4000, random_state=42, noise_level=0)
    figure, axes = plt.subplots(9, 1, figsize=(11, 15), sharex=True, layout="constrained")
    for ax, row in zip(axes, pick(data), strict=True):
        star = data.labels.iloc[row]
        ax.plot(data.wave, data.flux[row], color="0.75", lw=0.4, label="flux")
        ax.plot(data.wave, data.error[row], color="tab:orange", lw=0.5, label="error")
        ax.plot(data.wave, clean.flux[row], color="tab:blue", lw=0.7, label="without noise")
        title = f"regime {data.regimes[row]}: {star.T_eff:.0f} K, log g {star.log_g:.1f}, [M/H] {star.M_H:+.1f}"
        title += f", [alpha/M] {star.a_M:+.1f}, [C/M] {star.C_M:+.1f}, mag {star.mag:.1f}, SNR {star.snr:.1f}"
        ax.set_title(title, fontsize=9, loc="left", pad=2)
        ax.set(ylim=(0, 1.9), xlim=(data.wave[0], data.wave[-1]))
    for name, wave in LINES.items():
        for ax in axes:
            ax.axvline(wave, color="k", lw=0.4, alpha=0.4)
        axes[0].text(wave, 1.75, name, fontsize=7, ha="center", va="top", backgroundcolor="w")
    axes[-1].legend(loc="lower left", fontsize=7, ncol=3)
    axes[-1].set_xlabel("air wavelength [Å]")
    figure.supylabel("flux / mean noise-free flux")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main()
