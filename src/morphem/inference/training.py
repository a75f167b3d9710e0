"""Epochs of stochastic gradient for network volumes: settings, schedules, history, checkpoints.

Axes: n images, q latent, g optics groups, s shells.
"""

import time
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from cyclopts import Parameter

from morphem.data.dataset import Dataset
from morphem.errors import InputError
from morphem.inference.checkpoints import Checkpoint, Checkpoints
from morphem.inference.esteps import EStep
from morphem.inference.msteps import Gradient
from morphem.inference.sweep import sweep
from morphem.models.image_model import ImageModel
from morphem.models.nets import bfloat16_pays
from morphem.models.volume import Volume
from morphem.run import Run


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Settings that all network methods share."""

    epochs: Annotated[int, Parameter(alias=["-n", "--num-epochs"])] = 20
    """Passes over the images."""
    batch_size: Annotated[int, Parameter(alias="-b")] = 16
    """Images a step."""
    learning_rate: Annotated[float | None, Parameter(alias="--lr")] = None
    """Adam's step; by default 5e-4 · √(batch size / 16)."""
    width: int = 256
    """Width of the networks' layers."""
    layers: int = 3
    """Hidden residual layers of each network."""
    encoding: Literal["geometric", "geometric_full", "low", "no_high", "linear", "gaussian", "none"] = "geometric"
    """Positional encoding of the decoder."""
    radius: float | None = None
    """Largest Fourier radius, in Fourier pixels; all up to box/2 - 1 by default."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "width", "layers"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: expected a positive number")
        if self.learning_rate is not None and not 0 < self.learning_rate < np.inf:
            raise InputError(f"--learning-rate {self.learning_rate}: expected a positive number")

    @property
    def step(self) -> float:
        return self.learning_rate or 5e-4 * (self.batch_size / 16) ** 0.5


def resolve_precision(run: Run, settings: NetworkSettings, device: str) -> str:
    """The dtype of the networks' products; `auto` measures this machine, 0.2 s."""
    if run.compute.precision != "auto":
        return run.compute.precision
    return "bfloat16" if bfloat16_pays(8192, settings.width, device) else "float32"


def _precision(found: Checkpoint | None, run: Run, settings: NetworkSettings, device: str) -> str:
    """What a run goes on with is what it began with. Errors: InputError where another one is asked for."""
    asked = run.compute.precision
    if found and asked not in ("auto", found.precision):
        raise InputError(f"--precision {asked}: the run began in {found.precision}; give that, or --overwrite")
    return found.precision if found else resolve_precision(run, settings, device)


def train(dataset: Dataset, estep: EStep, volume: Volume, settings: NetworkSettings, run: Run) -> Dataset:
    """Fit `volume` and `estep` in place; the dataset comes back with the noise spectrum of the last epoch.

    The loss recorded is mean |X − X̂|²/σ² with the spectrum that the dataset came with, so that epochs compare.

    The order of images and the draws of z are functions of (seed, epoch), so an epoch can be repeated exactly. The
    mean of |X̃ − X̂|² bounds the noise from above whatever the model, so each epoch's replaces σ² where it is lower.
    """
    mstep = Gradient(volume, estep, ImageModel(), settings.step, dataset)
    checkpoints, first_noise_gs = Checkpoints(run.folder / "checkpoints"), dataset.noise_gs
    found = checkpoints.latest() if run.resume else None
    precision = _precision(found, run, settings, dataset.device)
    volume.dtype = estep.dtype = getattr(torch, precision)
    if found:
        dataset = _restore(found.state, dataset, estep, volume, mstep)
    done = found.epoch if found else 0
    run.log(f"Training in {precision} on {dataset.device}" + (f", going on after epoch {done}" if done else ""))
    run.forget_history_after(done)
    for epoch in range(done + 1, settings.epochs + 1):
        dataset = _epoch(epoch, dataset, first_noise_gs, estep, mstep, settings, run)
        checkpoints.save(Checkpoint(epoch, precision, _state(dataset, estep, volume, mstep)))
    return dataset


def _epoch(
    epoch: int,
    dataset: Dataset,
    first_noise_gs: torch.Tensor,
    estep: EStep,
    mstep: Gradient,
    settings: NetworkSettings,
    run: Run,
) -> Dataset:
    """One pass: draws, sweep, history; the dataset with its noise lowered where the residual is lower."""
    start, rng = time.monotonic(), np.random.default_rng([run.seed, epoch])
    order = rng.permutation(len(dataset))
    mstep.draw_nq = torch.from_numpy(rng.standard_normal((len(dataset), mstep.volume.latent_dim), np.float32))
    name = f"Epoch {epoch} of {settings.epochs}"
    sweep(dataset, order, settings.batch_size, estep, mstep, mstep.volume, mstep.model, name)
    last, seconds = mstep.last, time.monotonic() - start
    assert last is not None
    residual_gs = dataset.noise_gs * last.power_gs
    loss = _mean_over_samples(residual_gs / first_noise_gs, dataset)
    run.record(
        epoch=epoch,
        loss=round(loss, 6),
        penalty=round(last.penalty, 6),
        skipped=last.skipped,
        images_per_s=round(len(dataset) / seconds, 1),
        seconds=round(seconds, 2),
    )
    run.log(f"{name}: loss {loss:.4f}, penalty {last.penalty:.3f}, {len(dataset) / seconds:,.0f} images/s")
    return dataset.with_noise(torch.minimum(dataset.noise_gs, residual_gs))


def _mean_over_samples(value_gs: torch.Tensor, dataset: Dataset) -> float:
    """The mean of a quantity per group and shell over all samples of all images."""
    images_g = torch.bincount(torch.as_tensor(dataset.particles.optics_n), minlength=len(value_gs))
    samples_s = torch.bincount(torch.as_tensor(dataset.lattice.shell_k), minlength=value_gs.shape[1])
    weight_gs = images_g[:, None] * samples_s
    return float((value_gs * weight_gs).sum() / weight_gs.sum())


def _state(dataset: Dataset, estep: EStep, volume: Volume, mstep: Gradient) -> dict[str, torch.Tensor]:
    state = {f"volume.{name}": value for name, value in volume.state_dict().items()}
    state |= {f"estep.{name}": value for name, value in estep.state_dict().items()}
    for i, moments in mstep.optimizer.state_dict()["state"].items():
        state |= {f"adam.{i}.{name}": value for name, value in moments.items()}
    return state | {"noise_gs": dataset.noise_gs}


def _restore(
    state: dict[str, torch.Tensor], dataset: Dataset, estep: EStep, volume: Volume, mstep: Gradient
) -> Dataset:
    parts: dict[str, dict[str, torch.Tensor]] = {"volume": {}, "estep": {}, "adam": {}, "noise_gs": {}}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    volume.load_state_dict(parts["volume"])
    estep.load_state_dict(parts["estep"])
    adam = mstep.optimizer.state_dict()
    for name, value in parts["adam"].items():
        i, _, moment = name.partition(".")
        adam["state"].setdefault(int(i), {})[moment] = value
    mstep.optimizer.load_state_dict(adam)
    return dataset.with_noise(parts["noise_gs"][""])
