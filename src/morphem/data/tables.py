"""What a particle table says, completed by options and cryoDRGN's pickles.

Options and pickles become columns, so that afterwards the table alone speaks. Axes: n particles.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from morphem.config import read_yaml
from morphem.data import cryodrgn
from morphem.data.cryosparc import CsTable
from morphem.data.relion import StarTable
from morphem.errors import InputError
from morphem.io import star
from morphem.io.mrc import open_stack
from morphem.io.reading import reading
from morphem.physics.ctf import CtfParameters

Table = StarTable | CsTable
SAME = 1e-3  # relative: who types 1.06 means the table's 1.0593
DEFAULTS = {"phase_shift_rad_n": 0.0, "scale_n": 1.0, "b_factor_A2_n": 0.0}


def open_table(path: Path, passthrough: Path | str | None) -> Table:
    """The table at `path`. Errors: as `any_table`; InputError for a tilt series or premultiplied images too."""
    table = any_table(path, passthrough)
    for complaint in table.other_images():
        raise InputError(complaint)
    return table


def any_table(path: Path, passthrough: Path | str | None) -> Table:
    """The table at `path`, or one that only names the images of a stack or of a list of stacks. Errors: InputError."""
    if path.suffix == ".star":
        table = StarTable.read(path)
    elif path.suffix == ".cs":
        table = CsTable.read(path, passthrough)
    elif path.suffix in (".mrcs", ".mrc", ".txt"):
        table = _bare_images(path)
    else:
        raise InputError(f'{path}: ends in "{path.suffix}", expected .star, .cs, .mrcs, .mrc or .txt; give such a file')
    if not len(table):
        raise InputError(f"{path}: no particles in it, expected at least one; select again")
    return table


def find_stacks(table: Table, datadir: Path | str | None) -> tuple[tuple[Path, ...], np.ndarray, np.ndarray]:
    """(stacks, stack_n, slice_n): each stack where it was found, else by its name. Errors: InputError."""
    if datadir is not None and not Path(datadir).is_dir():
        raise InputError(f"{datadir}: no such folder; give the folder that the image names start from")
    names, slice_n = table.images()
    stack_n, distinct = pd.factorize(np.array(names, dtype=object))
    here = table.path.absolute().parent
    folders = [*_of_run(here), here, *here.parents, Path()]
    return tuple(_find(Path(name), folders, datadir) for name in distinct), stack_n, slice_n


def _of_run(folder: Path) -> list[Path]:
    """Where names in a run's own table start from: where they did in the table that the run was given."""
    config = folder / "config.yaml"
    source = read_yaml(config).get("source") if config.is_file() else None
    if not isinstance(source, dict) or not source.get("particles"):
        return []
    home = Path(source["particles"]).parent
    return [*map(Path, filter(None, [source.get("datadir")])), home, *home.parents]


def add_box(table: Table, given: int, by: str) -> Table:
    """The table with a box where it had none. Errors: InputError where it has another."""
    found = table.box_n()
    _refuse_contradiction(table.path, "a box", found, by, given)
    return table if found is not None else table.with_columns(table.box_columns(given))


def add_pixel(table: Table, given: float | np.ndarray, by: str) -> Table:
    """The table with a pixel size in Å where it had none. Errors: InputError where it has another."""
    found = table.pixel_A_n()
    _refuse_contradiction(table.path, "a pixel size", found, by, given)
    return table if found is not None else table.with_columns({table.PIXEL: np.broadcast_to(given, len(table))})


def add_amplitude_contrast(table: Table, given: float, by: str) -> Table:
    """The table with an amplitude contrast where it had none. Errors: InputError where it has another."""
    name, _ = table.CTF["amplitude_contrast_n"]
    found = table.number(name)
    _refuse_contradiction(table.path, "an amplitude contrast", found, by, given)
    return table if found is not None else table.with_columns({name: np.full(len(table), given)})


