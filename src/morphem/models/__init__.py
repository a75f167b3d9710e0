"""Volumes and how they become images. A volume joins `VOLUMES` and is saved, opened and tested like every other."""

import json
from pathlib import Path

from morphem.errors import InputError
from morphem.models.field import FieldVolume
from morphem.models.volume import LinearVolume, Volume

VOLUMES: dict[str, type[Volume]] = {"field": FieldVolume, "linear": LinearVolume}


def save_volume(path: Path, volume: Volume) -> None:
    """Weights as safetensors; the volume's kind and settings in its metadata."""
    from safetensors.torch import save_file

    kind = next(name for name, cls in VOLUMES.items() if type(volume) is cls)
    metadata = {"volume": kind, "settings": json.dumps(volume.settings())}
    save_file({name: value.contiguous() for name, value in volume.state_dict().items()}, path, metadata)


def open_volume(path: Path) -> Volume:
    """The volume that `save_volume` wrote, on the CPU."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        volume = VOLUMES[metadata["volume"]](**json.loads(metadata["settings"]))
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: holds no volume of this program ({error}); give a file that `morphem fit` wrote"
        ) from error
    volume.load_state_dict(state)
    return volume.eval()
