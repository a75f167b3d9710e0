"""Maps decoded at chosen states, written whole or not at all: of a run, or of another program's latents.

Axes: m maps, q latent, h half maps, z y x.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from morphem.analysis.maps import camera_of, chimerax_script, decoded
from morphem.analysis.pictures import Camera
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.inference.clusters import map_name
from morphem.inference.consensus import Consensus
from morphem.inference.kernel import Kernel, State
from morphem.io.files import filling
from morphem.io.mrc import write_map
from morphem.physics.local import Cells
from morphem.run import tracked

WRITTEN = re.compile(r"map_\d{3,}(_half[12]|_resolution|_images)?\.mrc|states\.csv")
"""Files of an earlier decoding."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One map; where there are any its half maps, what is known of it, and maps of what is known place by place."""

    map_zyx: np.ndarray
    half_hzyx: Iterable[np.ndarray] = ()
    facts: dict[str, float] = field(default_factory=dict)
    local: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, state: State, pixel_A: float, box: int | None) -> "Frame":
        """A kernel's map: images is the effective number of images, h the bandwidth, of each band of shells."""
        cells, cropped = Cells.of(len(state.map_zyx)), state.within(box)
        facts = {"resolution_A": state.resolution_A(pixel_A)}
        for name, value_buvw in (("images", state.images_buvw), ("h", state.bandwidth_buvw)):
            of_band = enumerate(state.of_bands(value_buvw))
            facts |= {f"{name}_at_{1 / cells.frequency(b, pixel_A):.3g}_A": float(value) for b, value in of_band}
        return cls(cropped.map_zyx, cropped.half_hzyx, facts, state.local(pixel_A, box))


def decode_series(
    ensemble: Ensemble,
    z_mq: np.ndarray,
    folder: Path,
    decoder: str,
    overwrite: bool,
    box: int | None = None,
    known: Sequence[dict[str, float]] = (),
) -> None:
    """A run's maps, by its model or by the kernel. Errors: InputError, as `write_series`."""
    level, pixel_A = camera_of(ensemble).level, ensemble.pixel_A
    if decoder == "kernel":
        refuse_maps(folder, overwrite)
        ensemble.decode(z_mq, decoder, box)  # refuses what the kernel cannot decode
        frames = kernel_frames(ensemble.kernel, z_mq, box)
    else:
        frames = map(Frame, decoded(ensemble, z_mq, decoder, box))
    write_frames(folder, frames, z_mq, level, pixel_A * ensemble.box / (box or ensemble.box), overwrite, known)


def decode_others(
    kernel: Kernel,
    consensus: Consensus,
    z_mq: np.ndarray,
    folder: Path,
    overwrite: bool,
    box: int | None = None,
    known: Sequence[dict[str, float]] = (),
) -> None:
    """Maps at another program's latents. Errors: InputError, as `write_series`."""
    dataset, q = kernel.dataset, kernel.latents.z_nq.shape[1]
    if z_mq.shape[1] != q:
        raise InputError(f"z has {z_mq.shape[1]} numbers, the latents have {q}; give as many")
    if box is not None and (box % 2 or not 2 <= box <= dataset.box):
        raise InputError(f"--map-box {box}: expected an even number of pixels, 2 to {dataset.box}")
    level = Camera.of(consensus.map_zyx, consensus.mask_zyx).level
    pixel_A = dataset.pixel_A * dataset.box / (box or dataset.box)
    write_frames(folder, kernel_frames(kernel, z_mq, box), z_mq, level, pixel_A, overwrite, known)


def kernel_frames(kernel: Kernel, z_mq: np.ndarray, box: int | None) -> Iterator[Frame]:
    """The maps at each row of z, with progress."""
    states = tracked(kernel.states(z_mq), len(z_mq), "Decoding", "maps")
    return (Frame.of(state, kernel.dataset.pixel_A, box) for state in states)


def refuse_maps(folder: Path, overwrite: bool) -> list[Path]:
    """What is to be replaced. Errors: InputError where the folder holds maps and `overwrite` is not set."""
    former = sorted(path for path in folder.glob("*") if WRITTEN.fullmatch(path.name))
    if former and not overwrite:
        raise InputError(f"{folder}: holds maps already ({former[0].name}); give another folder or --overwrite")
    return former


def write_frames(
    folder: Path,
    frames: Iterable[Frame],
    z_mq: np.ndarray,
    level: float,
    pixel_A: float,
    overwrite: bool,
    known: Sequence[dict[str, float]] = (),
) -> None:
    """map_001.mrc …, z.csv and maps.cxc, all or none of them; of a kernel also map_001_half1.mrc …,
    map_001_resolution.mrc … and map_001_images.mrc …; states.csv with what is known of each map before it is decoded
    and after.

    Errors: InputError where the folder holds maps and `overwrite` is not set.
    """
    former, rows, names = refuse_maps(folder, overwrite), [], []
    with filling(folder) as aside:
        for number, frame in enumerate(frames, start=1):
            names.append(map_name(number))
            write_map(aside / names[-1], frame.map_zyx, pixel_A)
            halves = {f"half{half}": half_zyx for half, half_zyx in enumerate(frame.half_hzyx, start=1)}
            for name, beside_zyx in (halves | frame.local).items():
                write_map(aside / names[-1].replace(".mrc", f"_{name}.mrc"), beside_zyx, pixel_A)
            rows.append({"map": number, **(known[number - 1] if known else {}), **frame.facts})
        (aside / "maps.cxc").write_text(chimerax_script(names, level, playing=True))
        np.savetxt(aside / "z.csv", z_mq, delimiter=",", fmt="%.7g")
        if any(len(row) > 1 for row in rows):
            pd.DataFrame(rows).to_csv(aside / "states.csv", index=False, float_format="%.5g")
        for path in former:
            path.unlink()
        for path in aside.iterdir():
            path.replace(folder / path.name)
