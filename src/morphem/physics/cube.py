"""Maps and the half Fourier cubes that `slice` reads and writes.

Axes: c maps, z y x; a cube voxel holds 2c real channels, all real parts and then all imaginary ones. With padding p the
cube's index is p·k, the map lives in a box p·d, of which the middle d is kept. F(k) = Σₓ f(x) exp(−2πi k·x/d), x from
voxel d/2.
"""

import torch
from scipy.fft import next_fast_len

from morphem.physics.noise import radii, window
from morphem.physics.slice import cube_shape

FINER = 1.25
"""Times as fine as a radius alone demands: what a mask multiplies reaches further."""


def odd_channels(maps: int) -> torch.Tensor:
    """Which channels of a cube of complex maps change sign with k → −k: the imaginary ones."""
    return torch.tensor([False] * maps + [True] * maps)


def cube_of_maps(map_czyx: torch.Tensor, radius: float, padding: int = 2) -> torch.Tensor:
    """The half cube (z, y, x, 2c) of real maps (c, d, d, d), whole for every point with |k| ≤ radius."""
    box = map_czyx.shape[-1]
    side = padding * box
    margin = (side - box) // 2
    padded_czyx = torch.nn.functional.pad(map_czyx, (margin,) * 6)
    spectrum_czyx = torch.fft.rfftn(padded_czyx, dim=(-3, -2, -1))
    cube_zyxc = map_czyx.new_zeros(cube_shape(padding * radius, 2 * len(map_czyx)))
    index_z, index_x, sign_zyx = _overlap(cube_zyxc.shape[2] - 1, side, map_czyx.device)
    picked_zyxc = (spectrum_czyx[:, index_z[:, None], index_z][..., index_x] * sign_zyx).permute(1, 2, 3, 0)
    h = cube_zyxc.shape[2] - 1
    low, high = h - (len(index_z) // 2), h + len(index_z) // 2 + 1
    cube_zyxc[low:high, low:high, : len(index_x)] = torch.cat([picked_zyxc.real, picked_zyxc.imag], -1)
    return cube_zyxc


def maps_of_cube(cube_zyxc: torch.Tensor, box: int, padding: int = 2) -> torch.Tensor:
    """The real maps (c, d, d, d) of a half cube: the inverse transform, its middle `box` voxels."""
    side, h = padding * box, cube_zyxc.shape[2] - 1
    index_z, index_x, sign_zyx = _overlap(h, side, cube_zyxc.device)
    low, high = h - (len(index_z) // 2), h + len(index_z) // 2 + 1
    value_czyx = torch.complex(*cube_zyxc.movedim(-1, 0).chunk(2))
    spectrum_czyx = value_czyx.new_zeros(len(value_czyx), side, side, side // 2 + 1)
    shared_czyx = value_czyx[:, low:high, low:high, : len(index_x)] * sign_zyx
    spectrum_czyx[:, index_z[:, None, None], index_z[:, None], index_x] = shared_czyx
    map_czyx = torch.fft.irfftn(spectrum_czyx, s=(side, side, side))
    margin = (side - box) // 2
    return map_czyx[..., margin : margin + box, margin : margin + box, margin : margin + box]


def _overlap(h: int, side: int, device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """FFT positions of the indices that cube and FFT share (no Nyquist), along z or y, along x; the origin's signs."""
    reach = min(h, side // 2 - 1)
    k_z, k_x = torch.arange(-reach, reach + 1, device=device), torch.arange(reach + 1, device=device)
    parity = (k_z[:, None, None] + k_z[:, None] + k_x) % 2
    return k_z % side, k_x, 1.0 - 2.0 * parity


def voxel_radius(cube_zyxc: torch.Tensor, padding: int) -> torch.Tensor:
    """|k| of every voxel of a half cube (z, y, x, …), in units of the unpadded lattice."""
    h = cube_zyxc.shape[2] - 1
    k = torch.arange(-h, h + 1, device=cube_zyxc.device) / padding
    return (k[:, None, None] ** 2 + k[:, None] ** 2 + k[h:] ** 2).sqrt()


def within_sphere(map_czyx: torch.Tensor) -> torch.Tensor:
    """What prepared images can tell of a map: nothing beyond their window, and no DC.

    The DC makes voxels beyond 0.9 of the inscribed radius 0 in the median; then the images' window, 1 to r = 0.85 and
    0 from r = 0.99, is applied in three dimensions.
    """
    r_zyx = radii(map_czyx.shape[-1], 3).to(map_czyx.device)
    border_c = map_czyx[:, r_zyx > 0.9].median(1).values
    return (map_czyx - border_c[:, None, None, None]) * window(r_zyx)


def half_ball(radius: float) -> torch.Tensor:
    """Integer points (n, 3) as (kx, ky, kz) with |k| ≤ radius and kx ≥ 0: what a map's transform is known by."""
    reach = int(radius)
    k_z = torch.arange(-reach, reach + 1)
    z, y, x = torch.meshgrid(k_z, k_z, torch.arange(reach + 1), indexing="ij")
    inside = z**2 + y**2 + x**2 <= radius**2
    return torch.stack([x[inside], y[inside], z[inside]], dim=1)


def cube_of_points(point_n3: torch.Tensor, value_nc: torch.Tensor, radius: float) -> torch.Tensor:
    """The unpadded half cube that holds complex values at `half_ball` points."""
    cube_zyxc = torch.zeros(cube_shape(radius, 2 * value_nc.shape[1]), device=value_nc.device)
    h = cube_zyxc.shape[2] - 1
    cube_zyxc[point_n3[:, 2] + h, point_n3[:, 1] + h, point_n3[:, 0]] = torch.cat([value_nc.real, value_nc.imag], 1)
    return cube_zyxc


def crop(map_czyx: torch.Tensor, box: int) -> torch.Tensor:
    """Fourier-cropped maps (c, d, d, d) of `box` voxels, densities kept: V_d(k) = (d/D)³ V_D(k), |k| ≤ d/2 − 1."""
    return resampled(map_czyx, box) * (box / map_czyx.shape[-1]) ** 3


def resampled(map_czyx: torch.Tensor, box: int) -> torch.Tensor:
    """Maps of the same transform on another grid of the same side in Å: V_d(k) = V_D(k), |k| ≤ min(d, D)/2 − 1."""
    reach = min(box, map_czyx.shape[-1]) // 2 - 1
    return maps_of_cube(cube_of_maps(map_czyx, reach, padding=1), box, padding=1)


def coarse_box(radius: float, box: int) -> int:
    """The side of a grid, `box` at most, that maps read up to a radius need, with room for a mask's edges."""
    enough = int(2 * FINER * radius) + 4
    return min(box, 2 * next_fast_len((enough + 1) // 2, real=True))  # pyright: ignore[reportOperatorIssue]


def lowpass(map_czyx: torch.Tensor, radius: float) -> torch.Tensor:
    """Maps without what lies beyond a Fourier radius."""
    return _times(map_czyx, _frequency(map_czyx) <= radius)


def filtered(map_czyx: torch.Tensor, gain_cs: torch.Tensor) -> torch.Tensor:
    """Maps times a gain of every shell, linear between them, and of the last one beyond."""
    radius_zyx, last = _frequency(map_czyx), gain_cs.shape[1] - 1
    below_zyx = radius_zyx.long().clamp(max=last - 1)
    part_zyx = (radius_zyx - below_zyx).clamp(max=1)
    return _times(map_czyx, torch.lerp(gain_cs[:, below_zyx], gain_cs[:, below_zyx + 1], part_zyx))


def _frequency(map_czyx: torch.Tensor) -> torch.Tensor:
    """|k| of every sample of the maps' `rfftn`."""
    side = map_czyx.shape[-1]
    k_z = torch.fft.fftfreq(side, 1 / side, device=map_czyx.device)
    k_x = torch.arange(side // 2 + 1, device=map_czyx.device)
    return (k_z[:, None, None] ** 2 + k_z[:, None] ** 2 + k_x**2).sqrt()


def _times(map_czyx: torch.Tensor, gain_zyx: torch.Tensor) -> torch.Tensor:
    spectrum_czyx = torch.fft.rfftn(map_czyx, dim=(-3, -2, -1)) * gain_zyx
    return torch.fft.irfftn(spectrum_czyx, s=map_czyx.shape[-3:], dim=(-3, -2, -1))


def interpolation_window(box: int, padding: int) -> torch.Tensor:
    """w = Π sinc²(x_i / (p·d)), (d, d, d): what trilinear reading multiplies a cube's map by."""
    x = (torch.arange(box) - box // 2) / (padding * box)
    w = torch.sinc(x) ** 2
    return w[:, None, None] * w[:, None] * w
