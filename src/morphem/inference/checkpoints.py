"""What a run needs to go on exactly where it stopped: one safetensors file an epoch, the last two kept."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from morphem.errors import InputError
from morphem.io.files import replacing


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a run's checkpoints; `config` says which run they belong to."""

    folder: Path
    config: dict[str, Any]

    def save(self, epoch: int, state: dict[str, torch.Tensor]) -> None:
        """Write epoch `epoch`, written aside and renamed; remove all but the last two."""
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / f"epoch-{epoch:04d}.safetensors") as path:
            tensors = {name: value.detach().contiguous() for name, value in state.items()}
            save_file(tensors, path, {"epoch": str(epoch), "config": json.dumps(self.config)})
        for old in sorted(self.folder.glob("epoch-*.safetensors"))[:-2]:
            old.unlink()

    def latest(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        """The last epoch and its state, or nothing.

        Errors: InputError where the settings have changed, listing them.
        """
        from safetensors import safe_open

        paths = [p for p in sorted(self.folder.glob("epoch-*.safetensors")) if re.fullmatch(r"epoch-\d+", p.stem)]
        if not paths:
            return None
        with safe_open(paths[-1], "pt") as file:
            metadata = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _refuse_changes(paths[-1], json.loads(metadata["config"]), self.config)
        return int(metadata["epoch"]), state


def _refuse_changes(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """More epochs may be asked for; nothing else may change."""
    old, new = _flat(then), _flat(json.loads(json.dumps(now)))
    free = {"settings.epochs", "version"}
    changed = sorted(key for key in (old | new).keys() - free if old.get(key) != new.get(key))
    if changed:
        found = "; ".join(f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in changed)
        raise InputError(
            f"{path}: belongs to a run with other settings ({found}); give the same, or --overwrite to start anew"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
