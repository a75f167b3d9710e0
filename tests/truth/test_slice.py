"""Reading and inserting slices: adjointness, the two CPU implementations, the slice theorem."""

import numpy as np
import pytest
import torch

from morphem.physics import cube as cubes
from morphem.physics import rotations
from morphem.physics import slice as slices
from morphem.physics.lattice import Lattice

LATTICE = Lattice.disc(24)


def case(channels, padding=1, seed=0):
    """A random cube, rotations, values, and which channels are odd."""
    rng = np.random.default_rng(seed)
    cube_zyxc = torch.from_numpy(rng.standard_normal(slices.cube_shape(padding * 11, channels)).astype(np.float32))
    matrix_b33 = torch.from_numpy(padding * rotations.uniform(20, rng)).float()
    value_bkc = torch.from_numpy(rng.standard_normal((20, len(LATTICE), channels)).astype(np.float32))
    return cube_zyxc, matrix_b33, value_bkc, torch.arange(channels) % 2 == 1


def inserted(value_bkc, matrix_b33, odd_c, like, insert=slices.insert):
    sum_zyxc = torch.zeros_like(like)
    insert(value_bkc, matrix_b33, LATTICE.coords_k2, odd_c, sum_zyxc)
    return sum_zyxc


@pytest.mark.parametrize(("channels", "padding"), [(1, 1), (2, 1), (3, 2), (16, 1)])
def test_insert_is_the_adjoint_of_sample(channels, padding):
    cube_zyxc, matrix_b33, value_bkc, odd_c = case(channels, padding)
    read_bkc = slices.sample(cube_zyxc, matrix_b33, LATTICE.coords_k2, odd_c)
    forward = (read_bkc.double() * value_bkc).sum()
    backward = (inserted(value_bkc, matrix_b33, odd_c, cube_zyxc).double() * cube_zyxc).sum()
    assert abs(forward - backward) < 1e-5 * read_bkc.norm() * value_bkc.norm()


def test_insert_is_the_adjoint_of_sample_in_double():
    cube_zyxc, matrix_b33, value_bkc, odd_c = (x.double() if x.is_floating_point() else x for x in case(2))
    read_bkc = slices.sample(cube_zyxc, matrix_b33, LATTICE.coords_k2, odd_c)
    forward = (read_bkc * value_bkc).sum()
    backward = (inserted(value_bkc, matrix_b33, odd_c, cube_zyxc) * cube_zyxc).sum()
    assert abs(forward - backward) < 1e-12 * read_bkc.norm() * value_bkc.norm()


