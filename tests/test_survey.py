"""Survey files, objects and tables: what is read is what was written, and what is wrong with a file is named.

The files are small ones that `written_surveys` writes by the data models; none is a survey's own.
"""

import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dualgate import DualTowerMoERegressor
from dualgate.datasets import make_spectra, read_spectra, resample, to_air, to_vacuum

pytest.importorskip("astropy")

from astropy import units as u
from astropy.io import fits
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty

from written_surveys import (
    BITS,
    spectra,
    write_ap_star,
    write_desi,
    write_mwm_star,
    write_pfs_coadd,
    write_pfs_object,
    write_spec,
)

FLUX, VARIANCE, MASK = spectra()
NM = np.linspace(700, 760, FLUX.shape[1])
BAD = (MASK & (1 << BITS["BAD"] | 1 << BITS["CR"])) != 0


@pytest.fixture
def coadd(tmp_path):
    return write_pfs_coadd(tmp_path / "pfsCoadd.fits", FLUX, VARIANCE, MASK, NM, rho=(0.3, -0.05))


def check_measured(data, flux, variance, bad, wave):
    """The whole contract: arrays as measured, native, masked in X and nowhere else."""
    assert_array_equal(data.mask, bad)
    assert_allclose(data.wave, wave, rtol=1e-12)
    assert_allclose(data.flux[~bad], np.asarray(flux)[~bad], rtol=1e-7)
    assert_allclose(data.error[~bad], np.sqrt(variance)[~bad], rtol=1e-6)
    half = len(wave)
    assert np.isnan(data.X[:, :half][bad]).all()
    assert np.isinf(data.X[:, half:][bad]).all()
    assert_array_equal(data.X[:, :half][~bad], data.flux[~bad])
    assert_array_equal(data.X[:, half:][~bad], data.error[~bad])
    assert all(array.dtype.isnative for array in (data.X, data.flux, data.error, data.wave, np.asarray(data.ids)))
    assert len(data.ids) == len(data.table) == len(data.X)
    assert data.provenance["masked"] == bad.mean()


# ---- PFS -------------------------------------------------------------------------------------------------------------


def test_pfs_coadd(coadd):
    data = read_spectra(coadd)
    check_measured(data, FLUX, VARIANCE, BAD, 10 * NM)
    assert_array_equal(data.ids, 2**40 + np.arange(3))
    assert_array_equal(data.table.targetType, [1, 2, 1])
    assert list(data.table.patch) == ["1,1"] * 3
    assert_allclose(data.correlation, [0.3, -0.05], atol=1e-6)
    stated = {"flux_unit": "nJy", "wave_unit": "nm", "medium": "vacuum", "frame": "barycentric", "files": [coadd]}
    assert stated.items() <= data.provenance.items()
    assert data.X.dtype == np.float32
    with fits.open(coadd) as hdus:
        assert_array_equal(read_spectra(hdus).X, data.X)


@pytest.mark.parametrize(
    ("bits", "names"),
    [(("SUSPECT",), ("SUSPECT",)), (["CR", 0], ("CR", "BAD")), ("any", tuple(BITS)), ("BAD", ("BAD",)), ((), ())],
)
def test_which_bits_are_bad_is_an_argument(coadd, bits, names):
    wanted = sum(1 << BITS[name] for name in names)
    assert_array_equal(read_spectra(coadd, bad_bits=bits).mask, (MASK & wanted) != 0)


def test_pfs_rows_of_unequal_length_are_padded_and_masked(tmp_path):
    parts = [slice(0, 60), slice(5, 60), slice(0, 41)]
    rows = [[array[i, part] for i, part in enumerate(parts)] for array in (FLUX, VARIANCE, MASK)]
    data = read_spectra(write_pfs_coadd(tmp_path / "a.fits", *rows, [NM[part] for part in parts]))
    bad = BAD.copy()
    bad[1, :5], bad[2, 41:] = True, True
    check_measured(data, FLUX, VARIANCE, bad, 10 * NM)


