"""What every volume keeps to: Friedel symmetry, the slice theorem, saving and opening."""

import typing

import numpy as np
import pytest
import torch

from morphem.errors import InputError
from morphem.inference.training import NetworkSettings
from morphem.models import VOLUMES, open_volume, save_volume
from morphem.models.encodings import ENCODINGS, FREQUENCIES, encoding
from morphem.models.field import FieldVolume
from morphem.models.volume import LinearVolume
from morphem.physics import rotations
from morphem.physics.lattice import Lattice

BOX, RADIUS, Q = 16, 7.0, 2
LATTICE = Lattice.disc(BOX)


def smooth_maps(count):
    """Band-limited random maps."""
    rng = np.random.default_rng(0)
    x = np.exp(-0.5 * ((np.arange(BOX) - BOX // 2) / 3.0) ** 2)
    envelope = x[:, None, None] * x[:, None] * x
    return torch.from_numpy(rng.standard_normal((count, BOX, BOX, BOX)) * envelope).float()


def make(name):
    torch.manual_seed(0)
    if name == "field":
        return FieldVolume(BOX, RADIUS, Q, width=16, layers=2)
    if name == "linear":
        return LinearVolume.of(smooth_maps(Q + 1), RADIUS, padding=2)
    raise AssertionError(f"the test does not know how to make a {name} volume: tell it here")


@pytest.fixture(params=sorted(VOLUMES))
def volume(request):
    return make(request.param)


def latents(count=3):
    return torch.from_numpy(np.random.default_rng(1).standard_normal((count, 1, Q))).float()


def matrices(count=3):
    return torch.from_numpy(rotations.uniform(count, np.random.default_rng(2))).float()[:, None]


def test_slices_have_the_contract_shape_and_type(volume):
    value_bhk = volume.slices(matrices().expand(3, 2, 3, 3), LATTICE, latents().expand(3, 2, Q))
    assert value_bhk.shape == (3, 2, len(LATTICE))
    assert value_bhk.dtype == torch.complex64
    assert volume.maps(latents()[:, 0]).shape == (3, BOX, BOX, BOX)


def test_friedel_mates_are_conjugate(volume):
    """Turning by 180° about z reads −k."""
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    here = volume.slices(matrices(), LATTICE, latents())
    there = volume.slices(half_turn @ matrices(), LATTICE, latents())
    assert (here - there.conj()).abs().max() < 1e-5 * here.abs().max()


def transform_of(map_bzyx, matrix_b33):
    """Σ map(x) exp(−2πi Rᵀk·x/D) at every sample of the lattice, by the direct sum."""
    x = torch.arange(BOX) - BOX // 2.0
    z_v, y_v, x_v = (axis.flatten() for axis in torch.meshgrid(x, x, x, indexing="ij"))
    point_bk3 = LATTICE.coords_k2 @ matrix_b33[:, :2]
    phase_bkv = point_bk3 @ torch.stack([x_v, y_v, z_v]) * (-2 * np.pi / BOX)
    return torch.einsum("bv,bkv->bk", map_bzyx.flatten(1).cfloat(), torch.polar(torch.ones_like(phase_bkv), phase_bkv))


def whole_maps(volume, z_nq):
    """A network's maps before what lies outside the images' window is taken away."""
    return torch.stack([volume._map(z_q) for z_q in z_nq]) if isinstance(volume, FieldVolume) else volume.maps(z_nq)


def test_a_networks_maps_end_at_the_images_window():
    map_nzyx, x = make("field").maps(latents()[:, 0]), torch.arange(BOX) - BOX // 2
    r_zyx = (x[:, None, None] ** 2 + x[:, None] ** 2 + x**2).sqrt() / (BOX / 2)
    assert (map_nzyx[:, r_zyx > 0.99] == 0).all()
    assert (map_nzyx[:, r_zyx < 0.8] != 0).all()


def test_slices_are_those_of_the_maps(volume):
    """A network is only asked on its map's own grid; interpolation errs by 3 % off it, once its window is undone."""
    exact = isinstance(volume, FieldVolume)
    matrix_b133 = torch.eye(3).expand(3, 1, 3, 3) if exact else matrices()
    with torch.no_grad():
        slice_bk = volume.slices(matrix_b133, LATTICE, latents())[:, 0]
        map_bzyx = whole_maps(volume, latents()[:, 0])
    expected_bk = transform_of(map_bzyx, matrix_b133[:, 0])
    assert (slice_bk - expected_bk).norm() < (1e-4 if exact else 0.03) * expected_bk.norm()


def test_hypotheses_are_read_one_by_one(volume):
    together = volume.slices(matrices(), LATTICE, latents())
    alone = volume.slices(matrices()[1:2], LATTICE, latents()[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_a_lower_radius_is_a_prefix(volume):
    whole = volume.slices(matrices(), LATTICE, latents())
    cut = volume.slices(matrices(), LATTICE.within(4), latents())
    torch.testing.assert_close(whole[..., : cut.shape[-1]], cut, atol=1e-5, rtol=1e-5)


def test_z_changes_the_volume(volume):
    one, other = volume.maps(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    assert (one - other).norm() > 1e-3 * one.norm()


def test_saved_and_opened_it_is_the_same(volume, tmp_path):
    save_volume(tmp_path / "weights.safetensors", volume)
    again = open_volume(tmp_path / "weights.safetensors")
    assert torch.equal(again.maps(latents()[:, 0]), volume.maps(latents()[:, 0]))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"nonsense" * 20)
    with pytest.raises(InputError, match="holds no volume"):
        open_volume(tmp_path / "weights.safetensors")


def test_a_network_on_a_map_adds_to_it():
    volume, base = FieldVolume(BOX, RADIUS, Q, width=16, on_map=True), make("linear")
    still = LinearVolume.of(base.map_czyx[:1], RADIUS)
    volume.start_from(still)
    torch.nn.init.zeros_(volume.trunk.head.weight)
    torch.nn.init.zeros_(volume.trunk.head.bias)
    torch.testing.assert_close(volume.maps(latents()[:, 0]), base.map_czyx[:1].expand(3, -1, -1, -1), atol=1e-5, rtol=0)
    expected = still.slices(matrices(), LATTICE, latents()[..., :0])
    torch.testing.assert_close(volume.slices(matrices(), LATTICE, latents()), expected, atol=1e-4, rtol=1e-4)


def test_splitting_the_first_layer_equals_concatenation():
    volume = make("field")
    assert isinstance(volume, FieldVolume)
    assert volume.from_z is not None
    point_bk3 = torch.rand(3, 5, 3) + 0.1
    joined = torch.nn.Linear(volume.features.count + Q, 16)
    joined.weight.data = torch.cat([volume.from_k.weight, volume.from_z.weight], dim=1)
    joined.bias.data = volume.from_k.bias.data
    z_bkq = latents()[:, :1].expand(-1, 5, -1)
    x_bkh = joined(torch.cat([volume.features(point_bk3), z_bkq], dim=-1)).relu()
    expected = torch.view_as_complex(volume.trunk(x_bkh))
    torch.testing.assert_close(volume(point_bk3, latents()[:, 0]), expected, atol=1e-6, rtol=1e-5)


def test_frequencies_of_the_geometric_encoding():
    frequency_e = FREQUENCIES["geometric"](64)
    assert frequency_e[[0, 1, 31]].tolist() == pytest.approx([201.06193, 179.79459, 6.28319], abs=1e-5)
    assert (frequency_e[1] / frequency_e[0]).item() == pytest.approx(0.894225, abs=1e-6)


REACH_PX = {
    "geometric": (32, 1),
    "geometric_full": (32, 0.159),
    "low": (5.09, 0.159),
    "no_high": (5.09, 1),
    "linear": (0.159, 5.09),
}


@pytest.mark.parametrize("name", FREQUENCIES)
def test_reach_of_every_encoding(name):
    frequency_e = FREQUENCIES[name](64)
    first, last = frequency_e[[0, -1]].div(2 * np.pi).tolist()
    assert (first, last) == pytest.approx(REACH_PX[name], rel=0.01)


def test_every_encoding_can_be_chosen():
    choices = typing.get_args(typing.get_type_hints(NetworkSettings)["encoding"])
    assert set(choices) == set(ENCODINGS)


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_gives_the_features_it_says(name):
    made = encoding(name, 64)
    feature_ne = made(torch.tensor([[3.0, -2.0, 1.0], [0.0, 0.0, 0.0]]))
    assert feature_ne.shape == (2, made.count)
    assert made.count == (3 if name == "none" else 192)
    assert (feature_ne[0] != feature_ne[1]).any()


def test_geometric_features_are_sines_and_cosines_of_the_axes():
    feature_e = encoding("geometric", 64)(torch.tensor([[3.0, -2.0, 1.0]]))[0]
    f = FREQUENCIES["geometric"](64)
    expected = torch.cat([torch.sin(f * c / 64) for c in (3, -2, 1)] + [torch.cos(f * c / 64) for c in (3, -2, 1)])
    torch.testing.assert_close(feature_e, expected.float(), atol=1e-5, rtol=1e-5)
