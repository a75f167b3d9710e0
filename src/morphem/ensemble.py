"""What every run leaves behind: latents with their uncertainty, maps, a decoder z → map, poses, history.

Axes: n images, q latent, z y x maps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morphem import __version__
from morphem.config import from_plain, read_yaml, to_plain, write_yaml
from morphem.data.dataset import Dataset, Source
from morphem.data.latent_table import LatentTable
from morphem.data.particles import Particles
from morphem.errors import InputError
from morphem.io.files import replacing
from morphem.io.mrc import read_map
from morphem.io.reading import sha256
from morphem.run import Run

if TYPE_CHECKING:
    from morphem.inference.kernel import Kernel
    from morphem.models.volume import Volume

CONFIG = "config.yaml"
"""What a run was told; the first thing written, so it marks a run's folder."""
FILES = (CONFIG, "latents.parquet", "particles.star", "weights.safetensors")
"""What a finished run's folder holds at least."""
FILES_OF_ROWS = ("particles", "passthrough", "ind", "poses", "ctf")
"""Options that name files which say something of each image."""
DECODERS = ("model", "kernel")
"""What turns z into a map: the fitted volume, or local regression on the images."""
MAY_CHANGE = {"settings.epochs", "settings.checkpoint_minutes", "version"}
"""Settings that a run may go on with although they differ."""


