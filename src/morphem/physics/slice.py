"""Reading a Fourier cube on rotated lattices (`sample`), and its adjoint (`insert`).

Axes: b slices, k samples of a slice, c real channels, z y x cube; h = largest index of the cube.
The cube is the half x ≥ 0 of the full one, origin at [h, h, 0], channels last: one voxel's channels are one contiguous
read. A point with px < 0 is read at −p; the channels marked odd (imaginary parts) then change sign, because the
transform of a real map obeys V(−k) = conj V(k). Points outside the cube read zero and write nothing.

A slice's points are p = k @ M with M any 3 × 3 matrix whose first two rows matter: a rotation, times the padding of
the cube, times the ratio of pixel sizes.
"""

import math

import numba
import numpy as np
import torch


def cube_shape(radius: float, channels: int) -> tuple[int, int, int, int]:
    """Shape (z, y, x, c) of a half cube that holds every point with |p| ≤ radius."""
    h = int(np.ceil(radius)) + 1
    return 2 * h + 1, 2 * h + 1, h + 1, channels


def sample(
    cube_zyxc: torch.Tensor, matrix_b33: torch.Tensor, coords_k2: torch.Tensor, odd_c: torch.Tensor
) -> torch.Tensor:
    """Trilinear reading: Σ over the eight corners n of p = k @ M of Π(1 − |p − n|) · cube[n]; float32 (b, k, c).

    Gradients flow to the matrix where it asks for one; the compiled kernel is then left aside.
    """
    if not _numba_serves(cube_zyxc) or matrix_b33.requires_grad:
        return _sample_torch(cube_zyxc, matrix_b33, coords_k2, odd_c)
    value_bkc = np.empty((len(matrix_b33), len(coords_k2), cube_zyxc.shape[-1]), np.float32)
    _sample_numba(cube_zyxc.numpy(), *_plain(matrix_b33, coords_k2, odd_c), value_bkc)
    return torch.from_numpy(value_bkc)


def insert(
    value_bkc: torch.Tensor,
    matrix_b33: torch.Tensor,
    coords_k2: torch.Tensor,
    odd_c: torch.Tensor,
    cube_zyxc: torch.Tensor,
    power_bk: torch.Tensor | None = None,
    factor_bp: torch.Tensor | None = None,
) -> None:
    """Add the adjoint of `sample` into `cube_zyxc`: ⟨sample(cube), value⟩ = ⟨cube, insert(value)⟩.

    Channels after those of `value_bkc` are products power_k · factor_p of an image, all even, which are never laid out.
    On the CPU every thread owns a slab of z and passes over all slices, so the sum's order, and with it the result,
    does not depend on the number of threads.
    """
    if power_bk is None or factor_bp is None:
        power_bk, factor_bp = value_bkc.new_zeros(value_bkc.shape[:2]), value_bkc.new_zeros(len(value_bkc), 0)
    if not _numba_serves(cube_zyxc):
        product_bkp = power_bk[..., None] * factor_bp[:, None]
        _insert_torch(torch.cat([value_bkc, product_bkp], -1), matrix_b33, coords_k2, odd_c, cube_zyxc)
        return
    edges = _slab_edges(cube_zyxc.shape[2] - 1, numba.get_num_threads())
    value, power, factor = (array.float().contiguous().numpy() for array in (value_bkc, power_bk, factor_bp))
    _insert_numba(value, power, factor, *_plain(matrix_b33, coords_k2, odd_c), edges, cube_zyxc.numpy())


def insert_each(
    value_bkc: torch.Tensor, matrix_b33: torch.Tensor, coords_k2: torch.Tensor, odd_c: torch.Tensor, radius: float
) -> torch.Tensor:
    """`insert` of every slice into a cube of its own, (b, z, y, x, c): small radii only."""
    shape = cube_shape(radius, value_bkc.shape[-1])
    cube_bvc = value_bkc.new_zeros(len(value_bkc), math.prod(shape[:3]), shape[3])
    places, weights, sign_bkc = _corners(cube_bvc[0].view(shape), matrix_b33, coords_k2, odd_c)
    start_b1 = torch.arange(len(cube_bvc), device=value_bkc.device)[:, None] * cube_bvc.shape[1]
    _add(cube_bvc.view(-1, shape[3]), [start_b1 + place for place in places], weights, value_bkc * sign_bkc)
    return cube_bvc.unflatten(1, shape[:3])


