"""Help on every command: at once, and the same as where the libraries are loaded."""

import os
import subprocess
import sys

import pytest

from morphem.cli import COMMANDS
from morphem.methods import METHODS

HELPED = [*(command for commands in COMMANDS.values() for command in commands), "backproject", "fit"]
HELPED += [f"fit {method}" for method in METHODS]


def helped(command: str) -> tuple[str, float]:
    """What a process of its own says, and the seconds of computing it took: others may be using this machine."""
    before = os.times()
    words = [sys.executable, "-m", "morphem", *command.split(), "--help"]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    after = os.times()
    return said.stdout, sum(after[2:4]) - sum(before[2:4])


@pytest.mark.parametrize("command", HELPED)
def test_64_help_is_quick_and_whole(morphem, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    quick, seconds = helped(command)
    assert quick == morphem(*command.split(), "--help").out
    assert min(seconds, helped(command)[1]) < 1


def test_64_nothing_else_goes_without_libraries():
    """A stand-in is no library: a command that computes must not meet one."""
    code = "from morphem.cli import main; import sys; sys.argv[1:] = ['decode', 'x', '-o', 'y', '--z', '0']; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "is not a finished run" in ended.stderr
