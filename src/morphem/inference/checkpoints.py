"""What a run needs to go on exactly where it stopped: safetensors files, the last two kept."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from morphem.errors import InputError
from morphem.io.files import replacing

NAME = re.compile(r"epoch-(\d+)(?:-batch-(\d+))?\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The state after `epoch` whole epochs and `batch` batches of the next; `precision` is the networks' dtype."""

    epoch: int
    batch: int
    precision: str
    state: dict[str, torch.Tensor]

    @property
    def name(self) -> str:
        within = f"-batch-{self.batch:06d}" if self.batch else ""
        return f"epoch-{self.epoch:04d}{within}.safetensors"


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a run's checkpoints."""

    folder: Path

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one, aside and renamed; remove all but the last two."""
        from safetensors.torch import save

        tensors = {name: value.detach().contiguous() for name, value in checkpoint.state.items()}
        with replacing(self.folder / checkpoint.name) as path:
            path.write_bytes(save(tensors, {"precision": checkpoint.precision}))
        for old in self._paths()[:-2]:
            old.unlink()

    def latest(self) -> Checkpoint | None:
        """The last one, or nothing; on the CPU. Errors: InputError where it is not whole."""
        from safetensors import SafetensorError, safe_open

        paths = self._paths()
        if not paths:
            return None
        try:
            with safe_open(paths[-1], "pt") as file:
                precision = file.metadata()["precision"]
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise InputError(
                f"{paths[-1]}: is no whole checkpoint ({error}); remove it to go on from the last"
            ) from error
        return Checkpoint(*_place(paths[-1]), precision, state)

    def _paths(self) -> list[Path]:
        """Oldest first."""
        return sorted((path for path in self.folder.glob("*.safetensors") if NAME.fullmatch(path.name)), key=_place)


def _place(path: Path) -> tuple[int, int]:
    """(epochs, batches of the next one) that a checkpoint's name says."""
    found = NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1]), int(found[2] or 0)
