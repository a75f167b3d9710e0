"""Pickles: numeric arrays in, nothing run."""

import os
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, floating_dtypes, integer_dtypes

from morphem.errors import InputError
from morphem.io import pickles

NUMERIC = st.one_of(integer_dtypes(), floating_dtypes(), st.just(np.dtype(bool)))
ARRAYS = NUMERIC.flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3)))


class Call:
    """Pickles as a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def kept(path, *values, protocol=pickle.DEFAULT_PROTOCOL):
    path.write_bytes(b"".join(pickle.dumps(value, protocol) for value in values))
    return path


@given(array=ARRAYS, protocol=st.integers(2, 5), fortran=st.booleans())
def test_arrays_come_back_as_pickle_reads_them(tmp_path_factory, array, protocol, fortran):
    array = np.asarray(array, order="F" if fortran else "C")
    found = pickles.read(kept(tmp_path_factory.mktemp("p") / "a.pkl", array, protocol=protocol))
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


def test_tuples_scalars_and_pickles_back_to_back(tmp_path):
    pair = (np.eye(3), np.float32(0.5), [1, 2.5])
    found = pickles.read_all(kept(tmp_path / "a.pkl", pair, np.arange(3)))
    assert len(found) == 2
    np.testing.assert_array_equal(found[0][0], np.eye(3))
    assert found[0][1:] == (0.5, [1, 2.5])
    np.testing.assert_array_equal(found[1], np.arange(3))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Call(os.system, ("touch ran",)), "posix.system"),
        (Call(eval, ("open('ran', 'w')",)), "builtins.eval"),
        (Call(np.load, ("ran",)), "numpy.load"),
        (Call(np.dtype, ("O",)), "dtype O"),
        (torch.zeros(2), "torch"),
        (np.array([{}, 1], dtype=object), "dtype O8"),
        (np.array(["a"]), "dtype U1"),
        (np.zeros(2, "f4,i2"), "dtype V6"),
        ({"a": 1}, "type dict"),
        ("text", "type str"),
    ],
)
def test_60_everything_else_is_refused_by_name_and_not_run(tmp_path, monkeypatch, value, named):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"{named}.*found, expected numeric arrays only"):
        pickles.read(kept(tmp_path / "a.pkl", value))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_a_reference_out_of_the_file_is_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04K\x01Q.")
    with pytest.raises(InputError, match="outside the file"):
        pickles.read(tmp_path / "a.pkl")


def test_61_a_claimed_shape_beyond_the_bytes_is_refused(tmp_path):
    whole = kept(tmp_path / "a.pkl", np.zeros(200)).read_bytes()
    (tmp_path / "a.pkl").write_bytes(whole.replace(b"K\xc8\x85", b"J" + struct.pack("<i", 2**30) + b"\x85"))
    with pytest.raises(InputError, match="not a pickle of arrays"):
        pickles.read(tmp_path / "a.pkl")


@given(content=st.binary(max_size=60))
def test_garbage_is_refused_in_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("p") / "a.pkl"
    path.write_bytes(content)
    try:
        pickles.read_all(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