def test_pfs_rows_on_different_grids_need_one_to_be_resampled_to(tmp_path):
    waves = [NM, NM + 0.3, NM + 0.55]
    path = write_pfs_coadd(tmp_path / "a.fits", FLUX, VARIANCE, MASK, waves)
    with pytest.raises(ValueError, match=r"different wavelength grids.*to="):
        read_spectra(path)
    data = read_spectra(path, to=10 * NM[5:-5])
    for i, wave in enumerate(waves):
        alone = resample(FLUX[i], np.sqrt(VARIANCE[i]), 10 * wave, 10 * NM[5:-5], mask=BAD[i])
        assert_allclose(data.flux[i], alone.flux[0], rtol=1e-6)
        assert_allclose(data.error[i], alone.error[0], rtol=1e-6)


def test_pfs_object_has_the_wavelengths_that_the_survey_reads(tmp_path):
    data = read_spectra(write_pfs_object(tmp_path / "pfsObject.fits", FLUX[0], VARIANCE[0], MASK[0], NM))
    check_measured(data, FLUX[:1], VARIANCE[:1], BAD[:1], 10 * NM)
    assert data.ids == [77]
    assert data.table.catId[0] == 1


# ---- DESI ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def desi(tmp_path):
    rng = np.random.default_rng(3)
    arms = {}
    for arm, first, n_pixels in (("Z", 7520, 50), ("B", 7400, 60), ("R", 7440, 110)):
        flux, variance, _ = spectra(4, n_pixels, seed=ord(arm))
        ivar, mask = (1 / variance).astype(np.float32), rng.integers(0, 20, (4, n_pixels)) // 18
        ivar[1, 7], ivar[2, 8] = 0, -3
        arms[arm] = first + 0.8 * np.arange(n_pixels), flux, ivar, mask
    table = {"TARGETID": np.arange(4) + 39627000, "OBJTYPE": np.array(["TGT", "SKY", "TGT", "TGT"])}
    return write_desi(tmp_path / "coadd.fits", arms, table), arms


def test_desi_arm(desi):
    path, arms = desi
    data = read_spectra(path, arm="r")
    wave, flux, ivar, mask = arms["R"]
    bad = (mask != 0) | (ivar <= 0)
    check_measured(data, flux, 1 / np.where(bad, 1, ivar), bad, wave)
    assert_array_equal(data.ids, 39627000 + np.arange(4))
    assert list(data.table.OBJTYPE) == ["TGT", "SKY", "TGT", "TGT"]
    assert data.provenance["arms"] == ["R"]


def test_desi_arms_are_joined_with_inverse_variances(desi):
    path, arms = desi
    data = read_spectra(path)
    assert_allclose(data.wave, 7400 + 0.8 * np.arange(200), rtol=1e-12)
    weight, total = np.zeros((2, 4, 200))
    for wave, flux, ivar, mask in arms.values():
        place = np.rint((wave - 7400) / 0.8).astype(int)
        good = np.where((mask == 0) & (ivar > 0), ivar, 0)
        weight[:, place] += good
        total[:, place] += good * flux
    bad = weight == 0
    check_measured(data, total / np.where(bad, 1, weight), 1 / np.where(bad, 1, weight), bad, data.wave)
    assert sorted(data.provenance["arms"]) == ["B", "R", "Z"]


def test_desi_is_what_specutils_reads(desi):
    specutils = pytest.importorskip("specutils")
    ours, theirs = read_spectra(desi[0]), read_spectra(specutils.SpectrumList.read(desi[0], format="DESI coadd"))
    assert_array_equal(ours.wave, theirs.wave)
    assert_array_equal(ours.mask, theirs.mask)
    assert_allclose(ours.X, theirs.X, rtol=1e-6)


# ---- SDSS-V ----------------------------------------------------------------------------------------------------------


def sdss_rows(n_pixels, n_rows=1, seed=0):
    flux, variance, _ = spectra(n_rows, n_pixels, seed)
    flags = np.zeros((n_rows, n_pixels))
    flags[:, 2], flags[:, 5], flags[:, 7] = 1 << 3, 1 << 9, 1 << 14  # UNFIXABLE, PERSIST_HIGH, NOT_ENOUGH_PSF
    return flux, 1 / variance, flags