def add_ctf(table: Table, path: Path | str) -> Table:
    """The table with the columns of a ctf.pkl, and with its box and pixel size where it had none."""
    sides = _absent_as_empty(table.box_n())
    ctf, pixel_A_n, box = cryodrgn.read_ctf(path, len(table), int(sides[0]) if len(sides) else None)
    columns = {table.CTF[field][0]: values / table.CTF[field][1] for field, values in ctf.items()}
    return add_pixel(add_box(table.with_columns(columns), box, str(path)), pixel_A_n, str(path))


def add_poses(table: Table, path: Path | str) -> Table:
    """The table with the columns of a pose.pkl: t_Å = t · box · pixel."""
    rotation_n33, shift_n2 = cryodrgn.read_poses(path, len(table))
    pixel_A_n = pixel_A_of(table)
    return table.with_columns(
        table.pose_columns(rotation_n33, shift_n2 * box_of(table) * pixel_A_n[:, None], pixel_A_n)
    )


def add_options(
    table: Table,
    stack: Path,
    ctf: Path | str | None,
    pixel_A: float | None,
    box: int | None,
    amplitude_contrast: float | None,
) -> tuple[Table, list[str]]:
    """(the table with what it lacked, notices). The stack's box goes before the option's, its pixel size comes last."""
    for add in completions(stack, ctf, pixel_A, box, amplitude_contrast):
        table = add(table)
    return add_pixel_of_stack(table, stack)


def completions(
    stack: Path | None, ctf: Path | str | None, pixel_A: float | None, box: int | None, amplitude_contrast: float | None
) -> Iterator[Callable[[Table], Table]]:
    """What to do to a table, one after the other, so that it says what the stack and the options say."""
    yield lambda table: add_box_of_stack(table, stack)
    if box is not None:
        yield lambda table: add_box(table, box, "--box")
    if pixel_A is not None:
        yield lambda table: add_pixel(table, pixel_A, "--pixel-size")
    if ctf is not None:
        yield lambda table: add_ctf(table, ctf)
    if amplitude_contrast is not None:
        yield lambda table: add_amplitude_contrast(table, amplitude_contrast, "--amplitude-contrast")


def add_box_of_stack(table: Table, stack: Path | None) -> Table:
    """The table with the box of its first stack, where it had none and the stack is there."""
    if table.box_n() is not None or stack is None or not stack.exists():
        return table
    return add_box(table, open_stack(stack).images_nyx.shape[2], str(stack))


def add_pixel_of_stack(table: Table, stack: Path | None) -> tuple[Table, list[str]]:
    """(the table with the pixel size in its first stack's header, where nothing else told; a notice that says so)."""
    if table.pixel_A_n() is not None or stack is None or not stack.exists():
        return table, []
    pixel_A = open_stack(stack).pixel_A
    if pixel_A <= 0:
        return table, []
    return add_pixel(table, pixel_A, str(stack)), [f"pixel size {pixel_A:g} Å taken from {stack}"]


def box_of(table: Table) -> int:
    """The one box of all images. Errors: InputError for none or several."""
    sides = np.unique(_absent_as_empty(table.box_n()))
    if len(sides) > 1:
        raise InputError(f"{table.path}: images of {sides[0]:g} and {sides[-1]:g} pixels, expected one box; select one")
    if not len(sides):
        raise InputError(f"{table.path}: no image size in it, and no stack found to tell; give --box or --datadir")
    return int(sides[0])


def pixel_A_of(table: Table) -> np.ndarray:
    """Å per pixel, per row. Errors: InputError for none, or one that is not positive."""
    pixel_A_n = _absent_as_empty(table.pixel_A_n())
    if not len(pixel_A_n) or pixel_A_n.min() <= 0:
        found = f"a pixel size of {pixel_A_n.min():g} Å" if len(pixel_A_n) else "no pixel size"
        raise InputError(f"{table.path}: {found}, expected Å per pixel; give --pixel-size or correct the table")
    return pixel_A_n