@pytest.mark.parametrize("channels", [1, 2, 16])
def test_compiled_and_plain_kernels_agree(channels):
    cube_zyxc, matrix_b33, value_bkc, odd_c = case(channels, seed=1)
    compiled_bkc = slices.sample(cube_zyxc, matrix_b33, LATTICE.coords_k2, odd_c)
    plain_bkc = slices._sample_torch(cube_zyxc, matrix_b33, LATTICE.coords_k2, odd_c)
    torch.testing.assert_close(compiled_bkc, plain_bkc, atol=2e-5, rtol=1e-5)
    compiled_zyxc = inserted(value_bkc, matrix_b33, odd_c, cube_zyxc)
    plain_zyxc = inserted(value_bkc, matrix_b33, odd_c, cube_zyxc, slices._insert_torch)
    torch.testing.assert_close(compiled_zyxc, plain_zyxc, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("slabs", [2, 3, 7])
def test_the_sum_does_not_depend_on_the_number_of_slabs(slabs):
    cube_zyxc, matrix_b33, value_bkc, odd_c = case(2)
    power_bk, factor_bp = (np.zeros(shape, np.float32) for shape in (value_bkc.shape[:2], (len(value_bkc), 0)))
    arguments = value_bkc.numpy(), power_bk, factor_bp, *slices._plain(matrix_b33, LATTICE.coords_k2, odd_c)
    h = cube_zyxc.shape[2] - 1
    one, many = np.zeros(cube_zyxc.shape, np.float32), np.zeros(cube_zyxc.shape, np.float32)
    slices._insert_numba(*arguments, slices._slab_edges(h, 1), one)
    slices._insert_numba(*arguments, slices._slab_edges(h, slabs), many)
    assert np.array_equal(one, many)
    assert np.abs(one).max() > 0


def test_cubes_of_single_slices_add_up_to_insert():
    cube_zyxc, matrix_b33, value_bkc, odd_c = case(2)
    each_bzyxc = slices.insert_each(value_bkc, matrix_b33, LATTICE.coords_k2, odd_c, 11)
    together_zyxc = inserted(value_bkc, matrix_b33, odd_c, cube_zyxc)
    torch.testing.assert_close(each_bzyxc.sum(0), together_zyxc, atol=1e-4, rtol=1e-4)
    alone_zyxc = inserted(value_bkc[3:4], matrix_b33[3:4], odd_c, cube_zyxc)
    torch.testing.assert_close(each_bzyxc[3], alone_zyxc, atol=1e-4, rtol=1e-4)


def test_points_outside_the_cube_read_zero_and_write_nothing():
    cube_zyxc, matrix_b33, value_bkc, odd_c = case(2)
    far_b33 = 3 * matrix_b33
    radius_bk = (LATTICE.coords_k2 @ far_b33[:, :2]).norm(dim=-1)
    read_bkc = slices.sample(cube_zyxc, far_b33, LATTICE.coords_k2, odd_c)
    assert (read_bkc[radius_bk > 22] == 0).all()
    assert (read_bkc[radius_bk < 11] != 0).all()
    outside_bkc = torch.where(radius_bk[..., None] > 22, value_bkc, 0)
    assert (inserted(outside_bkc, far_b33, odd_c, cube_zyxc) == 0).all()


def blobs(box=24, seed=0):
    """A sum of Gaussians inside the box, (box, box, box)."""
    rng = np.random.default_rng(seed)
    x = np.arange(box) - box // 2
    centre_a3 = rng.uniform(-box / 6, box / 6, (6, 3))
    one_a3x = np.exp(-((x - centre_a3[..., None]) ** 2) / (2 * 1.5**2))
    return torch.from_numpy(np.einsum("ax,ay,az->zyx", one_a3x[:, 0], one_a3x[:, 1], one_a3x[:, 2])).float()


@pytest.mark.parametrize("padding", [1, 2])
def test_maps_and_cubes_turn_into_each_other(padding):
    map_zyx = blobs()
    cube_zyxc = cubes.cube_of_maps(map_zyx[None], 11, padding)
    back_zyx = cubes.maps_of_cube(cube_zyxc, 24, padding)[0]
    assert (back_zyx - map_zyx).norm() < 0.02 * map_zyx.norm()  # what lies beyond |k| = 11 is lost
    again_zyxc = cubes.cube_of_maps(back_zyx[None], 11, padding)
    if padding == 1:
        torch.testing.assert_close(again_zyxc, cube_zyxc, atol=1e-3, rtol=1e-4)


def test_the_slice_at_the_identity_is_the_projection_along_z():
    map_zyx = blobs()
    cube_zyxc = cubes.cube_of_maps(map_zyx[None], 11, padding=1)
    read_k2 = slices.sample(cube_zyxc, torch.eye(3)[None], LATTICE.coords_k2, cubes.odd_channels(1))[0]
    projection_k = LATTICE.pack(map_zyx.sum(0)[None])[0]
    torch.testing.assert_close(torch.view_as_complex(read_k2), projection_k, atol=1e-3, rtol=1e-4)


def test_friedel_mates_are_added_on_the_plane_that_holds_both():
    cube_zyxc, _, _, odd_c = case(2)
    folded_zyxc = slices.fold(cube_zyxc, odd_c)
    plane_zyc = folded_zyxc[:, :, 0]
    torch.testing.assert_close(plane_zyc, plane_zyc.flip(0, 1) * torch.tensor([1.0, -1.0]))
    assert torch.equal(folded_zyxc[:, :, 1:], cube_zyxc[:, :, 1:])


def test_products_are_inserted_as_if_they_were_laid_out():
    cube_zyxc, matrix_b33, value_bkc, _ = case(5)
    odd_c, rng = torch.arange(5) == 1, torch.Generator().manual_seed(3)
    power_bk, factor_bp = torch.rand(value_bkc.shape[:2], generator=rng), torch.rand(len(value_bkc), 3, generator=rng)
    laid_out_bkc = torch.cat([value_bkc[..., :2], power_bk[..., None] * factor_bp[:, None]], -1)
    whole_zyxc, products_zyxc = torch.zeros_like(cube_zyxc), torch.zeros_like(cube_zyxc)
    slices.insert(laid_out_bkc, matrix_b33, LATTICE.coords_k2, odd_c, whole_zyxc)
    slices.insert(value_bkc[..., :2], matrix_b33, LATTICE.coords_k2, odd_c, products_zyxc, power_bk, factor_bp)
    torch.testing.assert_close(products_zyxc, whole_zyxc, atol=1e-4, rtol=1e-5)


def test_sums_of_a_hundred_thousand_images_keep_what_noise_leaves_of_them_in_float32():
    """Weights, all positive, are the hardest: each sum is far larger than what is added to it."""
    rng, lattice = np.random.default_rng(0), Lattice.disc(10)
    odd_c = torch.zeros(2, dtype=torch.bool)
    shape = slices.cube_shape(4, 2)
    single, double = torch.zeros(shape), torch.zeros(shape, dtype=torch.float64)
    for _ in range(20):
        matrix_b33 = torch.from_numpy(rotations.uniform(5000, rng)).float()
        weight_bk = torch.from_numpy(rng.random((5000, len(lattice), 1))).float()
        value_bkc = torch.cat([weight_bk, torch.from_numpy(rng.standard_normal(weight_bk.shape)).float()], -1)
        slices.insert(value_bkc, matrix_b33, lattice.coords_k2, odd_c, single)
        slices.insert(value_bkc.double(), matrix_b33.double(), lattice.coords_k2, odd_c, double)
    weight, data = double.unbind(-1)
    seen = weight > 0.01 * weight.max()
    assert float(((single[..., 0] - weight) / weight)[seen].abs().max()) < 2e-4
    assert float(((single[..., 1] - data) / weight.sqrt())[seen].abs().max()) < 1e-2  # of the noise's deviation