def test_mwm_star(tmp_path):
    rows = {"BOSS/APO": sdss_rows(40), "APOGEE/APO": sdss_rows(50, seed=1), "APOGEE/LCO": sdss_rows(50, seed=2)}
    path = write_mwm_star(tmp_path / "mwmStar.fits", rows)
    with pytest.raises(ValueError, match=r"BOSS and APOGEE.*arm='BOSS'"):
        read_spectra(path)
    flux, ivar, flags = (np.vstack(each) for each in zip(rows["APOGEE/APO"], rows["APOGEE/LCO"], strict=True))
    bad = (flags == 1 << 3) | (flags == 1 << 14)  # what the pipeline takes for bad
    data = read_spectra(path, arm="APOGEE")
    check_measured(data, flux, 1 / ivar, bad, np.float32(10 ** (4.179 + 6e-6 * np.arange(50))))
    assert_array_equal(data.ids, [42, 42])
    assert data.provenance["frame"].startswith("rest")
    assert_array_equal(read_spectra(path, arm="APOGEE", bad_bits=["PERSIST_HIGH"]).mask, flags == 1 << 9)
    assert_array_equal(read_spectra(path, arm="boss").mask, rows["BOSS/APO"][2] != 0)
    with pytest.raises(ValueError, match="at rest already"):
        read_spectra(path, arm="BOSS", velocity=20.0)


def test_ap_star_is_its_combined_spectrum(tmp_path):
    flux, ivar, flags = sdss_rows(50, 3)
    error = 1 / np.sqrt(ivar)
    data = read_spectra(write_ap_star(tmp_path / "apStar.fits", flux, error, flags.astype(np.int16)))
    bad = (flags == 1 << 3) | (flags == 1 << 14)
    check_measured(data, flux[:1], error[:1] ** 2, bad[:1], 10 ** (4.179 + 6e-6 * np.arange(50)))
    assert list(data.ids) == ["2M1"]


def test_spec(tmp_path):
    flux, ivar, flags = (each[0] for each in sdss_rows(50))
    data = read_spectra(write_spec(tmp_path / "spec.fits", flux, ivar, flags.astype(int)))
    wave = 10 ** np.float32(3.6 + 1e-4 * np.arange(50)).astype(np.float64)
    check_measured(data, flux[None], 1 / ivar[None], flags[None] != 0, wave)
    assert data.ids == [5]


# ---- objects, tables, Parquet ----------------------------------------------------------------------------------------

UNCERTAINTIES = {"std": (StdDevUncertainty, 0.5), "var": (VarianceUncertainty, 1), "ivar": (InverseVariance, -1)}
ANGSTROM = 10 * NM


def spectrum(rows=slice(None), kind="ivar", wave=NM * u.nm, meta=None):
    """Object with the attributes of a Spectrum of specutils."""
    make, power = UNCERTAINTIES[kind]
    parent = NDData(FLUX[rows] * u.nJy, uncertainty=make(VARIANCE[rows] ** power))  # the uncertainty knows the unit
    return SimpleNamespace(
        flux=FLUX[rows] * u.nJy, spectral_axis=wave, uncertainty=parent.uncertainty, mask=BAD[rows], meta=meta or {},
        parent=parent,
    )  # fmt: skip


@pytest.mark.parametrize("kind", list(UNCERTAINTIES))
def test_objects_like_those_of_specutils(kind):
    data = read_spectra(spectrum(kind=kind))
    check_measured(data, FLUX, VARIANCE, BAD, ANGSTROM)
    assert data.provenance["flux_unit"] == "nJy"
    assert data.provenance["medium"] == "not stated"
    check_measured(read_spectra([spectrum(i, kind) for i in range(3)]), FLUX, VARIANCE, BAD, ANGSTROM)
    check_measured(read_spectra(spectrum(0, kind)), FLUX[:1], VARIANCE[:1], BAD[:1], ANGSTROM)


