"""What a fit takes of memory, before it starts.

The counts are those of the arrays that live at once; a test compares them with what a process takes.
"""

from dataclasses import dataclass

import psutil
import torch

from morphem.data.dataset import Dataset
from morphem.errors import InputError
from morphem.inference.gradient import images_at_once
from morphem.inference.settings import LatentSettings, LinearSettings, NetworkSettings
from morphem.models.nets import Convolutions
from morphem.physics.cube import half_ball

LIBRARIES = 50e6
"""What products allocate once."""


@dataclass(frozen=True)
class Footprint:
    """Bytes beside those held before training starts."""

    fixed: float
    per_image: float
    """Of a batch."""

    def of(self, batch: int) -> float:
        return self.fixed + batch * self.per_image

    def largest_batch(self, free: float) -> int:
        """The largest batch that fits into so many bytes."""
        return int(max(0, (free - self.fixed) // self.per_image))


def footprint(box: int, samples: int, settings: NetworkSettings) -> Footprint:
    """Parameters with gradient and two moments; one tile's features and activations; a batch's samples and views."""
    width, layers, features = settings.width, settings.layers, 3 * box
    inputs, view_bytes = _view(box, samples, settings)
    film = 2 * layers * width**2 if getattr(settings, "conditioning", "") == "film" else 0
    parameters = features * width + 2 * layers * width**2 + inputs * width + film
    tile = images_at_once(samples) * samples
    of_points = 2 if settings.refine_poses in ("rotation", "both") else 1
    activations = tile * (12 * features * of_points + 8 * width * (layers + 2))
    return Footprint(LIBRARIES + 16 * parameters + activations, 96 * samples + view_bytes)


def _view(box: int, samples: int, settings: NetworkSettings) -> tuple[int, float]:
    """(numbers that the encoder's first layer takes, bytes an image) of what it sees."""
    kind = getattr(settings, "encoder", None)
    radius = getattr(settings, "encoder_radius", None)
    if kind is None:
        return 0, 0.0
    if kind == "map":
        inputs = 2 * len(half_ball(min(radius or 10, box // 2 - 1)))
        return inputs, 24.0 * inputs
    if kind == "image":
        return 2 * samples, 24.0 * samples
    side = 2 * int(min(radius or 31, box // 2 - 1)) + 2
    stages = enumerate(Convolutions.CHANNELS, start=1)
    return Convolutions.CHANNELS[-1], 12.0 * sum(channels * (side / 2**stage) ** 2 for stage, channels in stages)


def refuse_what_does_not_fit(dataset: Dataset, settings: NetworkSettings) -> None:
    """Errors: InputError, with the largest batch that fits, where training would need more memory than is free."""
    needed = footprint(dataset.box, len(dataset.lattice), settings)
    q = settings.latent_dim if isinstance(settings, LatentSettings) else 0
    tables = 4 * len(dataset) * (6 * q + q * q)
    free = _free(dataset.device) - tables
    if needed.of(settings.batch_size) > free:
        fits = needed.largest_batch(free)
        remedy = f"--batch-size {fits} fits" if fits else "give a smaller --width or --radius, or downsample the images"
        asked = f"--batch-size {settings.batch_size}: training would take {needed.of(settings.batch_size) / 1e9:.1f} GB"
        raise InputError(f"{asked} more, {free / 1e9:.1f} GB are free; {remedy}")


def sums_of(box: int, radius: float, classes: int, features: int) -> float:
    """Bytes of the sums of two half-sets, of a class being solved, and of maps, steps and their transforms."""
    voxels = (2 * radius + 3) ** 2 * (radius + 2)
    channels = 2 * features + features * (features + 1) // 2
    return LIBRARIES + 4 * voxels * channels * (2 * classes + 4) + 4 * 8 * classes * features * box**3


def refuse_sums_that_do_not_fit(dataset: Dataset, settings: LinearSettings) -> None:
    """Errors: InputError where the accumulators of a linear volume would need more memory than is free."""
    classes, dimensions = (getattr(settings, name, None) or 1 for name in ("classes", "latent_dim"))
    needed, free = sums_of(dataset.box, dataset.lattice.radius, classes, dimensions + 1), _free(dataset.device)
    if needed > free:
        asked = f"{classes} classes of {dimensions} dimensions at radius {dataset.lattice.radius:g}"
        raise InputError(
            f"{asked}: the sums would take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; give a smaller --radius"
        )


def _free(device: str) -> float:
    return torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
