"""cryoSPARC tables."""

import numpy as np
import pytest

from morphem.errors import InputError
from morphem.io import cs


def a_table(uids, **fields):
    table = np.zeros(len(uids), [("uid", "<u8"), *((name, v.dtype, v.shape[1:]) for name, v in fields.items())])
    table["uid"] = uids
    for name, values in fields.items():
        table[name] = values
    return table


def test_all_fields_and_types_come_back(tmp_path):
    table = a_table([3, 1], shape=np.array([[4, 4], [4, 4]], "<u4"), path=np.array([b"a", b"bc"]))
    cs.write(tmp_path / "a.cs", table)
    found = cs.read(tmp_path / "a.cs")
    assert found.dtype == table.dtype
    np.testing.assert_array_equal(found, table)


def test_a_passthrough_is_joined_on_uid(tmp_path):
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


def test_objects_and_other_files_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(b"nonsense")
    np.save(tmp_path / "c.npy", np.zeros(3))
    for name in ("a", "b", "c", "none"):
        with pytest.raises(InputError, match=f"{name}.npy: "):
            cs.read(tmp_path / f"{name}.npy")