def test_spectra_of_specutils():
    specutils = pytest.importorskip("specutils")
    options = {"uncertainty": StdDevUncertainty(np.sqrt(VARIANCE)), "mask": BAD}
    found = specutils.Spectrum(flux=FLUX * u.nJy, spectral_axis=NM * u.nm, **options)
    check_measured(read_spectra(found), FLUX, VARIANCE, BAD, ANGSTROM)
    axes = u.Quantity([NM] * 3, u.nm)
    rows = specutils.SpectrumCollection(flux=FLUX * u.nJy, spectral_axis=axes, **options)
    check_measured(read_spectra(rows), FLUX, VARIANCE, BAD, ANGSTROM)


def test_arms_as_objects():
    arms = [spectrum(meta={"band": "b"}), spectrum(wave=(NM + 60 + 60 / 59) * u.nm, meta={"band": "r"})]
    joined = read_spectra(arms)
    assert joined.flux.shape == (3, 120)
    assert_allclose(joined.flux[~joined.mask], np.hstack([FLUX, FLUX])[~joined.mask], rtol=1e-6)
    assert_allclose(read_spectra(arms, arm="R").wave, 10 * (NM + 60 + 60 / 59))
    with pytest.raises(ValueError, match="arms B, R"):
        read_spectra(arms, arm="Z")


def test_nddata_needs_wavelengths():
    found = NDData(FLUX, uncertainty=VarianceUncertainty(VARIANCE), mask=BAD)
    check_measured(read_spectra(found, wave=NM, wave_unit="nm"), FLUX, VARIANCE, BAD, ANGSTROM)
    with pytest.raises(ValueError, match=r"NDData has no wavelengths.*wave="):
        read_spectra(found)


@pytest.mark.parametrize("name", ["error", "variance", "ivar"])
def test_tables_of_arrays(name):
    errors = VARIANCE ** {"error": 0.5, "variance": 1, "ivar": -1}[name]
    columns = {"Flux": FLUX, name: errors, "mask": BAD, "wave": ANGSTROM, "id": [7, 8, 9], "mag": [20.0, 21.0, 22.0]}
    records = np.empty(
        3, dtype=[("flux", ">f4", 60), (name, ">f4", 60), ("mask", bool, 60), ("id", ">i8"), ("mag", ">f8")]
    )
    for key in records.dtype.names:
        records[key] = columns["Flux" if key == "flux" else key]
    frame = pd.DataFrame({key: list(each) for key, each in columns.items() if key != "wave"})
    for source, options in ((columns, {}), (records, {"wave": ANGSTROM}), (frame, {"wave": ANGSTROM})):
        data = read_spectra(source, **options)
        check_measured(data, FLUX, VARIANCE, BAD, ANGSTROM)
        assert_array_equal(data.ids, [7, 8, 9])
        assert_array_equal(data.table.mag, [20, 21, 22])
        assert data.provenance["uncertainty"] == name


def test_which_errors_are_read_is_an_argument():
    columns = {"flux": FLUX, "error": np.ones_like(FLUX), "ivar": 1 / VARIANCE, "wave": ANGSTROM}
    assert (read_spectra(columns).error == 1).all()
    assert_allclose(read_spectra(columns, uncertainty="ivar").error, np.sqrt(VARIANCE), rtol=1e-6)


