"""The sample list, packing and Fourier conventions against direct sums."""

import numpy as np
import pytest
import torch

from morphem.physics.lattice import Lattice

FIRST = [
    (0, 1),
    (1, 0),
    (1, -1),
    (1, 1),
    (0, 2),
    (2, 0),
    (1, -2),
    (1, 2),
    (2, -1),
    (2, 1),
    (2, -2),
    (2, 2),
    (0, 3),
    (3, 0),
]


def direct_transform(image_dd, k_k2):
    """F(k) = Σ f(x) exp(−2πi k·x/D), x from pixel D/2."""
    box = len(image_dd)
    x = np.arange(box) - box // 2
    phase_kyx = k_k2[:, 0, None, None] * x + k_k2[:, 1, None, None] * x[:, None]
    return (image_dd * np.exp(-2j * np.pi * phase_kyx / box)).sum((1, 2))


@pytest.mark.parametrize(("radius", "samples"), [(3, 14), (14, 306), (15, 354), (31, 1500), (63, 6226), (127, 25308)])
def test_number_and_order_of_samples(radius, samples):
    lattice = Lattice.disc(2 * radius + 2)
    assert len(lattice) == samples
    assert [tuple(k) for k in lattice.k_k2[:14]] == FIRST


def test_a_lower_radius_is_a_prefix():
    lattice = Lattice.disc(64)
    cut = Lattice.disc(64, 15)
    assert lattice.prefix(15) == len(cut) == 354
    assert np.array_equal(lattice.k_k2[:354], cut.k_k2)
    assert np.array_equal(lattice.within(15).k_k2, cut.k_k2)


def test_radius_is_clamped_below_nyquist():
    assert Lattice.disc(32, 100).radius == 15
    assert np.abs(Lattice.disc(32, 100).k_k2).max() == 15


def test_pack_is_the_direct_sum():
    image_dd = np.random.default_rng(0).standard_normal((16, 16))
    lattice = Lattice.disc(16)
    packed_k = lattice.pack(torch.from_numpy(image_dd[None]))[0].numpy()
    np.testing.assert_allclose(packed_k, direct_transform(image_dd, lattice.k_k2), atol=1e-5)


def test_unpack_gives_back_band_limited_images_and_every_sample_weighs_two():
    lattice = Lattice.disc(24)
    rng = np.random.default_rng(1)
    sample_bk = torch.complex(*(torch.from_numpy(rng.standard_normal((2, len(lattice)))) for _ in range(2)))
    image_bdd = lattice.unpack(sample_bk)
    torch.testing.assert_close(lattice.pack(image_bdd), sample_bk, atol=1e-6, rtol=1e-6)
    power_b = 2 * (sample_bk.abs() ** 2).sum(1) / 24**2
    torch.testing.assert_close((image_bdd**2).sum((1, 2)), power_b, rtol=1e-6, atol=1e-9)


def test_white_noise_has_power_d_squared():
    lattice = Lattice.disc(32)
    image_bdd = 3 * torch.randn(400, 32, 32, generator=torch.Generator().manual_seed(0))
    assert (lattice.pack(image_bdd).abs() ** 2).mean() == pytest.approx(9 * 32**2, rel=0.01)


def test_20_a_shift_of_ten_pixels_is_ten_pixels():
    lattice, x = Lattice.disc(128), torch.arange(128.0) - 64
    centred = torch.exp(-(x[:, None] ** 2 + x**2) / (2 * 3.0**2))[None]
    moved = lattice.unpack(lattice.pack(centred) * lattice.shift_phase(torch.tensor([[10.0, -4.0]])))[0]
    assert np.unravel_index(int(moved.argmax()), moved.shape) == (64 + 4, 64 - 10)
    weight = moved - moved.min()
    weight[weight < 1e-3] = 0
    centre_x, centre_y = ((weight.sum(axis) * x).sum() / weight.sum() for axis in (0, 1))
    assert (centre_x.item(), centre_y.item()) == pytest.approx((-10.0, 4.0), abs=1e-3)
    phase_k = lattice.shift_phase(torch.tensor([[10.0, 0.0]]))[0, lattice.prefix(1) - 1]
    assert np.angle(phase_k.numpy()) == pytest.approx(2 * np.pi * 10 / 128, abs=1e-6)
