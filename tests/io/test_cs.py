"""cryoSPARC tables."""

import struct
import tracemalloc

import numpy as np
import pytest

from morphem.errors import InputError
from morphem.io import cs, npy


def a_table(uids, **fields):
    table = np.zeros(len(uids), [("uid", "<u8"), *((name, v.dtype, v.shape[1:]) for name, v in fields.items())])
    table["uid"] = uids
    for name, values in fields.items():
        table[name] = values
    return table


def test_07_all_fields_and_types_come_back(tmp_path):
    table = a_table([3, 1], shape=np.array([[4, 4], [4, 4]], "<u4"), path=np.array([b"a", b"bc"]))
    cs.write(tmp_path / "a.cs", table)
    found = cs.read(tmp_path / "a.cs")
    assert found.dtype == table.dtype
    np.testing.assert_array_equal(found, table)


def test_07_a_passthrough_is_joined_on_uid(tmp_path):
    cs.write(tmp_path / "a.cs", a_table([30, 10], x=np.array([3.0, 1.0])))
    cs.write(tmp_path / "p.cs", a_table([10, 20, 30], x=np.zeros(3), y=np.array([1, 2, 3], "<i2")))
    joined = cs.read(tmp_path / "a.cs", tmp_path / "p.cs")
    assert joined.dtype.names == ("uid", "x", "y")
    assert joined["y"].dtype == "<i2"
    np.testing.assert_array_equal(joined["x"], joined["y"])


@pytest.mark.parametrize("uids", [[1], []])
def test_a_passthrough_of_another_job_is_refused(tmp_path, uids):
    cs.write(tmp_path / "a.cs", a_table([1, 7]))
    cs.write(tmp_path / "p.cs", a_table(uids))
    with pytest.raises(InputError, match="uid"):
        cs.read(tmp_path / "a.cs", tmp_path / "p.cs")


def test_fields_are_replaced_in_their_type_or_appended():
    table = cs.with_fields(a_table([1, 2], x=np.zeros(2, "<f4")), {"x": np.array([1.5, 2.5]), "z": np.ones((2, 3))})
    assert (table.dtype["x"], table.dtype["z"].shape) == (np.dtype("<f4"), (3,))
    assert table["x"].tolist() == [1.5, 2.5]


def npy_header(text: str, version: int = 1) -> bytes:
    kind = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(kind, len(text)) + text.encode()


def claiming(descr: str, shape: tuple) -> bytes:
    """The header of an array, without the array."""
    return npy_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n")


LIES = {
    "more rows than bytes": claiming("[('uid', '<u8')]", (2**40,)),
    "wide rows": claiming("[('uid', '<u8'), ('blob/path', 'S2147483639')]", (3,)),
    "more rows than numbers": claiming("'<f8'", (2**62, 2**62)),
    "a negative number of rows": claiming("'<f8'", (-8,)),
    "a header longer than the file": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 256) + b"{}",
    "a header that never ends": npy_header("(" * 9000, version=2),
    "nothing but a name": b"\x93NUMPY",
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("suffix", [".cs", ".npy"])
def test_61_lying_headers_are_refused_before_anything_is_allocated(tmp_path, suffix, lie):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(LIES[lie])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="no whole array of plain numbers"):
            cs.read(path) if suffix == ".cs" else npy.read(path, "row numbers")
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def test_61_truncated_tables_are_refused(tmp_path):
    cs.write(tmp_path / "a.cs", a_table([3, 1], path=np.array([b"a", b"bc"])))
    whole = (tmp_path / "a.cs").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "b.cs").write_bytes(whole[:size])
        with pytest.raises(InputError, match="b.cs: "):
            cs.read(tmp_path / "b.cs")


def test_62_objects_and_other_files_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(b"nonsense")
    np.save(tmp_path / "c.npy", np.zeros(3))
    for name in ("a", "b", "c", "none"):
        with pytest.raises(InputError, match=f"{name}.npy: "):
            cs.read(tmp_path / f"{name}.npy")
