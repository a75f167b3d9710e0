"""One map as a coordinate network from a point of Fourier space to the map's transform there.

Assumes that nothing moves, and poses that are known, or nearly. Minimises Σ_k |X̃ − X̂|² (Zhong et al., Nat. Methods 18,
176 (2021), without the latent). Two more networks, each fitted to a half-set, give the resolution.
"""

from dataclasses import dataclass

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.ensemble import Ensemble, save
from morphem.inference.consensus import Consensus, start
from morphem.inference.esteps import EStep, Known
from morphem.inference.poses import with_refinement
from morphem.inference.settings import NetworkSettings
from morphem.inference.sweep import infer
from morphem.inference.training import train
from morphem.io.mrc import write_map
from morphem.methods import vae
from morphem.models.field import FieldVolume
from morphem.models.image_model import ImageModel
from morphem.physics.fsc import half_map_fsc, write_fsc_star
from morphem.run import Run

REFERENCES = vae.REFERENCES


@dataclass(frozen=True, kw_only=True)
class Config(NetworkSettings):
    """One map from all images, as a network."""

    halves: bool = True
    """Fit half-sets too, for the FSC; takes twice the time."""


def fit(dataset: Dataset, config: Config, run: Run) -> Ensemble:
    """Consensus for the noise and the amplitude of every shell, then a network for each half-set and one for all."""
    dataset, consensus = start(dataset, run, config.mask)
    if config.halves:
        _fit_halves(dataset, consensus, config, run)
    volume, estep, dataset = _fit(dataset, consensus, config, run, None, "")
    nothing = infer(dataset, estep, volume, ImageModel())
    map_zyx = volume.cpu().maps(torch.zeros(1, 0))[0].detach().numpy()
    write_map(run.folder / "maps" / "field.mrc", map_zyx, dataset.pixel_A)
    return save(run, estep.refined(dataset), REFERENCES, volume, *nothing)


def _fit(
    dataset: Dataset, consensus: Consensus, config: Config, run: Run, rows_n: np.ndarray | None, part: str
) -> tuple[FieldVolume, EStep, Dataset]:
    """One network, from a start of its own: what two half-sets share must come from the images."""
    torch.manual_seed(int(np.random.SeedSequence([run.seed, *part.encode()]).generate_state(1)[0]))
    volume = consensus.network(dataset, config)
    estep = with_refinement(Known(), config.refine_poses, len(dataset)).to(dataset.device)
    return volume, estep, train(dataset, estep, volume, config, run, rows_n, part)


def _fit_halves(dataset: Dataset, consensus: Consensus, config: Config, run: Run) -> None:
    """field_half1_unfil.mrc, field_half2_unfil.mrc and field_fsc.star."""
    maps = []
    for half, rows_n in enumerate(dataset.halves(run.seed), start=1):
        volume = _fit(dataset, consensus, config, run, rows_n, f"half{half}")[0]
        volume.mask_zyx = torch.ones((), device=volume.mask_zyx.device)
        maps.append(volume.maps(torch.zeros(1, 0, device=volume.mask_zyx.device))[0].detach().cpu().numpy())
        write_map(run.folder / "maps" / f"field_half{half}_unfil.mrc", maps[-1], dataset.pixel_A)
    curves = half_map_fsc(maps[0], maps[1], consensus.mask_zyx, dataset.pixel_A, run.seed)
    write_fsc_star(run.folder / "maps" / "field_fsc.star", curves)
    run.log(curves.summary)