def fold(cube_zyxc: torch.Tensor, odd_c: torch.Tensor) -> torch.Tensor:
    """Accumulated sums of a real map's transform: on the plane x = 0 add the conjugate of the mirrored voxel."""
    folded_zyxc = cube_zyxc.clone()
    sign_c = 1.0 - 2.0 * odd_c.to(cube_zyxc)
    folded_zyxc[:, :, 0] += cube_zyxc[:, :, 0].flip(0, 1) * sign_c
    return folded_zyxc


def _numba_serves(cube_zyxc: torch.Tensor) -> bool:
    return cube_zyxc.device.type == "cpu" and cube_zyxc.dtype == torch.float32 and cube_zyxc.is_contiguous()


def _plain(matrix_b33: torch.Tensor, coords_k2: torch.Tensor, odd_c: torch.Tensor):
    return (
        matrix_b33.detach().float().contiguous().numpy(),
        coords_k2.float().contiguous().numpy(),
        odd_c.contiguous().numpy(),
    )


def _slab_edges(h: int, slabs: int) -> np.ndarray:
    """Slab boundaries with equal work: over uniform rotations a share 2ζ − ζ² of a disc's points has |z| < ζ·radius."""
    share = np.linspace(-1, 1, slabs + 1)
    z = np.sign(share) * (1 - np.sqrt(1 - np.abs(share))) * (h - 1)
    edges = np.round(z + h).astype(np.int64)
    edges[0], edges[-1] = 0, 2 * h + 1
    return edges


# One image's point: its corner (z0, y0, x0), fractions, and whether it was negated. Inlined in both kernels.
@numba.njit(inline="always")
def _locate(kx, ky, matrix_33, h):
    px = kx * matrix_33[0, 0] + ky * matrix_33[1, 0]
    py = kx * matrix_33[0, 1] + ky * matrix_33[1, 1]
    pz = kx * matrix_33[0, 2] + ky * matrix_33[1, 2]
    flipped = px < 0
    if flipped:
        px, py, pz = -px, -py, -pz
    py += h
    pz += h
    x0, y0, z0 = int(px), int(np.floor(py)), int(np.floor(pz))
    inside = x0 < h and 0 <= y0 < 2 * h and 0 <= z0 < 2 * h
    return inside, flipped, z0, y0, x0, pz - z0, py - y0, px - x0


@numba.njit(parallel=True, fastmath=True, cache=True)
def _sample_numba(cube_zyxc, matrix_b33, coords_k2, odd_c, value_bkc):
    h, channels = cube_zyxc.shape[2] - 1, cube_zyxc.shape[3]
    sign_c = np.where(odd_c, np.float32(-1), np.float32(1))
    for b in numba.prange(len(matrix_b33)):
        for k in range(len(coords_k2)):
            inside, flipped, z0, y0, x0, fz, fy, fx = _locate(coords_k2[k, 0], coords_k2[k, 1], matrix_b33[b], h)
            out_c = value_bkc[b, k]
            if not inside:
                out_c[:] = 0
                continue
            one = np.float32(1)
            v000, v001 = cube_zyxc[z0, y0, x0], cube_zyxc[z0, y0, x0 + 1]
            v010, v011 = cube_zyxc[z0, y0 + 1, x0], cube_zyxc[z0, y0 + 1, x0 + 1]
            v100, v101 = cube_zyxc[z0 + 1, y0, x0], cube_zyxc[z0 + 1, y0, x0 + 1]
            v110, v111 = cube_zyxc[z0 + 1, y0 + 1, x0], cube_zyxc[z0 + 1, y0 + 1, x0 + 1]
            w00, w01, w10, w11 = (one - fz) * (one - fy), (one - fz) * fy, fz * (one - fy), fz * fy
            for c in range(channels):
                near = w00 * v000[c] + w01 * v010[c] + w10 * v100[c] + w11 * v110[c]
                far = w00 * v001[c] + w01 * v011[c] + w10 * v101[c] + w11 * v111[c]
                out_c[c] = near + fx * (far - near)
            if flipped:
                for c in range(channels):
                    out_c[c] *= sign_c[c]


