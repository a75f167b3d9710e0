"""Whole files only: written to a temporary name beside the target, then renamed."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from morphem.errors import InputError, RunError


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it takes the target's name, on failure it goes.

    Errors: RunError, in one sentence, when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        os.replace(aside, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside the target; on success it takes the target's place, on failure it goes.

    Errors: RunError, in one sentence, when the disk is full or the folder cannot be written.
    """
    folder = Path(folder).absolute()
    aside, former = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("part", "former"))
    try:
        aside.mkdir(parents=True)
        yield aside
        if folder.exists():
            folder.rename(former)
        aside.rename(folder)
    except OSError as error:
        raise _not_written(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if former.exists() and not folder.exists():
            former.rename(folder)
        shutil.rmtree(former, ignore_errors=True)


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield an empty folder inside the target, made where there is none; what it holds at the end is the caller's to
    move. A failure leaves nothing, not even a target that was not there.

    Errors: RunError, in one sentence, when the disk is full or the folder cannot be written.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".filling", dir=folder) as aside:
            yield Path(aside)
    except OSError as error:
        raise _not_written(folder, error) from error
    finally:
        with contextlib.suppress(OSError):  # a folder that holds something stays
            if new:
                folder.rmdir()


def _not_written(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path}: could not be written ({error.strerror or error}); free some space or choose another folder"
    )


def refuse_file(folder: Path) -> None:
    """Errors: InputError where a folder is to be written but it, or one above it, is a file."""
    file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
    if file:
        raise InputError(f"{file}: is a file; give a folder")
