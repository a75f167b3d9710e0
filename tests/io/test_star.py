"""STAR files: what goes in comes out, token by token."""

import itertools
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphem.errors import InputError
from morphem.io import star

TEXT = """
# version 30001

data_optics

_rlnOpticsGroup  1
_rlnOpticsGroupName "my group"   # said so

data_particles

loop_
_rlnImageName #1
_rlnDefocusU #2
_note #3
000001@a#b.mrcs  1.50e+04  'it''s here'
000002@O'Neil.mrcs\t -0  ""

# a remark
data_empty
loop_
_rlnX #1
"""
ODD = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
CELLS = ODD.filter(lambda text: text[0] not in "#_\"'" and not text.startswith(("data_", "loop_")))


def words(text):
    """All tokens of a file but its comments."""
    lines = [re.sub(r"^\s*#.*|(?<=\s)#\d+\s*$|(?<=\s)# .*", "", line) for line in text.splitlines()]
    return [token for line in lines for token in star.TOKEN.findall(line)]


def test_03_blocks_quotes_and_single_values_are_read(tmp_path):
    (tmp_path / "a.star").write_text(TEXT)
    blocks = star.read(tmp_path / "a.star")
    assert list(blocks) == ["optics", "particles", "empty"]
    assert blocks["optics"].attrs == {"loop": False, "comments": ["# version 30001"]}
    assert blocks["optics"]["rlnOpticsGroupName"].tolist() == ['"my group"']
    assert blocks["particles"].to_numpy().tolist() == [
        ["000001@a#b.mrcs", "1.50e+04", "'it''s here'"],
        ["000002@O'Neil.mrcs", "-0", '""'],
    ]
    assert star.texts(blocks["particles"]["note"]) == ["it''s here", ""]
    assert blocks["empty"].shape == (0, 1)


def test_03_every_token_is_the_same_after_rewriting(tmp_path):
    (tmp_path / "a.star").write_text(TEXT)
    star.write(tmp_path / "b.star", star.read(tmp_path / "a.star"))
    assert words((tmp_path / "b.star").read_text()) == words(TEXT)
    assert "# version 30001" in (tmp_path / "b.star").read_text()


BLOCKS = re.split(r"(?=^data_)", TEXT.removeprefix("\n# version 30001\n\n"), flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_03_blocks_may_come_in_any_order(tmp_path, order):
    (tmp_path / "a.star").write_text("".join(BLOCKS[i] for i in order))
    (tmp_path / "b.star").write_text("".join(BLOCKS))
    found, expected = (star.read(tmp_path / name) for name in ("a.star", "b.star"))
    assert list(found) == [list(expected)[i] for i in order]
    for name, table in expected.items():
        pd.testing.assert_frame_equal(found[name], table)
        assert found[name].attrs.get("loop") == table.attrs.get("loop")


def test_61_a_truncated_table_is_refused_or_lacks_whole_rows(tmp_path):
    """A STAR file does not say how long it is: only the end of the very last cell can go unnoticed."""
    text = "data_particles\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\n1@a.mrcs 15000\n2@a.mrcs 16000\n3@a.mrcs 17000\n"
    (tmp_path / "a.star").write_text(text)
    whole = star.read(tmp_path / "a.star")["particles"]
    refused = 0
    for size in range(text.index("1@a") + 1, len(text)):
        (tmp_path / "b.star").write_text(text[:size])
        try:
            table = star.read(tmp_path / "b.star")["particles"]
        except InputError as error:
            assert re.search(r"row \d has 1 cells, expected 2", str(error))
            refused += 1
            continue
        cells, expected = table.to_numpy().ravel().tolist(), whole[: len(table)].to_numpy().ravel().tolist()
        assert cells[:-1] == expected[:-1]
        assert expected[-1].startswith(cells[-1])
    assert refused == 3 * len("1@a.mrcs ")


@given(rows=st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1)))
def test_any_cells_survive(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("star") / "a.star"
    table = pd.DataFrame(rows, columns=[f"c{i}" for i in range(len(rows[0]))], dtype=str)
    star.write(path, {"": table})
    assert star.read(path)[""].to_numpy().tolist() == rows


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_become_text_that_reads_back_equal(values):
    assert [float(cell) for cell in star.tokens(values)] == values


def test_texts_are_quoted_where_they_need_it():
    assert star.tokens(["a b", "c", "", 3]) == ['"a b"', "c", '""', "3"]
    assert star.tokens([True, False]) == ["1", "0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\x00\x01data_\n", "not a text file"),
        (b"\xff\xfe\x00data", "not a text file"),
        (b"hello\n", 'no line starts with "data_"'),
        (b"data_\nloop_\n_a\n_b\n1 2\n1 2 3\n", "row 2 has 3 cells, expected 2"),
        (b"data_\nloop_\n_a\n_b\n1 2\n1\n", "row 2 has 1 cells, expected 2"),
        (b"data_\nloop_\n_a\n_b\n1 '2\n3'\n", "row 2 has 1 cells, expected 2"),
        (b"data_\nloop_\n_a\n_a\n1 2\n", "column _a comes twice"),
        (b"data_x\n_a 1\n\ndata_x\n_a 2\n", "two blocks are called data_x"),
        (b"data_\nnonsense\n", '"nonsense" found'),
    ],
)
def test_broken_files_are_refused_in_a_sentence(tmp_path, content, message):
    (tmp_path / "a.star").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        star.read(tmp_path / "a.star")