@numba.njit(parallel=True, fastmath=True, cache=True)
def _insert_numba(value_bkc, power_bk, factor_bp, matrix_b33, coords_k2, odd_c, edges, cube_zyxc):
    h, channels, laid_out = cube_zyxc.shape[2] - 1, cube_zyxc.shape[3], value_bkc.shape[2]
    sign_c = np.where(odd_c, np.float32(-1), np.float32(1))
    for slab in numba.prange(len(edges) - 1):
        start, stop = edges[slab], edges[slab + 1]
        mine_c = np.empty(channels, np.float32)
        for b in range(len(matrix_b33)):
            for k in range(len(coords_k2)):
                inside, flipped, z0, y0, x0, fz, fy, fx = _locate(coords_k2[k, 0], coords_k2[k, 1], matrix_b33[b], h)
                if not inside or z0 + 1 < start or z0 >= stop:
                    continue
                for c in range(laid_out):
                    mine_c[c] = value_bkc[b, k, c] * sign_c[c] if flipped else value_bkc[b, k, c]
                for c in range(channels - laid_out):
                    mine_c[laid_out + c] = power_bk[b, k] * factor_bp[b, c]
                for dz in range(2):
                    if z0 + dz < start or z0 + dz >= stop:
                        continue
                    wz = fz if dz else np.float32(1) - fz
                    for dy in range(2):
                        wy = wz * (fy if dy else np.float32(1) - fy)
                        near_c, far_c = cube_zyxc[z0 + dz, y0 + dy, x0], cube_zyxc[z0 + dz, y0 + dy, x0 + 1]
                        far = wy * fx
                        near = wy - far
                        for c in range(channels):
                            near_c[c] += near * mine_c[c]
                            far_c[c] += far * mine_c[c]


def _corners(cube_zyxc, matrix_b33, coords_k2, odd_c):
    """Flat corner positions and weights, 8 × (b, k), and the sign of every channel, (b, k, c)."""
    h = cube_zyxc.shape[2] - 1
    point_bk3 = coords_k2.to(cube_zyxc) @ matrix_b33[:, :2].to(cube_zyxc)
    flipped_bk1 = point_bk3[..., :1] < 0
    point_bk3 = torch.where(flipped_bk1, -point_bk3, point_bk3) + point_bk3.new_tensor([0, h, h])
    floor_bk3 = point_bk3.floor()
    limit_3 = point_bk3.new_tensor([h, 2 * h, 2 * h])
    inside_bk = ((floor_bk3 >= 0) & (floor_bk3 < limit_3)).all(-1)
    corner_bk3 = torch.where(inside_bk[..., None], floor_bk3, 0).long()
    part_bk3 = point_bk3 - floor_bk3
    sign_bkc = torch.where(flipped_bk1 & odd_c.to(cube_zyxc.device), -1.0, 1.0).to(cube_zyxc)
    places, weights = [], []
    for dz, dy, dx in np.ndindex(2, 2, 2):
        step_3 = corner_bk3.new_tensor([dx, dy, dz])
        x, y, z = (corner_bk3 + step_3).unbind(-1)
        places.append((z * cube_zyxc.shape[1] + y) * cube_zyxc.shape[2] + x)
        weight_bk3 = torch.where(step_3.bool(), part_bk3, 1 - part_bk3)
        weights.append(torch.where(inside_bk, weight_bk3.prod(-1), 0))
    return places, weights, sign_bkc


def _sample_torch(cube_zyxc, matrix_b33, coords_k2, odd_c):
    places, weights, sign_bkc = _corners(cube_zyxc, matrix_b33, coords_k2, odd_c)
    flat_vc = cube_zyxc.flatten(0, 2)
    return sign_bkc * sum(flat_vc[place] * weight[..., None] for place, weight in zip(places, weights, strict=True))


def _insert_torch(value_bkc, matrix_b33, coords_k2, odd_c, cube_zyxc):
    places, weights, sign_bkc = _corners(cube_zyxc, matrix_b33, coords_k2, odd_c)
    _add(cube_zyxc.view(-1, cube_zyxc.shape[-1]), places, weights, value_bkc.to(cube_zyxc) * sign_bkc)


def _add(flat_vc, places, weights, signed_bkc):
    """Add every value, times its corners' weights, at its corners' places."""
    for place_bk, weight_bk in zip(places, weights, strict=True):
        flat_vc.index_add_(0, place_bk.flatten(), (signed_bkc * weight_bk[..., None]).flatten(0, 1))