def test_parquet_with_lists(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lengths = [60, 50, 60]
    rows = [
        {"flux": FLUX[i, :n], "ivar": 1 / VARIANCE[i, :n], "lambda": ANGSTROM[:n].astype("f4"), "mask": BAD[i, :n]}
        for i, n in enumerate(lengths)
    ]
    table = pa.table(
        {"object_id": ["a", "b", "c"], "spectrum": pa.array([{k: v.tolist() for k, v in r.items()} for r in rows])}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    data = read_spectra(tmp_path / "a.parquet")
    bad = BAD.copy()
    bad[1, 50:] = True
    check_measured(data, FLUX, VARIANCE, bad, ANGSTROM.astype("f4"))
    assert list(data.ids) == ["a", "b", "c"]
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(OSError, match=r"b\.parquet' is no whole Parquet file"):
        read_spectra(tmp_path / "b.parquet")


def test_wavelengths_that_fall_are_turned():
    data = read_spectra(
        {"flux": FLUX[:, ::-1], "variance": VARIANCE[:, ::-1], "mask": BAD[:, ::-1], "wave": ANGSTROM[::-1]}
    )
    check_measured(data, FLUX, VARIANCE, BAD, ANGSTROM)


# ---- air, rest frame, grids ------------------------------------------------------------------------------------------


def test_air_and_vacuum():
    air = np.array([3933.66, 5889.95, 6562.79, 8542.09, 15000.0])
    assert_allclose(
        to_vacuum(air)[:4], [3934.77, 5891.58, 6564.60, 8544.44], atol=0.012
    )  # as tables of lines give them
    assert_allclose(to_air(to_vacuum(air)), air, rtol=1e-12)
    with pytest.raises(ValueError, match=r"to_air\.wave has 1500"):
        to_air([1500.0])


def test_conversion_is_asked_for_and_stated(coadd):
    assert_allclose(read_spectra(coadd, convert_to="air").wave, to_air(10 * NM), rtol=1e-14)
    assert read_spectra(coadd, convert_to="air").provenance["medium"] == "air, converted from vacuum"
    assert_allclose(read_spectra(coadd, convert_to="vacuum").wave, 10 * NM, rtol=1e-12)
    assert_allclose(read_spectra(coadd, medium="air", convert_to="vacuum").wave, to_vacuum(10 * NM), rtol=1e-14)
    with pytest.raises(ValueError, match="does not state air or vacuum"):
        read_spectra({"flux": FLUX, "error": VARIANCE, "wave": ANGSTROM}, convert_to="air")


def test_flux_per_frequency_becomes_flux_per_wavelength(coadd):
    data = read_spectra(coadd, flux_per="wavelength")
    good, per_wavelength = ~BAD, (FLUX * u.nJy).to("1e-17 erg / (s cm2 AA)", u.spectral_density(NM * u.nm)).value
    ratio = data.flux[good] / per_wavelength[good]
    assert_allclose(ratio, ratio[0], rtol=1e-6)
    assert_allclose(data.flux[good] / data.error[good], FLUX[good] / np.sqrt(VARIANCE)[good], rtol=1e-6)
    assert data.provenance["flux_per"] == "wavelength, converted from frequency"
    assert read_spectra(spectrum()).provenance["flux_per"] == "frequency"
    with pytest.raises(ValueError, match="does not state what its flux density is per"):
        read_spectra({"flux": FLUX, "error": VARIANCE, "wave": ANGSTROM}, flux_per="wavelength")


def test_one_redshift_moves_the_grid(coadd):
    data = read_spectra(coadd, redshift=0.01)
    assert_allclose(data.wave, 10 * NM / 1.01, rtol=1e-14)
    assert_array_equal(data.flux, FLUX)
    assert data.provenance["frame"] == "rest, by the redshift given"
    beta = 150 / 299_792.458
    assert_allclose(read_spectra(coadd, velocity=150.0).wave, 10 * NM / np.sqrt((1 + beta) / (1 - beta)), rtol=1e-14)


def test_velocities_of_rows_bring_lines_to_rest():
    wave, velocity = np.linspace(8400, 8600, 500), np.array([-200.0, 0.0, 310.0])
    line = lambda wave: 1 - 0.5 * np.exp(-0.5 * ((wave - 8500) / 2) ** 2)  # noqa: E731
    flux = np.array([line(wave / (1 + each / 299_792.458)) for each in velocity])
    table = {"flux": flux, "error": np.full_like(flux, 0.01), "wave": wave, "rv": velocity}
    for source in (velocity, "rv"):
        data = read_spectra(table, velocity=source)
        assert_array_equal(data.wave, wave)
        inner = slice(30, -30)
        assert_allclose(data.flux[:, inner], np.tile(line(wave[inner]), (3, 1)), atol=0.003)
        assert data.correlation[0] > 0.05
    with pytest.raises(ValueError, match=r"velocity of shape .* 1 values"):
        read_spectra(table, velocity=[0.0, np.nan, 1.0])
    with pytest.raises(ValueError, match="has the columns rv"):
        read_spectra(table, redshift="z")


def test_files_are_one_lazy_table(tmp_path, coadd):
    second = write_pfs_coadd(tmp_path / "b.fits", *spectra(5, 60, seed=4), NM)
    parts = [read_spectra(path) for path in (coadd, second)]
    data = read_spectra([coadd, second])
    assert_array_equal(np.asarray(data.X), np.vstack([part.X for part in parts]))
    assert_array_equal(data.X[[6, 0, 3]].read(0, 3), np.asarray(data.X)[[6, 0, 3]])
    assert_array_equal(pickle.loads(pickle.dumps(data.X)).read(2, 5), data.X.read(2, 5))
    assert list(data.table.file) == [coadd] * 3 + [second] * 5
    assert_array_equal(data.ids, np.concatenate([part.ids for part in parts]))
    other = write_pfs_coadd(tmp_path / "c.fits", FLUX, VARIANCE, MASK, NM + 1)
    with pytest.raises(ValueError, match=r"c\.fits' has another wavelength grid.*to="):
        read_spectra([coadd, other])
    together = read_spectra([coadd, other], to=ANGSTROM[3:-3])
    assert together.X.shape == (6, 108)
    (tmp_path / "b.fits").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.fits"):
        pickle.loads(pickle.dumps(data.X)).read(4, 5)  # rows that were read are not in the pickle


def test_a_model_predicts_for_a_file_what_it_predicts_for_arrays(tmp_path):
    stars, few = make_spectra(200, random_state=0, faults={"bad_pixels": 0.02}), slice(None, None, 16)
    wave, flux, error = stars.wave[few], stars.flux[:, few], stars.error[:, few]
    bad = ~np.isfinite(flux)
    mask = np.where(bad, 1 << BITS["NO_DATA"], 0).astype(np.int32)
    arrays = np.where(bad, 0, flux), np.where(bad, 0, error) ** 2, mask
    data = read_spectra(write_pfs_coadd(tmp_path / "a.fits", *arrays, to_vacuum(wave) / 10), convert_to="air")
    check_measured(data, flux, error**2, bad, wave)
    model = DualTowerMoERegressor.for_spectra(data.wave, experts__projection__n_components=4, random_state=0)
    model.fit(np.hstack([flux, error]), stars.y)
    assert_allclose(model.predict(data.X), model.predict(np.hstack([flux, error])), rtol=1e-3)


# ---- what is wrong is named ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FLUX", "COVAR", "MASK", "WAVELENGTH", "METADATA", "TARGET"])
def test_a_missing_hdu_of_pfs_is_named(tmp_path, name):
    path = write_pfs_coadd(tmp_path / "a.fits", FLUX, VARIANCE, MASK, NM, drop=(name,))
    with pytest.raises(ValueError, match=rf"a\.fits' has no HDU '{name}'"):
        read_spectra(path)


def test_a_missing_hdu_of_desi_is_named(tmp_path, desi):
    path = write_desi(tmp_path / "a.fits", desi[1], {"TARGETID": np.arange(4)}, drop=("R_IVAR",))
    with pytest.raises(ValueError, match=r"a\.fits' has no HDU 'R_IVAR'"):
        read_spectra(path)
    with pytest.raises(ValueError, match=r"arm='X'.*arms Z, B, R"):
        read_spectra(desi[0], arm="X")


def test_lengths_that_differ_are_named(tmp_path, desi):
    path = write_pfs_coadd(tmp_path / "a.fits", FLUX, VARIANCE, MASK, NM[:-1])
    with pytest.raises(ValueError, match=r"a\.fits'.*WAVELENGTH.*row 0 has \[59, 60, 60, 60\]"):
        read_spectra(path)
    path = write_pfs_coadd(tmp_path / "b.fits", FLUX, VARIANCE, MASK[:2], NM)
    with pytest.raises(ValueError, match=r"b\.fits' has 3 rows in FLUX, 2 in MASK"):
        read_spectra(path)
    path = write_desi(tmp_path / "c.fits", desi[1], {"TARGETID": np.arange(3)})
    with pytest.raises(ValueError, match=r"c\.fits' has 4 rows in Z_FLUX and 3 in FIBERMAP"):
        read_spectra(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path, coadd, share):
    whole = Path(coadd).read_bytes()
    path = tmp_path / "cut.fits"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises((OSError, ValueError), match=r"cut\.fits' (is no whole FITS file|cannot be read|has no HDU)"):
        read_spectra(path)


@pytest.mark.parametrize("bits", [["NONSENSE"], [64], ["BAD", "CRX"]])
def test_unknown_bits_are_named(coadd, bits):
    with pytest.raises(ValueError, match=rf"HDU MASK has no mask bit .*{bits[-1]}.*BAD, SAT, CR"):
        read_spectra(coadd, bad_bits=bits)


def test_what_is_no_survey_file_is_refused(tmp_path, coadd):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(FLUX, name="SCI")]).writeto(tmp_path / "a.fits")
    with pytest.raises(ValueError, match=r"a\.fits' has the HDUs PRIMARY, SCI.*PFS"):
        read_spectra(tmp_path / "a.fits")
    (tmp_path / "b.fits").write_text("no FITS")
    with pytest.raises(OSError, match=r"b\.fits' is no whole FITS file"):
        read_spectra(tmp_path / "b.fits")
    with pytest.raises(FileNotFoundError):
        read_spectra(tmp_path / "c.fits")
    with pytest.raises(TypeError, match=r"read_spectra\.source is a int"):
        read_spectra(3)
    with pytest.raises(ValueError, match="has the columns flux, wave: flux and error"):
        read_spectra({"flux": FLUX, "wave": ANGSTROM})
    with pytest.raises(ValueError, match=r"read_spectra\.medium='water'"):
        read_spectra(coadd, medium="water")
    with pytest.raises(ValueError, match=r"the arms .* are merged"):
        read_spectra(coadd, arm="b")


