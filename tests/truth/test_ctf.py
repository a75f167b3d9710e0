"""The CTF and the worked example of CONVENTIONS.md."""

import numpy as np
import pytest
import torch

from morphem.physics import rotations
from morphem.physics.ctf import CtfParameters, ctf, wavelength_A


def parameters(**changes):
    values = {
        "defocus_u_A_n": 15000.0, "defocus_v_A_n": 14500.0, "astigmatism_rad_n": np.radians(30), "voltage_kV_n": 300.0,
        "cs_mm_n": 2.7, "amplitude_contrast_n": 0.1, "phase_shift_rad_n": 0.0, "scale_n": 1.0, "b_factor_A2_n": 0.0,
    }  # fmt: skip
    return CtfParameters(**{name: np.array([value]) for name, value in (values | changes).items()})


@pytest.mark.parametrize(("kV", "expected"), [(300, 0.01968697), (200, 0.02507866), (100, 0.03701332)])
def test_wavelengths(kV, expected):
    assert wavelength_A(kV) == pytest.approx(expected, abs=5e-9)


def test_19_ctf_of_the_worked_example():
    k_k2 = np.array([(1, 0), (0, 1), (3, 4), (4, -3)])
    value_k = ctf(parameters(), np.array([2.0]), k_k2, 32)[0]
    np.testing.assert_allclose(value_k, [-0.319078, -0.315498, 0.532714, 0.638310], atol=1e-5)


def test_at_zero_it_is_minus_the_amplitude_contrast():
    assert ctf(parameters(), np.array([2.0]), np.zeros((1, 2)), 32).item() == pytest.approx(-0.1, abs=1e-6)


def test_a_phase_plate_of_ninety_degrees_turns_sine_into_cosine():
    k_k2, pixel = np.array([(3, 1), (7, -2)]), np.array([2.0])
    plain = ctf(parameters(amplitude_contrast_n=0.0), pixel, k_k2, 32)
    plate = ctf(parameters(amplitude_contrast_n=0.0, phase_shift_rad_n=np.pi / 2), pixel, k_k2, 32)
    torch.testing.assert_close(plain**2 + plate**2, torch.ones(1, 2), atol=1e-5, rtol=0)


def test_scale_and_b_factor():
    k_k2, pixel = np.array([(8, 0)]), np.array([2.0])
    ratio = ctf(parameters(scale_n=0.5, b_factor_A2_n=100.0), pixel, k_k2, 32) / ctf(parameters(), pixel, k_k2, 32)
    assert ratio.item() == pytest.approx(0.5 * np.exp(-100 * (8 / 64) ** 2 / 4), rel=1e-5)


def test_19_rotations_of_the_worked_example():
    rotation = rotations.from_relion(np.array([[30.0, 60.0, 45.0]]))[0]
    expected = [[-0.047367, 0.789149, -0.612372], [-0.659740, 0.435596, 0.612372], [0.75, 0.433013, 0.5]]
    np.testing.assert_allclose(rotation, expected, atol=1e-6)
    np.testing.assert_allclose(rotations.to_cryosparc(rotation), [0.146112, 1.109828, 1.180306], atol=1e-6)


def test_conversions_return():
    rotation_n33 = rotations.uniform(100, np.random.default_rng(0))
    np.testing.assert_allclose(rotations.from_relion(rotations.to_relion(rotation_n33)), rotation_n33, atol=1e-12)
    np.testing.assert_allclose(rotations.from_cryosparc(rotations.to_cryosparc(rotation_n33)), rotation_n33, atol=1e-12)
    np.testing.assert_array_equal(rotations.from_cryosparc(np.zeros((1, 3)))[0], np.eye(3))
    upright = rotations.from_relion(np.array([[20.0, 0.0, 30.0]]))
    np.testing.assert_allclose(rotations.from_relion(rotations.to_relion(upright)), upright, atol=1e-12)


def test_distances():
    turn = rotations.about(np.array([[0.0, 0.3, 0.0]]))
    assert rotations.distance_rad(turn, np.eye(3)[None])[0] == pytest.approx(0.3)
