"""What the shell sees: a quick start, exit codes, and runs that are stopped and go on."""

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from morphem import __version__
from morphem.cli import main
from morphem.io import star
from morphem.io.mrc import read_map
from morphem.run import Run

CALLED = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from morphem.cli import main; "


def python(code: str, *words) -> subprocess.Popen:
    """A fresh process; stdout and stderr are one."""
    command = [sys.executable, "-c", CALLED + code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_64_help_is_quick_and_loads_nothing_heavy():
    heavy = "{'torch', 'numpy', 'matplotlib', 'pandas', 'scipy', 'numba', 'sklearn'}"
    code = f"import atexit; atexit.register(lambda: print('loaded', *{heavy} & set(sys.modules))); main(['--help'])"
    seconds = []
    for _ in range(3):  # the quickest counts: others may be using this machine
        start = time.perf_counter()
        out, _ = (process := python(code)).communicate()
        seconds.append(time.perf_counter() - start)
        assert process.returncode == 0
        assert out.startswith("Usage: morphem COMMAND")
        assert out.splitlines()[-1].strip() == "loaded"
    assert min(seconds) < 1


def test_version(morphem):
    assert morphem("--version").out == f"morphem {__version__}\n"


@pytest.mark.parametrize("words", [["fit", "vae", "nowhere.star", "-o", "out"], ["fit", "vea"]])
def test_debug_shows_the_traceback_and_changes_no_exit_code(morphem, words):
    plain, debug = morphem(*words), morphem("--debug", *words)
    assert "Traceback" not in plain.err
    assert debug.err.startswith("Traceback (most recent call last)")
    assert (debug.code, debug.sentence) == (plain.code, plain.sentence)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("CUDA out of memory")],
)
def test_too_little_memory_is_said(morphem, tmp_path, monkeypatch, error):
    def start(*_):
        raise error

    monkeypatch.setattr("morphem.cli.commands.write_simulation", start)
    ended = morphem("simulate", tmp_path / "out")
    assert ended.code == 1
    assert ended.sentence.startswith("morphem: out of memory; use fewer images")
    assert not list(tmp_path.iterdir())