# ---- the page of the documentation -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::dualgate.experts.EmptyCellWarning")  # there are few stars
def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "survey_spectra.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    rng, n_rows, wave = np.random.default_rng(0), 80, np.linspace(7120, 8840, 40)
    flux = rng.normal(10, 1, (n_rows, 40)).astype(np.float32)
    ivar, none, log_g = np.ones_like(flux), np.zeros(flux.shape, np.int32), flux[:, 5:15].mean(axis=1).astype(float)
    write_pfs_coadd(tmp_path / "pfsCoadd.fits", flux, 1 / ivar, none, wave / 10)
    known = {"TARGETID": np.arange(n_rows), "OBJTYPE": np.array(["TGT"] * n_rows), "LOGG": log_g}
    write_desi(tmp_path / "coadd.fits", {"Z": (7520 + 0.8 * np.arange(40), flux, ivar, none)}, known)
    for i in range(n_rows):
        rows = {"BOSS/APO": (flux[i : i + 1], ivar[:1], none[:1])}
        write_mwm_star(tmp_path / f"mwmStar-{i}.fits", rows, sdss_id=i)
    few = SimpleNamespace(X=np.hstack([flux, ivar]), y=log_g, wave=wave, conditions=None)
    monkeypatch.setattr("dualgate.datasets.make_spectra", lambda *_, **__: few)  # and few pixels
    monkeypatch.chdir(tmp_path)
    names = {"log_g_of": dict(enumerate(log_g)), "flux": flux, "ivar": ivar, "wave": wave, "log_g": log_g}
    for example in examples:
        small = re.sub(r"(for_spectra\(.*?random_state=0)", r"\1, experts__projection__n_components=3", example)
        exec(small, found := dict(names))
        assert np.isfinite(found["log_g"]).all()
    assert len(examples) == 5
