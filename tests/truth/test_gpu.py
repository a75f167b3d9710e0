"""What a CUDA device computes equals what the CPU computes."""

import numpy as np
import pytest
import torch

from morphem.data.dataset import Dataset, Source
from morphem.inference import consensus
from morphem.methods import fit, load
from morphem.physics import rotations
from morphem.physics import slice as slices
from morphem.physics.lattice import Lattice
from morphem.run import Compute, Run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def test_slices_and_insertion_agree():
    rng, lattice = np.random.default_rng(0), Lattice.disc(32)
    cube_zyxc = torch.from_numpy(rng.standard_normal(slices.cube_shape(15, 4)).astype(np.float32))
    where = torch.from_numpy(rotations.uniform(30, rng)).float(), lattice.coords_k2, torch.arange(4) % 2 == 1
    here = slices.sample(cube_zyxc, *where)
    there = slices.sample(cube_zyxc.cuda(), *(x.cuda() for x in where)).cpu()
    torch.testing.assert_close(here, there, atol=2e-5, rtol=1e-5)
    sums = torch.zeros_like(cube_zyxc), torch.zeros_like(cube_zyxc).cuda()
    slices.insert(here, *where, sums[0])
    slices.insert(here.cuda(), *(x.cuda() for x in where), sums[1])
    torch.testing.assert_close(sums[0], sums[1].cpu(), atol=1e-4, rtol=1e-4)


def test_back_projection_agrees(tiny):
    maps = [
        consensus.reconstruct(Dataset.open(Source(tiny / "particles.star"), device=device), seed=0).map_zyx
        for device in ("cpu", "cuda")
    ]
    assert np.linalg.norm(maps[0] - maps[1]) < 1e-4 * np.linalg.norm(maps[0])


def test_53_a_checkpoint_of_the_gpu_goes_on_on_the_cpu(tiny, tmp_path):
    """The second epoch on the CPU, after a first one on the GPU, has the loss of two epochs on the CPU."""
    losses = []
    for first in ("cuda", "cpu"):
        for epochs, device in ((1, first), (2, "cpu")):
            dataset = Dataset.open(Source(tiny / "particles.star"), device=device)
            config = load("vae").Config(epochs=epochs, width=32, latent_dim=2)
            run = Run(tmp_path / first, Compute(device=device, precision="float32"), resume=epochs == 2)
            losses.append(fit("vae", dataset, config, run).history[-1]["loss"])
    assert losses[1] == pytest.approx(losses[3], rel=0.005)


def test_training_agrees_in_its_loss(tiny, tmp_path):
    losses = []
    for device in ("cpu", "cuda"):
        dataset = Dataset.open(Source(tiny / "particles.star"), device=device)
        config = load("vae").Config(epochs=3, width=32, latent_dim=2)
        run = Run(tmp_path / device, Compute(device=device, precision="float32"))
        losses.append(fit("vae", dataset, config, run).history[-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.005)