@dataclass(frozen=True)
class Ensemble:
    """A finished run's folder, opened."""

    folder: Path
    config: dict[str, Any]
    """method, version, seed, source and its sha256, settings, box, pixel_A, radius: config.yaml."""
    z_nq: np.ndarray
    """Posterior mean of every image's latent; no columns where a method has none."""
    uncertainty_nqq: np.ndarray
    """Posterior covariance of z."""
    weight_nc: np.ndarray
    """How probable each class is for each image; one column of ones where a method has no classes."""
    half_n: np.ndarray
    """The half-set of each image, 1 or 2."""

    @classmethod
    def open(cls, folder: Path | str) -> "Ensemble":
        """Open a run's folder. Errors: InputError where it is not one, or the run has not finished."""
        folder = Path(folder)
        for name in FILES:
            if not (folder / name).is_file():
                raise InputError(
                    f"{folder}: is not a finished run (no {name}); give a folder that `morphem fit` finished"
                )
        table = LatentTable.read(folder / "latents.parquet")
        return cls(folder, read_yaml(folder / CONFIG), table.z_nq, table.cov_nqq, table.weight_nc, table.half_n)

    @property
    def method(self) -> str:
        return self.config["method"]

    @property
    def box(self) -> int:
        return self.config["box"]

    @property
    def pixel_A(self) -> float:
        return self.config["pixel_A"]

    @property
    def latent_dim(self) -> int:
        return self.z_nq.shape[1]

    def __len__(self) -> int:
        return len(self.z_nq)

    @cached_property
    def volume(self) -> "Volume":
        """The decoder: the fitted `Volume`."""
        from morphem.models import open_volume

        return open_volume(self.folder / "weights.safetensors")

    @cached_property
    def consensus_zyx(self) -> np.ndarray:
        """The consensus map: all images back-projected into one."""
        return read_map(self.folder / "maps" / "consensus.mrc")[0]

    @cached_property
    def poses(self) -> Particles:
        """The particles with the run's poses, and every column that came in."""
        return Particles.read(self.folder / "particles.star", no_ctf=self.config["source"]["no_ctf"], box=self.box)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of history.jsonl."""
        return Run(self.folder).history()

    def decode(self, z_nq: np.ndarray, decoder: str = "model", box: int | None = None) -> Iterator[np.ndarray]:
        """The maps (z, y, x) at each row of z, one after another, float32 in image units; Fourier-cropped to `box`.

        Errors: InputError where z has another number of columns than the run, or the decoder is not known.
        """
        z_nq = np.array(z_nq, np.float32, ndmin=2)
        if z_nq.shape[1] != self.latent_dim:
            raise InputError(f"{self.folder}: z has {z_nq.shape[1]} numbers, the run's latent has {self.latent_dim}")
        if decoder not in DECODERS:
            raise InputError(f"--decoder {decoder}: is not known; expected {' or '.join(DECODERS)}")
        if box is not None and (box % 2 or not 2 <= box <= self.box):
            raise InputError(f"--map-box {box}: expected an even number of pixels, 2 to {self.box}")
        if decoder == "kernel":
            return (state.within(box).map_zyx for state in self.kernel.states(z_nq))
        return (self._map(z_q, box) for z_q in z_nq)

    def _map(self, z_q: np.ndarray, box: int | None) -> np.ndarray:
        import torch

        with torch.inference_mode():
            device = next(self.volume.buffers()).device
            return self.volume.maps(torch.from_numpy(z_q[None]).to(device), box)[0].cpu().numpy()

    @cached_property
    def kernel(self) -> "Kernel":
        """The other decoder: local regression of maps on the run's images, at the run's poses.

        Errors: InputError for a run without latents, or one whose images are not there any more.
        """
        from morphem.inference import kernel
        from morphem.inference.neighbours import Latents

        if not self.latent_dim:
            raise InputError(f"{self.folder}: has no latents to regress maps on; --decoder model decodes it")
        latents, mask_zyx = Latents(self.z_nq, self.uncertainty_nqq), self.volume.mask_zyx
        mask = mask_zyx.cpu().numpy() if mask_zyx.ndim else None
        return kernel.decoder(self.refined_dataset(), latents, self.half_n, self.consensus_zyx, mask)

    def refined_dataset(self) -> Dataset:
        """The images at the poses that the run left, on the device of its volume."""
        poses, dataset = self.poses, self.dataset()
        particles = dataset.particles.with_poses(poses.rotation_n33, poses.shift_A_n2)
        return replace(dataset, particles=particles, device=next(self.volume.buffers()).device.type)

    def dataset(self, radius: float | None = None) -> Dataset:
        """The images of the run, reopened from the stored paths; their poses are those that came in, if any did."""
        source = from_plain(Source, self.config["source"], f"{self.folder}/config.yaml")
        return Dataset.open(source, radius or self.config["radius"], require_poses=False)


def begin(run: Run, dataset: Dataset, method: str, settings: Any) -> None:
    """Make the run's folder and say in config.yaml what is to come.

    Errors: InputError where a run is to go on with other settings than it began with, listing them.
    """
    description = describe(run, dataset, method, settings)
    if run.resume and (run.folder / CONFIG).exists():
        _refuse_changes(run.folder / CONFIG, description)
        done = max((line.get("epoch", 0) for line in run.history()), default=0)
        if getattr(settings, "epochs", done) < done:
            raise InputError(f"--epochs {settings.epochs}: the run has done {done}; give that many or more")
    with replacing(run.folder / CONFIG) as path:
        write_yaml(path, description)


def _refuse_changes(path: Path, description: dict[str, Any]) -> None:
    """The number of epochs may change; nothing else."""
    then, now = _flat(read_yaml(path)), _flat(description)
    changed = sorted(key for key in then.keys() - MAY_CHANGE if then[key] != now.get(key))
    if "method" in changed:
        changed = ["method"]
    if changed:
        found = "; ".join(f"{key} was {then.get(key)!r}, is {now.get(key)!r}" for key in changed)
        raise InputError(
            f"{path}: belongs to a run with other settings ({found}); give the same, or --overwrite to start anew"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def save(
    run: Run,
    dataset: Dataset,
    references: dict[str, str],
    volume: "Volume",
    z_nq: np.ndarray,
    uncertainty_nqq: np.ndarray,
    weight_nc: np.ndarray | None = None,
) -> Ensemble:
    """Write what a run leaves, each file aside and then renamed, and open it.

    `references`: BibTeX key -> entry. `weight_nc`: how probable each class is for each image, where a method has any.
    """
    from morphem.models import save_volume

    folder, half_n = run.folder, np.ones(len(dataset), np.int8)
    half_n[dataset.halves(run.seed)[1]] = 2
    weight_nc = np.ones((len(dataset), 1), np.float32) if weight_nc is None else weight_nc
    with replacing(folder / "weights.safetensors") as path:
        save_volume(path, volume)
    with replacing(folder / "latents.parquet") as path:
        LatentTable(z_nq, uncertainty_nqq, weight_nc, half_n).write(path)
    cite(folder, references)
    dataset.particles.write(folder / "particles.star", {f"morphemZ{i}": column for i, column in enumerate(z_nq.T)})
    return Ensemble.open(folder)


def cite(folder: Path, references: dict[str, str]) -> None:
    """Write citations.bib."""
    with replacing(folder / "citations.bib") as path:
        path.write_text("\n".join(references.values()))


def describe(run: Run, dataset: Dataset, method: str, settings: Any) -> dict[str, Any]:
    """config.yaml: all that is needed to run again, and to reopen the images."""
    source, told = _with_absolute_paths(dataset.source), _with_absolute_paths(settings)
    return {
        "method": method,
        "version": __version__,
        "seed": run.seed,
        "source": source,
        "sha256": fingerprints(source) | {n: sha256(v, n) for n, v in vars(settings).items() if isinstance(v, Path)},
        "settings": told,
        "images": len(dataset),
        "box": dataset.box,
        "pixel_A": dataset.pixel_A,
        "radius": float(dataset.lattice.radius),
    }


def fingerprints(source: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of each file that says which images these are; stacks of images are left out."""
    files = {name: source[name] for name in FILES_OF_ROWS if source[name]}
    return {name: sha256(file, name) for name, file in files.items() if Path(file).suffix not in (".mrcs", ".mrc")}


def _with_absolute_paths(settings: Any) -> dict[str, Any]:
    """A dataclass as plain values; its paths hold wherever the run is taken up again."""
    paths = {name: str(value.absolute()) for name, value in vars(settings).items() if isinstance(value, Path)}
    return to_plain(settings) | paths
