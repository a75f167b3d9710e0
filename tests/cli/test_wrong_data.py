"""Data that cannot be fitted: one sentence, exit code 2, nothing left behind, nothing run."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from morphem.io import mrc, star


class Planted:
    """Unpickled as a call that makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def stack(table: Path) -> Path:
    return table.with_name("particles.mrcs")


def pixels(table: Path) -> np.ndarray:
    return np.array(mrc.open_stack(stack(table)).images_nyx)


def with_pixels(table: Path, image_nyx: np.ndarray) -> None:
    count, height, width = image_nyx.shape
    stack(table).write_bytes(header(count, height, width) + image_nyx.astype("<f4").tobytes())


def header(count: int, height: int, width: int) -> bytes:
    numbers = np.zeros(256, "<i4")
    numbers[:4] = width, height, count, 2
    numbers[52] = int.from_bytes(b"MAP ", "little")
    return numbers.tobytes()


def without_columns(table: Path, start: str) -> None:
    blocks = star.read(table)
    kept = {name: block[[c for c in block if not c.startswith(start)]] for name, block in blocks.items()}
    star.write(table, kept)


def truncated_stack(table: Path) -> None:
    stack(table).write_bytes(stack(table).read_bytes()[:-100])


def other_box(table: Path) -> None:
    with_pixels(table, pixels(table)[:, :-2, :-2])


def odd_box(table: Path) -> None:
    with_pixels(table, pixels(table)[:, :-1, :-1])


def oblong_box(table: Path) -> None:
    with_pixels(table, pixels(table)[:, :-2])


def fewer_images(table: Path) -> None:
    with_pixels(table, pixels(table)[:-1])


def nan_pixels(table: Path) -> None:
    image_nyx = pixels(table)
    image_nyx[6, 3, 4] = np.nan
    with_pixels(table, image_nyx)


def constant_image(table: Path) -> None:
    image_nyx = pixels(table)
    image_nyx[6] = 5
    with_pixels(table, image_nyx)


def unknown_columns(table: Path) -> None:
    table.write_text("data_particles\nloop_\n_customFirst #1\n_customSecond #2\n1 2\n")


def a_folder(table: Path) -> None:
    table.unlink()
    table.mkdir()


def endless_link(table: Path) -> None:
    table.unlink()
    table.symlink_to(table)


def no_rows(table: Path) -> None:
    text = table.read_text()
    table.write_text(text[: text.rindex("#")] + "1\n")


def poses(table: Path, value: object) -> list:
    path = table.with_name("poses.pkl")
    path.write_bytes(pickle.dumps(value))
    return ["--poses", path]


def rows(table: Path, row_n: object) -> list:
    np.save(table.with_name("rows.npy"), row_n)
    return ["--ind", table.with_name("rows.npy")]


def not_rows(table: Path) -> list:
    table.with_name("rows.npy").write_bytes(b"1, 2, 3")
    return ["--ind", table.with_name("rows.npy")]


Spoil = Callable[[Path], object]
WRONG: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "missing table": (Path.unlink, ("particles.star: no such file",)),
    "missing stack": (lambda table: stack(table).unlink(), ("particles.mrcs was not found", "--datadir")),
    "truncated stack": (truncated_stack, ("particles.mrcs: ", "but its header claims")),
    "stack of another box": (other_box, ("a box of 30 pixels", "particles.star says 32")),
    "odd box": (odd_box, ("an odd image box of 31 pixels",)),
    "oblong images": (oblong_box, ("32 × 30 pixels",)),
    "fewer images": (fewer_images, ("149 images", "names number 150")),
    "NaN pixels": (nan_pixels, ("constant or not finite in rows 7 (000007@",)),
    "constant image": (constant_image, ("constant or not finite in rows 7 (000007@",)),
    "no poses": (lambda table: without_columns(table, "rlnAngle"), ("no rlnAngleRot", "--poses", "fit abinitio")),
    "no CTF": (lambda table: without_columns(table, "rlnDefocus"), ("no rlnDefocusU", "--no-ctf")),
    "unknown columns only": (unknown_columns, ("no column _rlnImageName",)),
    "no rows": (no_rows, ("no particles in it",)),
    "empty file": (lambda table: table.write_bytes(b""), ("particles.star: an empty file",)),
    "binary file": (lambda table: table.write_bytes(bytes(range(256))), ("particles.star: not a text file",)),
    "stack called .star": (lambda table: table.write_bytes(header(1, 2, 2)), ("particles.star: not a text file",)),
    "a link to itself": (endless_link, ("particles.star: could not be read (Too many levels of symbolic links)",)),
    "a folder": (a_folder, ("particles.star: could not be read (Is a directory)",)),
    "pickle that runs code": (
        lambda table: poses(table, Planted(table.with_name("ran"))),
        ("posix.mkdir found", "nothing in it was run"),
    ),
    "poses of others": (lambda table: poses(table, (np.zeros((9, 3, 3)), np.zeros((9, 2)))), ("(9, 3, 3)", "150")),
    "poses in pixels": (
        lambda table: poses(table, (np.tile(np.eye(3), (150, 1, 1)), np.full((150, 2), 3.0))),
        ("a shift of 3", "fractions of the box"),
    ),
    "poses of numbers": (lambda table: poses(table, 3.5), ("float found", "(150, 3, 3)")),
    "rows out of range": (lambda table: rows(table, [0, 150]), ("rows 0 to 150", "expected 0 to 149")),
    "rows from the end": (lambda table: rows(table, [-1, 3]), ("rows -1 to 3", "expected 0 to 149")),
    "no rows chosen": (lambda table: rows(table, np.zeros(0, int)), ("int64 of shape (0,)", "at least one")),
    "rows that are no numbers": (lambda table: rows(table, ["a"]), ("<U1 of shape (1,)", "expected row numbers")),
    "rows in text": (not_rows, ("rows.npy: holds no whole array",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_65_wrong_data_are_refused(refused, particles, tmp_path, case):
    spoil, phrases = WRONG[case]
    words = spoil(particles)
    words = words if isinstance(words, list) else []
    refused(["fit", "vae", particles, "-o", tmp_path / "out", *words], phrases)


def test_65_images_of_another_program_without_poses_are_refused(refused, fixtures, tmp_path):
    words = ["fit", "vae", fixtures / "empiar_10076_7.star", "-o", tmp_path / "out"]
    refused(words, ("empiar_10076_7.star: no rlnAngleRot, rlnAngleTilt, rlnAnglePsi, expected poses", "--poses"))


@pytest.mark.parametrize("name", ["weights.safetensors", "latents.parquet", "maps/consensus.mrc"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_61_a_run_with_a_truncated_file_is_refused(refused, run, tmp_path, name, share):
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[: int(share * len(whole))])
    refused(["decode", run, "-o", tmp_path / "maps", "--z", "0,0"], (name,))


def test_the_planted_call_works(tmp_path):
    pickle.loads(pickle.dumps(Planted(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_65_an_unreadable_table_is_refused(refused, particles, tmp_path):
    particles.chmod(0)
    refused(["fit", "vae", particles, "-o", tmp_path / "out"], ("could not be read (Permission denied)",))
