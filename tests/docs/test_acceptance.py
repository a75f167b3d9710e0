"""Every promise of this program has a test named by its number, `test_NN_…`, in the file of its subject."""

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
POINTS = {
    # Formats and metadata
    1: "files of other programs give values read from them independently",
    2: "an absent phase shift is 0, and said",
    3: "STAR: single values, quotes, any order of blocks; untouched tokens stay",
    4: "each row has its own pixel size in CTF, shift and slice",
    5: "downsampled tables: size and pixel change, shifts in Å stay",
    6: "MRC of every mode and byte order gives equal pixels, and trains",
    7: ".cs subsets keep fields and types; pixel of the alignment; zero pose",
    8: "images are found by path and number, whatever the order of rows",
    9: "exported origins are in Å and read back",
    10: "tilt series are refused",
    11: "cryoDRGN's poses are fractions of the box; z with one or two arrays",
    12: "an option that contradicts the table is refused with both values",
    # Preprocessing
    13: "a batch is flipped as each image is alone",
    14: "integer stacks downsample to real ones of the same mean",
    15: "noise has power 1 in every shell after windowing",
    16: "an inverted stack is a warning that names the option",
    17: "images that are constant or not finite are refused by row",
    18: "premultiplied images are refused, other corrections are one notice",
    # Geometry and maps
    19: "the worked example of the conventions",
    20: "ten pixels are ten pixels",
    21: "FSC shells and crossing; a spherical mask is a ball",
    22: "the slope of a map against the truth is 1",
    23: "half-maps of one refinement are said not to be gold standard",
    24: "a map of given symmetry is symmetric",
    25: "every written map has its pixel size",
    # Training
    26: "a poisoned step is skipped, lasting ones end the run soon",
    27: "reading from disk gives the same result",
    28: "an image's prediction does not depend on its batch",
    29: "every encoder trains at every box",
    30: "every setting acts or is refused",
    31: "memory is predicted; what does not fit is refused",
    32: "two states are told apart",
    33: "held-out loss, and whether the run has converged",
    34: "no density outside a mask",
    # Ab initio
    35: "its tables are read by back-projection",
    36: "without a CTF it runs or is refused",
    37: "the KL is positive and falls when β rises",
    38: "rows that are not in the batch do not move",
    39: "pure noise is no structure",
    40: "memory of a GPU",
    41: "a mirrored map is said to be mirrored",
    42: "every option starts a run of five images",
    # Analysis
    43: "label n, map n and selection n are one",
    44: "a saved run decodes the maps of its training",
    45: "a thousand maps on three devices are a thousand files",
    46: "a million latents are embedded in ten minutes",
    47: "a selection among 400,000 points answers in a second",
    48: "ten thousand maps: a time estimate first",
    # Resume and reproducibility
    49: "epochs and more epochs are all epochs, bit for bit",
    50: "a killed run goes on to the same weights, nothing partial is visible",
    51: "equal seeds give equal results",
    52: "going on with other settings is refused with the differences",
    53: "a checkpoint of a GPU opens on a CPU",
    54: "a full disk leaves the last checkpoint",
    # Several devices
    55: "two processes are one with twice the batch",
    56: "speed on two and four GPUs",
    57: "every image is used once",
    58: "one process that dies stops all",
    59: "a GPU that is asked for and absent is refused",
    # Security
    60: "pickles run nothing",
    61: "headers that lie and truncated files are refused before anything is allocated",
    62: "no pickle is written unasked",
    63: "the dashboard keeps to itself",
    # User experience
    64: "help is quick",
    65: "a user's mistake is one sentence and exit code 2",
    66: "of a misspelt word the nearest is suggested",
    67: "a failed command leaves what there was; nothing is overwritten unasked",
    68: "the first minute says device, precision, speed, memory, time left",
    69: "Ctrl-C leaves a checkpoint and exit code 130",
}
NOT_YET = {
    **dict.fromkeys((35, 36, 39, 40, 41, 42), "ab initio"),
    **dict.fromkeys((45, 46, 47, 48), "analysis"),
    **dict.fromkeys((55, 56, 57, 58), "devices"),
    63: "dashboard",
}
"""Points not asked for yet, each with what they wait for."""


def names(path: Path) -> list[str]:
    """The test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]


def proven() -> dict[int, list[str]]:
    """Point -> the tests that are named by it."""
    found = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in names(path):
            if match := re.match(r"test_(\d\d)_", name):
                found[int(match[1])].append(f"{path.relative_to(TESTS)}::{name}")
    return found


def test_every_point_has_a_test():
    absent = sorted(set(POINTS) - set(NOT_YET) - set(proven()))
    assert not absent, "; ".join(f"no test_{number:02d}_…: {POINTS[number]}" for number in absent)


def test_every_number_is_a_point():
    assert {number: tests for number, tests in proven().items() if number not in POINTS} == {}


def test_no_name_is_given_twice_in_a_file():
    """A second test of one name would hide the first."""
    count = Counter((path.relative_to(TESTS), name) for path in TESTS.rglob("test_*.py") for name in names(path))
    assert [place for place, times in count.items() if times > 1] == []
