"""Use as an External job of RELION: its words, what it looks for in the job's folder, and its way to abort.

RELION 3.1 to 5 call, in the project's folder,

    EXECUTABLE --o External/job012/ --in_parts Refine3D/job010/run_data.star --label value … --j 4

and expect in the job's folder an empty file that says how the job ended and a table of what it made. A job goes on
("Continue" in RELION) by the same call.
"""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from morphem.errors import InputError

OURS = {"--o": "--output", "--in_parts": "--particles", "--in_mask": "--mask", "--j": "--threads"}
"""RELION's word -> ours, with the same value."""
AGAIN = "--pipeline_control"
"""The job's folder once more."""
REFUSED = {
    "--in_3dref": "a 3D reference is not used, maps start from the particles; leave RELION's Input 3D reference empty",
    "--in_coords": "coordinates are not used; leave RELION's Input coordinates empty and give Input particles",
    "--in_movies": "movies are not read; leave RELION's Input movies empty and give Input particles",
    "--in_mics": "micrographs are not read; leave RELION's Input micrographs empty and give Input particles",
}
TYPES = ("rlnPipeLineNodeType", "rlnPipeLineNodeTypeLabel", "rlnPipeLineNodeTypeLabel")
"""What RELION 3.1, 4 and 5 call the column of a file's type."""
EXIT = "RELION_JOB_EXIT_"
ABORT = "RELION_JOB_ABORT_NOW"
NODES = "RELION_OUTPUT_NODES.star"
OUTPUTS = {
    "particles.star": ("3", "ParticlesData.star.relion", "ParticleGroupMetadata.star.relion"),
    "maps/consensus.mrc": ("6", "DensityMap.mrc", "DensityMap.mrc"),
    "maps/consensus_half1_unfil.mrc": ("10", "DensityMap.mrc.halfmap", "DensityMap.mrc.halfmap"),
    "maps/mask.mrc": ("7", "Mask3D.mrc", "Mask3D.mrc"),
}
"""File of a run -> its type in RELION 3.1, 4 and 5. Of two half-maps one is listed: RELION finds the other by name."""


def folder_of(words: list[str]) -> Path | None:
    """The job's folder, where RELION calls."""
    fits = words[:1] in (["fit"], ["backproject"])
    given = words[words.index("--o") + 1 :] if fits and "--o" in words else []
    return Path(given[0]) if given else None


def translate(words: list[str]) -> list[str]:
    """RELION's words in ours; a folder that holds a run is resumed.

    Errors: InputError where RELION was given an input that nothing is done with.
    """
    folder = folder_of(words)
    if folder is None:
        return words
    for word in words:
        if word in REFUSED:
            raise InputError(f"{word}: {REFUSED[word]}")
    from morphem.ensemble import CONFIG

    goes_on = (folder / CONFIG).exists() and not {"--overwrite", "--resume"} & set(words)
    return [*_ours(words), *["--resume"] * goes_on]


def _ours(words: list[str]) -> Iterator[str]:
    following = iter(words)
    for word in following:
        if word == AGAIN:
            next(following, None)
        else:
            yield OURS.get(word, word)


def made(folder: Path) -> bool:
    """Whether RELION made this folder for a job, and so keeps files of its own in it."""
    return any((folder / name).exists() for name in ("job.star", "run.job", "job_pipeline.star", NODES))


@contextlib.contextmanager
def reporting(words: list[str]) -> Iterator[None]:
    """Where RELION calls, tell it how the command ended and what it made, and stop when RELION asks for it."""
    folder = folder_of(words)
    if folder is None:
        yield
        return
    _forget(folder)
    status = "FAILURE"
    try:
        with _abortable(folder):
            yield
    except SystemExit as end:
        if not end.code:
            _list_outputs(folder)
            status = "SUCCESS"
        raise
    except KeyboardInterrupt:
        status = "ABORTED"
        raise
    else:
        _list_outputs(folder)
        status = "SUCCESS"
    finally:
        if folder.is_dir():
            (folder / f"{EXIT}{status}").touch()


def _forget(folder: Path) -> None:
    """Take away what an earlier run of the job said of its end."""
    for path in (*folder.glob(f"{EXIT}*"), *folder.glob(ABORT)):
        path.unlink()


@contextlib.contextmanager
def _abortable(folder: Path) -> Iterator[None]:
    """Look each second whether RELION wants the job to stop."""
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(folder / ABORT, ended), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(abort: Path, ended: threading.Event) -> None:
    """A run stops on SIGTERM and keeps its last checkpoint."""
    while not ended.wait(1):
        if abort.exists():
            abort.unlink()
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _list_outputs(folder: Path) -> None:
    """The table of what the job made, under names that start from the project's folder."""
    import pandas as pd

    from morphem.io import star

    release = _release(folder)
    listed = [(str(folder / name), types[release]) for name, types in OUTPUTS.items() if (folder / name).exists()]
    table = pd.DataFrame(listed, columns=["rlnPipeLineNodeName", TYPES[release]])
    star.write(folder / NODES, {"output_nodes": table})


def _release(folder: Path) -> int:
    """Whose types to write, by RELION's own table of the job: 0 for 3.1 (numbers), 1 for 4, 2 for 5."""
    pipelines = [folder / name for name in ("job_pipeline.star", "default_pipeline.star")]
    text = next((path.read_text(errors="replace") for path in pipelines if path.is_file()), "")
    if re.search(r"_rlnPipeLineNodeType\b", text):
        return 0
    return 1 if " ParticlesData.star" in text else 2