def test_a_mistake_of_the_program_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr("morphem.cli.commands.write_simulation", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["simulate", str(tmp_path / "out")])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_69_a_stopped_run_goes_on_to_the_same_weights(fit, small, tiny, tmp_path, number, code):
    table, out, whole = tiny / "particles.star", tmp_path / "out", tmp_path / "whole"
    process = python("main(sys.argv[1:])", "fit", "vae", table, "-o", out, "--epochs", 9999, *small)
    try:
        while not (out / "checkpoints" / "epoch-0001.safetensors").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "morphem: stopped; a run that has checkpoints goes on with --resume"
    assert not list(out.rglob(".*"))

    epochs = len(re.findall("^Epoch ", said, re.MULTILINE)) + 2
    resumed = fit(table, out, "--epochs", epochs, "--resume")
    assert resumed.code == 0, resumed.err
    assert "going on after epoch" in resumed.err
    assert fit(table, whole, "--epochs", epochs).code == 0
    assert (out / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def whole(path: Path) -> bool:
    """Whether a file of a run is complete; half a last line of a log is passed over."""
    if path.suffix == ".safetensors":
        return bool(load_file(path))
    if path.suffix == ".mrc":
        return len(read_map(path)[0]) == 32
    if path.suffix == ".parquet":
        return len(pd.read_parquet(path)) == 150
    if path.suffix == ".star":
        return bool(star.read(path))
    return path.suffix in (".yaml", ".log", ".jsonl", ".bib", ".csv")


def test_50_a_run_that_is_killed_goes_on_to_the_same_weights(fit, small, tiny, tmp_path):
    """Before it trains, after its first epoch, and a moment after going on; what is visible is always whole."""
    table, out, undisturbed = tiny / "particles.star", tmp_path / "out", tmp_path / "undisturbed"
    checkpoints = out / "checkpoints"
    for words, moment, pause in (
        ([], out / "config.yaml", 0.0),
        (["--resume"], checkpoints / "epoch-0001.safetensors", 0.11),
        (["--resume"], checkpoints, 1.7),
    ):
        process = python("main(sys.argv[1:])", "fit", "vae", table, "-o", out, "--epochs", 9999, *small, *words)
        try:
            while not moment.exists():
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            time.sleep(pause)
        finally:
            process.kill()
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        visible = [path for path in out.rglob("[!.]*") if path.is_file()]
        assert all(map(whole, visible)), visible
    epochs = int(max(checkpoints.glob("epoch-*")).stem[-4:]) + 2
    resumed = fit(table, out, "--epochs", epochs, "--resume")
    assert resumed.code == 0, resumed.err
    assert fit(table, undisturbed, "--epochs", epochs).code == 0
    for name in ("weights.safetensors", "latents.parquet", "maps/consensus.mrc"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert [line["epoch"] for line in Run(out).history()] == list(range(1, epochs + 1))


@contextlib.contextmanager
def no_checkpoint_renamed():
    """The disk is full at the last moment."""
    replace = os.replace

    def full(source, target):
        if "epoch-" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", full)
        yield


@contextlib.contextmanager
def no_large_files(size):
    """As if the disk were full for files beyond a size in bytes: maps of 32 voxels are below 150 kB, checkpoints and
    reports are above."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("full", [no_checkpoint_renamed, lambda: no_large_files(150_000)])
def test_54_a_full_disk_leaves_the_last_checkpoint(fit, tiny, tmp_path, full):
    table, out = tiny / "particles.star", tmp_path / "out"
    assert fit(table, out, "--epochs", 1).code == 0
    before = {path: path.read_bytes() for path in (out / "checkpoints").iterdir()}
    with full():
        failed_whole(fit(table, out, "--epochs", 2, "--resume"), out)
    assert before
    assert {path: path.read_bytes() for path in (out / "checkpoints").iterdir()} == before
    assert fit(table, out, "--epochs", 2, "--resume").code == 0


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system with room for one checkpoint and not for two."""
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1800k", "none", tmp_path]).returncode
    ):
        pytest.skip("a file system cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_54_a_disk_that_fills_up(fit, tiny, tiny_disk):
    out = tiny_disk / "out"
    failed_whole(fit(tiny / "particles.star", out, "--epochs", 9), out)


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


FAILING = {
    "simulate": ("simulate {out} --images 40 --box 32", 100_000),
    "simulate, at its maps": ("simulate {out} --images 20 --box 32", 100_000),
    "simulate over another": ("simulate {set} --images 40 --box 32 --overwrite", 100_000),
    "decode": ("decode {run} -o {out} --z 0,0", 20_000),
    "decode over maps": ("decode {run} -o {maps} --z 1,1 --overwrite", 20_000),
    "analyze, at the first map": ("analyze {run} --clusters 3 --frames 2", 20_000),
    "analyze, at the report": ("analyze {run} --clusters 3 --frames 2", 150_000),
}


@pytest.mark.parametrize("case", FAILING)
def test_67_a_command_that_fails_leaves_what_there_was(morphem, used, case):
    """No new file, no half of one, and what was to be replaced is still there."""
    before = contents(used)
    words, size = FAILING[case]
    names = {name: used / name for name in ("set", "run", "out", "maps")}
    with no_large_files(size):
        ended = morphem(*words.format(**names).split())
    assert ended.code == 1
    assert re.fullmatch(r"morphem: .*File too large.*", ended.sentence)
    assert contents(used) == before


@pytest.mark.parametrize("words", ["backproject", "fit vae --width 16 --layers 1 --latent-dim 2"])
def test_67_a_run_that_fails_leaves_no_half_of_a_file(morphem, tiny, tmp_path, words):
    """At its first map: what it was told and what it said stay."""
    out = tmp_path / "out"
    with no_large_files(20_000):
        ended = morphem(*words.split(), tiny / "particles.star", "-o", out, "--threads", 1)
    assert ended.code == 1
    assert re.fullmatch(r"morphem: .*File too large.*", ended.sentence)
    assert {path.name for path in out.rglob("*")} <= {"config.yaml", "run.log", "history.jsonl", "maps"}
    assert not list((out / "maps").glob("*"))


def failed_whole(ended, out: Path) -> None:
    """Exit code 1, one sentence, the checkpoints whole, and nothing half-written."""
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert ended.err.count("morphem: ") == 1
    assert re.fullmatch(r"morphem: .*(No space left on device|File too large).*", ended.sentence)
    assert not list(out.rglob(".*"))
    checkpoints = list((out / "checkpoints").iterdir())
    assert checkpoints
    assert all(load_file(path) for path in checkpoints)
