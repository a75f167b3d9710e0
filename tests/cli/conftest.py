"""The command line, called in this process, and a tiny simulated set to call it on."""

import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from morphem.cli import main

SMALL = ("--width", 16, "--layers", 1, "--latent-dim", 2, "--precision", "float32", "--threads", 1)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line of stderr; progress and notices may stand before it."""
        return self.err.splitlines()[-1]


@pytest.fixture
def morphem(capsys) -> Iterator[Callable[..., Ended]]:
    """`morphem("fit", "vae", …)`, without a process of its own."""
    handler = signal.getsignal(signal.SIGTERM)

    def command(*words) -> Ended:
        capsys.readouterr()
        code = _code(*words)
        return Ended(code, *capsys.readouterr())

    yield command
    signal.signal(signal.SIGTERM, handler)


def _code(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(scope="session")
def small() -> tuple:
    """The options of a small autoencoder."""
    return SMALL


@pytest.fixture
def fit(morphem) -> Callable[..., Ended]:
    """`fit(table, folder, …)`: a small autoencoder."""
    return lambda table, folder, *words: morphem("fit", "vae", table, "-o", folder, *SMALL, *words)


@pytest.fixture
def refused(morphem, tmp_path) -> Callable[..., None]:
    """`refused(words, phrases)`: exit code 2, one sentence that holds the phrases, and nothing on disk has changed."""

    def check(words, phrases) -> None:
        before = _contents(tmp_path)
        ended = morphem(*words)
        assert ended.code == 2, ended.err
        assert ended.out == ""
        assert ended.err.count("\n") == 1, ended.err
        assert ended.err.startswith("morphem: ")
        assert all(phrase in ended.err for phrase in phrases), ended.err
        assert _contents(tmp_path) == before

    return check


def _contents(folder: Path) -> dict[Path, bytes | None]:
    """Every file and folder below, with the files' bytes."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="session")
def fitted(tiny) -> Path:
    """Two epochs of a small autoencoder on the tiny set."""
    folder = tiny.parent / "run"
    assert _code("fit", "vae", tiny / "particles.star", "-o", folder, "--epochs", 2, *SMALL) == 0
    return folder


@pytest.fixture(scope="session")
def used(tiny, fitted, tmp_path_factory) -> Path:
    """A folder that a user has worked in: a set, a run with its report, maps. Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("used")
    shutil.copytree(tiny, folder / "set")
    shutil.copytree(fitted, folder / "run")
    assert _code("analyze", folder / "run", "--clusters", 2, "--frames", 2) == 0
    assert _code("decode", folder / "run", "-o", folder / "maps", "--path", 3, 7, "--frames", 2) == 0
    return folder


@pytest.fixture
def particles(tiny, tmp_path) -> Path:
    """The table of a set of one's own, to spoil."""
    return shutil.copytree(tiny, tmp_path / "set") / "particles.star"


@pytest.fixture
def run(fitted, tmp_path) -> Path:
    """A run of one's own."""
    return shutil.copytree(fitted, tmp_path / "run")
