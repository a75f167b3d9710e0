"""MRC files, against mrcfile and against headers that lie."""

import errno
import os

import mrcfile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mrcfile.dtypes import HEADER_DTYPE

from morphem.errors import InputError, RunError
from morphem.io import mrc

SMALL = arrays(np.float32, (3, 4, 5), elements=st.floats(-1e6, 1e6, width=32))


def a_file(path, images_nyx, order="<", mode=2, extended=b"", **header):
    """An MRC file made by hand."""
    record = np.zeros((), HEADER_DTYPE.newbyteorder(order))
    record["nz"], record["ny"], record["nx"] = record["mz"], record["my"], record["mx"] = images_nyx.shape
    record["mode"], record["nsymbt"], record["map"] = mode, len(extended), b"MAP "
    for name, value in header.items():
        record[name] = value
    path.write_bytes(record.tobytes() + extended + images_nyx.tobytes())
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "kind"), [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
def test_06_modes_and_byte_orders_give_equal_pixels(tmp_path, order, mode, kind):
    pixels = np.arange(2 * 256 * 256).reshape(2, 256, 256) % 251 - (0 if kind == "u2" else 125)
    stack = mrc.open_stack(a_file(tmp_path / "a.mrcs", pixels.astype(order + kind), order, mode))
    assert isinstance(stack.images_nyx, np.memmap)
    np.testing.assert_array_equal(stack.images_nyx, pixels)


def test_an_extended_header_is_skipped_and_the_pixel_size_read(tmp_path):
    pixels = np.arange(32.0, dtype="<f4").reshape(2, 4, 4)
    stack = mrc.open_stack(a_file(tmp_path / "a.mrc", pixels, extended=b"x" * 160, cella=(6, 6, 3)))
    np.testing.assert_array_equal(stack.images_nyx, pixels)
    assert (stack.pixel_A, stack.notices) == (1.5, ())


@pytest.mark.parametrize("header", [{"mx": 0, "cella": (6, 6, 6)}, {"cella": (0, 0, 0)}])
def test_06_a_header_without_a_pixel_size_gives_equal_pixels(tmp_path, header):
    pixels = np.arange(16.0, dtype="<f4").reshape(1, 4, 4)
    stack = mrc.open_stack(a_file(tmp_path / "a.mrc", pixels, **header))
    np.testing.assert_array_equal(stack.images_nyx, pixels)
    assert (stack.pixel_A, stack.notices) == (0, ())


def test_a_blank_identifier_is_accepted_with_a_notice_only_if_the_bytes_fit(tmp_path):
    path = a_file(tmp_path / "a.mrc", np.zeros((1, 4, 4), "f4"), map=b"")
    assert "blank" in mrc.open_stack(path).notices[0]
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(InputError, match="1092 bytes, but its header claims 1088"):
        mrc.open_stack(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"nz": 2**31 - 1}, "claims"),
        ({"nx": 4, "ny": 30000, "nz": 30000}, "claims"),
        ({"nz": -1}, "positive sizes"),
        ({"nx": 0}, "no image width"),
        ({"nsymbt": -8}, "positive sizes"),
        ({"mode": 4}, "MRC mode 4"),
    ],
)
def test_61_lying_headers_are_refused_before_anything_is_allocated(tmp_path, monkeypatch, header, message):
    path = a_file(tmp_path / "a.mrc", np.zeros((1, 4, 4), "f4"), **header)
    monkeypatch.setattr(np, "memmap", None)
    with pytest.raises(InputError, match=message):
        mrc.open_stack(path)


@pytest.mark.parametrize("size", [0, 500, 1024, 1087])
def test_61_truncated_files_are_refused(tmp_path, size):
    path = a_file(tmp_path / "a.mrc", np.zeros((1, 4, 4), "f4"))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=f"{size} bytes"):
        mrc.open_stack(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "none.mrc", tmp_path):
        with pytest.raises(InputError, match="give the path of an MRC file"):
            mrc.open_stack(path)


@given(map_zyx=SMALL)
def test_maps_come_back_and_other_programs_read_them(tmp_path_factory, map_zyx):
    path = tmp_path_factory.mktemp("map") / "a.mrc"
    mrc.write_map(path, map_zyx, 1.25)
    found, pixel_A = mrc.read_map(path)
    np.testing.assert_array_equal(found, map_zyx)
    assert pixel_A == pytest.approx(1.25)
    with mrcfile.open(path) as peer:
        np.testing.assert_array_equal(peer.data, map_zyx)
        assert (peer.header.ispg, peer.header.mz, peer.header.machst.tolist()) == (1, 3, [68, 68, 0, 0])
        np.testing.assert_allclose(peer.voxel_size.tolist(), 1.25)
        statistics = [float(peer.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
        wide = map_zyx.astype(float)
        np.testing.assert_allclose(statistics, [wide.min(), wide.max(), wide.mean(), wide.std()], rtol=1e-6, atol=1e-9)


def test_maps_are_valid(tmp_path):
    mrc.write_map(tmp_path / "a.mrc", np.random.default_rng(0).normal(size=(4, 6, 8)), 1.25)
    assert mrcfile.validate(tmp_path / "a.mrc", print_file=None)


def test_axes_in_another_order_are_turned_to_zyx(tmp_path):
    map_zyx = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    path = a_file(tmp_path / "a.mrc", np.ascontiguousarray(map_zyx.T), mapc=3, mapr=2, maps=1)
    np.testing.assert_array_equal(mrc.read_map(path)[0], map_zyx)


def test_a_stack_is_filled_piece_by_piece(tmp_path):
    pixels = np.random.default_rng(0).normal(3, 2, (5, 8, 8)).astype(np.float32)
    with mrc.create_stack(tmp_path / "a.mrcs", 5, 8, 2.5) as images_nyx:
        images_nyx[3:] = pixels[3:]
        images_nyx[:3] = pixels[:3]
        assert not (tmp_path / "a.mrcs").exists()
    assert mrcfile.validate(tmp_path / "a.mrcs", print_file=None)
    with mrcfile.open(tmp_path / "a.mrcs") as peer:
        np.testing.assert_array_equal(peer.data, pixels)
        assert (peer.header.ispg, peer.header.mz, peer.is_image_stack()) == (0, 1, True)
        assert peer.header.rms == pytest.approx(pixels.std(), rel=1e-5)
        assert peer.voxel_size.x == 2.5


def test_a_stack_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), mrc.create_stack(tmp_path / "a.mrcs", 5, 8, 2.5):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError, match="No space left"), mrc.create_stack(tmp_path / "a.mrcs", 5, 8, 2.5):
        pytest.fail("the space is to be claimed before any image is made")
    assert not list(tmp_path.iterdir())
