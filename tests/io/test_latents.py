"""Latents of other programs: what is read, and what is refused in one sentence."""

import numpy as np
import pandas as pd
import pytest

from morphem.data.latents import read
from morphem.errors import InputError


def test_columns_are_in_the_order_of_their_numbers(tmp_path):
    z_nq = np.random.default_rng(0).normal(size=(4, 11))
    order = [10, *range(10)]
    pd.DataFrame({f"z_{i}": z_nq[:, i] for i in order}).to_parquet(tmp_path / "z.parquet")
    np.testing.assert_allclose(read(tmp_path / "z.parquet", 4), z_nq, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (np.array([["one", "two"]] * 4), "expected real numbers"),
        (np.full((4, 2), 1e200), "not finite, or too large"),
        (np.full((4, 2), 1 + 2j), "expected real numbers"),
        (np.full((4, 2), np.nan), "not finite, or too large"),
    ],
)
def test_what_is_no_latent_is_refused(tmp_path, values, complaint):
    np.save(tmp_path / "z.npy", values)
    with pytest.raises(InputError, match=complaint):
        read(tmp_path / "z.npy", 4)
    if values.dtype.kind == "U":
        pd.DataFrame(values, columns=["z_0", "z_1"]).to_parquet(tmp_path / "z.parquet")
        with pytest.raises(InputError, match=complaint):
            read(tmp_path / "z.parquet", 4)
