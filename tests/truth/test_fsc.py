"""Fourier shell correlation: known curves, known crossings, known areas."""

import numpy as np
import pytest

from morphem.errors import InputError
from morphem.evaluation.fsc import auc, benchmark_fsc
from morphem.physics import fsc as curves
from morphem.physics.masks import sphere


def noise(box: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((box, box, box)).astype(np.float32)


def low_passed(map_zyx: np.ndarray, radius: float) -> np.ndarray:
    k = np.fft.fftfreq(len(map_zyx), 1 / len(map_zyx))
    inside = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2 < radius**2
    return np.fft.ifftn(np.where(inside, np.fft.fftn(map_zyx), 0)).real


def share_low_frequencies(box: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Two maps whose transforms are identical for |k| < radius and independent beyond."""
    common, *apart = (noise(box, seed) for seed in range(3))
    first, second = (low_passed(common, radius) + part - low_passed(part, radius) for part in apart)
    return first, second


def test_21_shells_are_rounded_to_the_nearest_integer():
    fsc_s = curves.fsc(*share_low_frequencies(32, 9.5))
    assert fsc_s[:10] == pytest.approx(1, abs=1e-5)
    assert abs(fsc_s[10]) < 0.1


def test_benchmark_shells_are_rounded_up():
    fsc_s = benchmark_fsc(*share_low_frequencies(32, 9))
    assert fsc_s[:10] == pytest.approx(1, abs=1e-5)
    assert abs(fsc_s[10]) < 0.15


def test_fsc_is_that_of_the_full_transform():
    map1, map2 = noise(12, 0), noise(12, 0) + noise(12, 1)
    a, b = np.fft.fftn(map1), np.fft.fftn(map2)
    k = np.fft.fftfreq(12, 1 / 12)
    length = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    for s in range(1, 6):
        shell = (length >= s - 0.5) & (length < s + 0.5)
        expected = (a * b.conj())[shell].sum().real / np.sqrt((abs(a[shell]) ** 2).sum() * (abs(b[shell]) ** 2).sum())
        assert curves.fsc(map1, map2)[s] == pytest.approx(expected, abs=1e-5)


def test_fsc_does_not_depend_on_scale():
    map1, map2 = share_low_frequencies(16, 4.5)
    assert curves.fsc(map1, map2) == pytest.approx(curves.fsc(3 * map1, map2), abs=1e-5)


def test_21_resolution_is_the_first_downward_crossing():
    fsc_s = np.zeros(16)
    fsc_s[1:7] = [1, 0.9, 0.5, 0.1, 0.3, 0.05]
    assert curves.resolution(fsc_s, 2.0, curves.GOLD) == pytest.approx(16.44, abs=0.005)


def test_no_crossing_is_nyquist_and_no_agreement_is_worse_than_the_box():
    assert curves.resolution(np.full(16, 0.6), 2.0, 0.5) is None
    resolution_A = curves.resolution(np.zeros(16), 2.0, 0.5)
    assert resolution_A is not None and resolution_A > 64


def test_area_of_identical_maps_is_the_largest():
    assert auc(benchmark_fsc(noise(64, 0), noise(64, 0))) == pytest.approx(0.484375, abs=1e-6)


def test_area_of_independent_noise():
    pairs = [benchmark_fsc(noise(64, seed), noise(64, seed + 100)) for seed in range(6)]
    assert np.mean([auc(fsc_s) for fsc_s in pairs]) == pytest.approx(0.034, abs=0.005)


def test_area_counts_negative_correlation_unless_clipped():
    fsc_s = benchmark_fsc(noise(16, 0), -noise(16, 0))
    assert auc(fsc_s) == pytest.approx(7 / 16)
    assert auc(fsc_s, clip=True) < 0.1


def test_a_map_without_power_scores_nothing():
    assert auc(benchmark_fsc(np.zeros((16, 16, 16)), noise(16, 0))) < 0.1


@pytest.mark.parametrize("radius", [8, 20, 31])
def test_21_the_spherical_mask_holds_a_ball(radius):
    assert sphere(64, radius, edge=0).sum() == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)


def half_maps(signal_radius: float = 6.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A low-passed object within a ball, with independent noise in each half; and the ball."""
    mask = sphere(32, 9)
    signal = low_passed(noise(32, 0), signal_radius) * sphere(32, 7)
    noisy = [signal + 0.7 * signal.std() * noise(32, seed) for seed in (1, 2)]
    return *noisy, mask


def test_randomised_phases_keep_the_spectrum_and_lose_the_signal():
    map_zyx = noise(32, 0)
    changed = curves.randomise_phases(map_zyx, 8, np.random.default_rng(0))
    fsc_s = curves.fsc(map_zyx, changed)
    assert fsc_s[:8] == pytest.approx(1, abs=1e-4)
    assert np.abs(fsc_s[9:]).max() < 0.2
    inner = np.s_[1:15, 1:15, 1:15]
    assert np.abs(np.fft.fftn(changed))[inner] == pytest.approx(np.abs(np.fft.fftn(map_zyx))[inner], rel=1e-3)


def test_correction_removes_what_a_tight_mask_adds():
    first, second = noise(32, 1), noise(32, 2)
    tight = sphere(32, 4, edge=0)
    low = low_passed(noise(32, 3), 3.5) * 20
    found = curves.half_map_fsc(first + low, second + low, tight, 2.0, seed=0)
    beyond = slice(found.randomised_from + curves.MASK_REACH, None)
    assert found.masked_s[beyond].mean() > 0.2
    assert abs(found.corrected_s[beyond].mean()) < found.masked_s[beyond].mean() / 2


def test_correction_is_repeatable_and_spares_low_frequencies():
    found, again = (curves.half_map_fsc(*half_maps(), 2.0, seed=3) for _ in range(2))
    assert np.array_equal(found.corrected_s, again.corrected_s)
    assert found.randomised_from is not None
    kept = slice(0, found.randomised_from + curves.MASK_REACH)
    assert np.array_equal(found.corrected_s[kept], found.masked_s[kept])


def test_star_table_reads_back(tmp_path):
    found = curves.half_map_fsc(*half_maps(), 2.0)
    curves.write_fsc_star(tmp_path / "fsc.star", found)
    again = curves.read_fsc_star(tmp_path / "fsc.star")
    assert again.corrected_s == pytest.approx(found.corrected_s, abs=1e-6)
    assert again.randomised_from == found.randomised_from
    assert again.resolution_A == pytest.approx(found.resolution_A, rel=1e-3)


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(InputError, match="even side"):
        curves.fsc(noise(16, 0), noise(32, 0))