def ctf_of(table: Table) -> tuple[CtfParameters, list[str]]:
    """(CTF, a notice where the phase shift is absent: taken as 0). Errors: InputError naming absent columns."""
    refuse_absent_ctf(table)
    columns = {field: table.number(name) for field, (name, _) in table.CTF.items()}
    values = {
        field: np.full(len(table), DEFAULTS[field]) if column is None else column * table.CTF[field][1]
        for field, column in columns.items()
    }
    return CtfParameters(**values), taken_as_0(table)


def absent_ctf(table: Table) -> list[str]:
    """The columns of the CTF that are absent and have no default."""
    return [name for field, (name, _) in table.CTF.items() if field not in DEFAULTS and not table.has(name)]


def refuse_absent_ctf(table: Table) -> None:
    """Errors: InputError naming them."""
    absent = absent_ctf(table)
    if absent:
        option = "--amplitude-contrast" if absent == [table.CTF["amplitude_contrast_n"][0]] else "--ctf"
        raise InputError(f"{table.path}: no {', '.join(absent)}, expected a CTF; give {option}, or --no-ctf for none")


def taken_as_0(table: Table) -> list[str]:
    """A notice where the phase shift is absent."""
    name, _ = table.CTF["phase_shift_rad_n"]
    return [] if table.has(name) else [f"no {name}: taken as 0"]


def poses_of(table: Table, pixel_A_n: np.ndarray, require: bool) -> tuple[np.ndarray, np.ndarray]:
    """(rotation_n33, shift_A_n2); not numbers where there are none and none are required. Errors: InputError."""
    poses = table.poses(pixel_A_n)
    if poses is None and require:
        missing = ", ".join(table.POSES)
        raise InputError(
            f"{table.path}: no {missing}, expected poses; give --poses, or find them with `morphem fit abinitio`"
        )
    return poses or (np.full((len(table), 3, 3), np.nan), np.full((len(table), 2), np.nan))


def halves_of(table: Table) -> np.ndarray:
    """Half-set 1 or 2 per row, 0 where unknown; int8."""
    half_n = table.half_n()
    if half_n is None:
        return np.zeros(len(table), dtype=np.int8)
    return np.where(np.isin(half_n, (1, 2)), half_n, 0).astype(np.int8)


def not_applied(table: Table) -> list[str]:
    """One notice that names the columns of optical corrections this program does not make, where any is not idle."""
    names = table.corrections()
    return [f"not corrected for: {', '.join(names)}"] if names else []


def _absent_as_empty(column: np.ndarray | None) -> np.ndarray:
    return np.empty(0) if column is None else column


def _refuse_contradiction(path: Path, what: str, found: np.ndarray | None, by: str, given: float | np.ndarray) -> None:
    if found is None:
        return
    differs = np.flatnonzero(~np.isclose(given, found, rtol=SAME, atol=0))
    if len(differs):
        row = differs[0]
        shown = np.broadcast_to(given, found.shape)[row]
        raise InputError(f"{path}: {what} of {found[row]:g} in row {row + 1}, but {by} says {shown:g}; correct either")


def _bare_images(path: Path) -> StarTable:
    """A table of image names alone: all slices of a stack, or of the stacks that a text lists one a line."""
    stacks = [path.absolute()]
    if path.suffix == ".txt":
        with reading(path, "a list of stacks"):
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        stacks = [_find(Path(line), [path.absolute().parent, Path()]) for line in lines if line]
    names = [f"{i + 1}@{stack}" for stack in stacks for i in range(len(open_stack(stack).images_nyx))]
    rows = pd.DataFrame({"rlnImageName": star.tokens(names)}, dtype=str)
    return StarTable(path, {"particles": rows}, "particles")


def _find(name: Path, folders: list[Path], datadir: Path | str | None = None) -> Path:
    """The first that exists of: the name in `datadir`, its last part there, the name in each folder; else the first."""
    candidates = [folder / name for folder in folders]
    if datadir is not None:
        candidates = [Path(datadir) / name, Path(datadir) / name.name, *candidates]
    return next((path for path in candidates if path.exists()), candidates[0])
