"""What a run needs to go on exactly where it stopped: one safetensors file an epoch, the last two kept."""

from dataclasses import dataclass
from pathlib import Path

import torch

from morphem.errors import InputError
from morphem.io.files import replacing


@dataclass(frozen=True)
class Checkpoint:
    """The state after an epoch; `precision` is the dtype that the networks compute in."""

    epoch: int
    precision: str
    state: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a run's checkpoints."""

    folder: Path

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one, aside and renamed; remove all but the last two."""
        from safetensors.torch import save

        tensors = {name: value.detach().contiguous() for name, value in checkpoint.state.items()}
        with replacing(self.folder / f"epoch-{checkpoint.epoch:04d}.safetensors") as path:
            path.write_bytes(save(tensors, {"epoch": str(checkpoint.epoch), "precision": checkpoint.precision}))
        for old in self._paths()[:-2]:
            old.unlink()

    def latest(self) -> Checkpoint | None:
        """The last one, or nothing. Errors: InputError where it is not whole."""
        from safetensors import SafetensorError, safe_open

        paths = self._paths()
        if not paths:
            return None
        try:
            with safe_open(paths[-1], "pt") as file:
                metadata = file.metadata()
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Checkpoint(int(metadata["epoch"]), metadata["precision"], state)
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise InputError(
                f"{paths[-1]}: is no whole checkpoint ({error}); remove it to go on from the last"
            ) from error

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.safetensors"), key=lambda path: int(path.stem.split("-")[1]))
