"""Volumes and how they become images. A volume joins `VOLUMES` and is saved, opened and tested like every other."""

import json
from pathlib import Path

from morphem.errors import InputError
from morphem.models.field import FieldVolume
from morphem.models.volume import LinearVolume, Volume

VOLUMES: dict[str, type[Volume]] = {"field": FieldVolume, "linear": LinearVolume}


def save_volume(path: Path, volume: Volume) -> None:
    """Weights as safetensors; the volume's kind and settings in its metadata."""
    from safetensors.torch import save

    kind = next(name for name, cls in VOLUMES.items() if type(volume) is cls)
    made_from = json.dumps({"volume": kind, "settings": volume.settings()})  # one entry: their order is not kept
    tensors = {name: value.contiguous() for name, value in volume.state_dict().items()}
    path.write_bytes(save(tensors, {"morphem": made_from}))


def open_volume(path: Path) -> Volume:
    """The volume that `save_volume` wrote, on the CPU."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            made_from = json.loads(file.metadata()["morphem"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        volume = VOLUMES[made_from["volume"]](**made_from["settings"])
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: holds no volume of this program ({error}); give a file that `morphem fit` wrote"
        ) from error
    volume.mask_zyx = state["mask_zyx"]
    volume.load_state_dict(state)
    return volume.eval()
