"""STAR files as text: every block, column and cell comes back as it was, quotes included.

A block is a DataFrame of strings. `attrs["loop"]` is False for a block of single values (a frame of one row), and
`attrs["comments"]` holds the comment lines before it, such as RELION's "# version 30001".
Syntax: S. R. Hall, J. Chem. Inf. Comput. Sci. 31, 326 (1991), as far as RELION uses it: a table a block.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from morphem.errors import InputError
from morphem.io.files import replacing
from morphem.io.reading import reading

BLOCK = re.compile(r"^[ \t]*data_(\S*)[ \t]*(?:#.*)?$", re.MULTILINE)
TOKEN = re.compile(r"""(?:"[^\n]*?"|'[^\n]*?')(?=\s|$)|\S+""", re.ASCII)
QUOTED = re.compile(r"""(["']).*\1""")
BLANKS = " \t\r"


def read(path: Path | str) -> dict[str, pd.DataFrame]:
    """{block name without "data_": its table, columns without "_"}, in the file's order.

    Errors: InputError where the file is not text, holds no block, or has a row of the wrong length.
    """
    lead, *rest = BLOCK.split(_text(path))
    blocks: dict[str, pd.DataFrame] = {}
    for name, body in zip(rest[::2], rest[1::2], strict=True):
        if name in blocks:
            raise InputError(f"{path}: two blocks are called data_{name}, expected one; rename or remove one")
        blocks[name] = _table(f"{path}, block data_{name}", _lines(body))
        blocks[name].attrs["comments"] = [line for line in _lines(lead, comments=True) if line.startswith("#")]
        lead = body
    if not blocks:
        raise InputError(f'{path}: no line starts with "data_"; give a STAR file')
    return blocks


def write(path: Path | str, blocks: dict[str, pd.DataFrame]) -> None:
    """Write blocks of tokens (see `tokens`), one row a line. Errors: RunError when the disk is full."""
    with replacing(path) as aside, open(aside, "w", encoding="utf-8", newline="\n") as file:
        for name, table in blocks.items():
            file.writelines(f"{line}\n" for line in _written(name, table))


def tokens(values: Iterable) -> list[str]:
    """Values as STAR cells: numbers as the shortest text that reads back equal, texts quoted where they need it."""
    array = np.asarray(values)
    if array.dtype.kind == "b":
        array = array.astype(int)
    return [cell if TOKEN.fullmatch(cell) else f'"{cell}"' for cell in map(str, array.astype(str).tolist())]


def texts(column: Any) -> list[str]:
    """What the cells of a table's column say: without the quotes around them."""
    return [cell[1:-1] if QUOTED.fullmatch(cell) else cell for cell in column.tolist()]


def _text(path: Path | str) -> str:
    try:
        with reading(path, "a STAR file"):
            text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file; give a STAR file") from error
    if not text.strip() or "\0" in text:
        raise InputError(f"{path}: {'not a text file' if text else 'an empty file'}; give a STAR file")
    return text


def _lines(body: str, comments: bool = False) -> list[str]:
    """The lines that say something; comments only on request."""
    lines = [line.strip(BLANKS) for line in body.split("\n")]
    return [line for line in lines if line and (comments or line[0] != "#")]


def _table(where: str, lines: list[str]) -> pd.DataFrame:
    if not lines or lines[0].split()[0] != "loop_":
        return _single_values(where, lines)
    header = next((i for i, line in enumerate(lines[1:], 1) if line[0] != "_"), len(lines))
    names = [line.split()[0][1:] for line in lines[1:header]]
    table = _rows(where, lines[header:], len(names))
    table.columns = _distinct(where, names)
    return table


def _single_values(where: str, lines: list[str]) -> pd.DataFrame:
    pairs = [TOKEN.findall(line)[:2] for line in lines]
    for pair, line in zip(pairs, lines, strict=True):
        if len(pair) < 2 or line[0] != "_":
            raise InputError(f'{where}: "{line[:40]}" found, expected "_name value" or "loop_"; repair the file')
    names = _distinct(where, [name[1:] for name, _ in pairs])
    table = pd.DataFrame([[value for _, value in pairs]], columns=names, dtype=str)
    table.attrs["loop"] = False
    return table


def _distinct(where: str, names: list[str]) -> pd.Index:
    columns = pd.Index(names, dtype=object)
    if columns.has_duplicates:
        raise InputError(f"{where}: column _{columns[columns.duplicated()][0]} comes twice; remove one")
    return columns


def _rows(where: str, lines: list[str], width: int) -> pd.DataFrame:
    """The cells of a loop; lines without quotes, nearly all there are, go through pandas' fast reader."""
    quoted = any('"' in line or "'" in line for line in lines)
    wrong = next((i for i, line in enumerate(lines, 1) if len(_cells(line, quoted)) != width), None)
    if wrong is not None:
        found = len(_cells(lines[wrong - 1], quoted))
        raise InputError(f"{where}: row {wrong} has {found} cells, expected {width}; repair or remove it")
    if quoted or not lines:
        return pd.DataFrame([_cells(line, quoted) for line in lines], columns=range(width), dtype=str)
    source = StringIO("\n".join(lines))
    return pd.read_csv(source, sep=r"\s+", header=None, dtype=str, quoting=csv.QUOTE_NONE, na_filter=False)


def _cells(line: str, quoted: bool) -> list[str]:
    return TOKEN.findall(line) if quoted else line.split()


def _written(name: str, table: pd.DataFrame) -> Iterator[str]:
    yield from ("", *table.attrs.get("comments", ()), f"data_{name}", "")
    if not table.attrs.get("loop", True):
        yield from (f"_{column} {table[column].iloc[0]}" for column in table)
        return
    yield "loop_"
    yield from (f"_{column} #{number}" for number, column in enumerate(table, 1))
    yield from map(" ".join, zip(*(map(str, table[column].tolist()) for column in table), strict=True))
