"""Pixels of particles from many stacks, in any order."""

import numpy as np
import pytest

from morphem.data.images import Images
from morphem.data.particles import Particles
from morphem.errors import InputError
from morphem.io import mrc

PIXELS = np.random.default_rng(0).normal(size=(3, 4, 8, 8)).astype(np.float32)


def particles_of(folder, stack_n, slice_n, pixels=PIXELS, **fields):
    """Particles without CTF in stacks 0.mrcs, 1.mrcs, …"""
    for number, images_nyx in enumerate(pixels):
        with mrc.create_stack(folder / f"{number}.mrcs", *images_nyx.shape[:2], 1.0) as out_nyx:
            out_nyx[:] = images_nyx
    n = len(slice_n)
    values = {
        "path": folder / "a.star", "box": 8, "pixel_A_n": np.ones(n), "rotation_n33": np.tile(np.eye(3), (n, 1, 1)),
        "shift_A_n2": np.zeros((n, 2)), "ctf": None, "optics_n": np.zeros(n, int), "optics_names": ("one",),
        "stacks": tuple(folder / f"{i}.mrcs" for i in range(len(pixels))), "stack_n": np.asarray(stack_n),
        "slice_n": np.asarray(slice_n), "half_n": np.zeros(n, np.int8),
    }  # fmt: skip
    return Particles(**{**values, **fields})


def test_08_shuffled_rows_of_several_stacks_come_in_the_order_asked_for(tmp_path):
    rng = np.random.default_rng(1)
    stack_n, slice_n = rng.integers(0, 3, 50), rng.integers(0, 4, 50)
    images = Images(particles_of(tmp_path, stack_n, slice_n))
    index = rng.permutation(50)[:33]
    found = images.read(index)
    assert (len(images), found.dtype, found.flags.c_contiguous) == (50, np.float32, True)
    np.testing.assert_array_equal(found, PIXELS[stack_n[index], slice_n[index]])
    assert images.read(np.array([], int)).shape == (0, 8, 8)


def test_white_particles_are_inverted_and_only_they(tmp_path):
    particles = particles_of(tmp_path, [0, 1], [0, 0])
    np.testing.assert_array_equal(Images(particles, "white").read(np.array([1])), -PIXELS[1:2, 0])
    np.testing.assert_array_equal(Images(particles, "dark").read(np.array([1])), PIXELS[1:2, 0])
    assert (Images(particles).contrast, Images(particles, "white").contrast) == ("dark", "white")


def test_with_a_ctf_white_is_the_default(tmp_path):
    particles = particles_of(tmp_path, [0], [0])
    particles.write(tmp_path / "a.star")
    ctf = dict.fromkeys(
        ["rlnDefocusU", "rlnDefocusV", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"], [0.5]
    )
    particles.write(tmp_path / "a.star", ctf | {"rlnDefocusAngle": [0.0]})
    assert Images(Particles.read(tmp_path / "a.star")).contrast == "white"


def test_more_stacks_than_file_handles(tmp_path, monkeypatch):
    monkeypatch.setattr("morphem.data.images.OPEN_STACKS", 1)
    images = Images(particles_of(tmp_path, [0, 1, 2, 0], [0, 1, 2, 3]))
    np.testing.assert_array_equal(images.read(np.arange(4)), PIXELS[[0, 1, 2, 0], [0, 1, 2, 3]])
    assert images._open.cache_info().currsize == 1


@pytest.mark.parametrize(
    ("pixels", "fields", "message"),
    [
        (PIXELS[:1, :2], {}, "2 images, but .*a.star names number 4"),
        (PIXELS[:1, :, :6, :6], {}, "a box of 6 pixels, but .*a.star says 8"),
        (PIXELS[:1, :, :7, :7], {"box": 7}, "an odd image box of 7 pixels"),
        (PIXELS[:0], {"stacks": ("gone.mrcs",)}, "gone.mrcs was not found .* --datadir"),
    ],
)
def test_stacks_that_do_not_fit_are_refused_before_any_pixel_is_read(tmp_path, pixels, fields, message):
    fields = {
        name: tuple(tmp_path / stack for stack in value) if name == "stacks" else value
        for name, value in fields.items()
    }
    with pytest.raises(InputError, match=message):
        Images(particles_of(tmp_path, [0], [3], pixels, **fields))


def test_images_that_are_not_square_are_refused(tmp_path):
    particles = particles_of(tmp_path, [0], [0])
    mrc.write_map(tmp_path / "0.mrcs", np.zeros((1, 8, 6)), 1.0)
    with pytest.raises(InputError, match="6 × 8 pixels, expected square"):
        Images(particles)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, None])
def test_17_images_without_content_are_refused_by_row(tmp_path, poison):
    pixels = PIXELS.copy()
    pixels[1, 2] = 3.0
    pixels[1, 2, 4, 4] = 3.0 if poison is None else poison
    images = Images(particles_of(tmp_path, [0, 1, 1], [0, 2, 3], pixels))
    assert len(images.read(np.array([0, 2]))) == 2
    with pytest.raises(InputError, match=r"in rows 2 \(000003@.*1.mrcs\); remove"):
        images.read(np.array([2, 1, 0]))


def test_blank_identifiers_are_one_notice(tmp_path):
    particles = particles_of(tmp_path, [0, 1, 2], [0, 0, 0])
    for path in particles.stacks[:2]:
        content = bytearray(path.read_bytes())
        content[208:216] = bytes(8)
        path.write_bytes(content)
    assert Images(particles).notices == ("blank MRC identifier, accepted because the byte count fits (2 stacks)",)
