"""Epochs of stochastic gradient for network volumes: order, draws, marching, history, checkpoints.

Axes: n images, q latent, g optics groups, s shells, k clusters.
"""

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.errors import InputError, RunError
from morphem.inference import heldout, history
from morphem.inference.checkpoints import Checkpoint, Checkpoints
from morphem.inference.clusters import cluster, write_centres
from morphem.inference.esteps import EStep
from morphem.inference.gradient import DivergedError, Gradient, SweepLoss
from morphem.inference.settings import LatentSettings, NetworkSettings
from morphem.inference.sweep import sweep
from morphem.models.image_model import ImageModel
from morphem.models.nets import bfloat16_pays
from morphem.models.volume import Volume
from morphem.run import Run, Stop

MAPS = 20
"""So many maps are written every few epochs."""


def train(
    dataset: Dataset,
    estep: EStep,
    volume: Volume,
    settings: NetworkSettings,
    run: Run,
    rows_n: np.ndarray | None = None,
    part: str = "",
) -> Dataset:
    """Fit `volume` and `estep` in place to the rows given, or all; the dataset with the noise of the last epoch.

    `part` names one of several trainings in a run. Where the loss turns into no number again and again, training goes
    back to the last checkpoint and on with half the step, once. Errors: RunError the second time.
    """
    training = Training(dataset, estep, volume, settings, run, rows_n, part)
    with Stop().held() as stop:
        training.take_up()
        while training.epoch < settings.epochs:
            try:
                training.run_epoch(stop)
            except DivergedError as error:
                training.go_back(error)
    heldout.judge(run, part)
    if summary := estep.summary(training.trained_n):
        run.log(summary)
    volume.eval()
    estep.eval()
    return training.dataset


@dataclass
class Training:
    """One training under way: `epoch` are done, and `batch` batches of the next."""

    dataset: Dataset
    estep: EStep
    volume: Volume
    settings: NetworkSettings
    run: Run
    rows_n: np.ndarray | None
    part: str

    def __post_init__(self) -> None:
        self.epoch = self.batch = self.halved = 0
        rows_n = np.arange(len(self.dataset)) if self.rows_n is None else self.rows_n
        self.trained_n, self.held_n = heldout.split(rows_n, self.settings.held_out, self.run.seed)
        self.first_noise_gs = self.dataset.noise_gs
        self.mean_kq = torch.zeros(0)
        self.checkpoints = Checkpoints(self.run.folder / "checkpoints" / self.part)
        self.saved = self.told = time.monotonic()

    @cached_property
    def mstep(self) -> Gradient:
        return Gradient(self.volume, self.estep, ImageModel(), self.settings.step, self.dataset)

    @property
    def batches(self) -> int:
        """Of one epoch."""
        return -(-len(self.trained_n) // self.settings.batch_size)

    def take_up(self) -> None:
        """Start, or go on from the last checkpoint. Errors: InputError where another precision is asked for."""
        found = self.checkpoints.latest() if self.run.resume else None
        self.precision = _precision(found, self.run, self.settings, self.dataset.device)
        self.volume.dtype = getattr(torch, self.precision)
        self.estep.compute_in(self.volume.dtype)
        done = ""
        if found:
            self._restore(found)
            done = f", going on after epoch {self.epoch}" + (f", batch {self.batch}" if self.batch else "")
        self.run.forget_history_after(self.epoch, self.part)
        images = f"{len(self.trained_n):,} images" + (f" and {len(self.held_n):,} held out" if len(self.held_n) else "")
        what = f"{self.part}: " if self.part else ""
        where = f"{self.precision} on {self.dataset.device}, {torch.get_num_threads()} threads"
        self.run.log(f"{what}Training in {where}; {images}{done}")
        if not found:
            self._save()

    def run_epoch(self, stop: Stop) -> None:
        """One pass: order and draws are functions of (seed, epoch), so an epoch can be taken up in its middle."""
        epoch = self.epoch + 1
        start, rng = time.monotonic(), np.random.default_rng([self.run.seed, epoch])
        order = rng.permutation(self.trained_n)
        mstep, done = self.mstep, self.batch
        mstep.draw_nq = torch.from_numpy(rng.standard_normal((len(self.dataset), self.volume.latent_dim), np.float32))
        self._begin(epoch)
        name = f"Epoch {epoch} of {self.settings.epochs}"

        def after(batch: int) -> None:
            self._arrive(batch)
            self._tell(start, batch - done)
            if stop.asked or time.monotonic() - self.saved > 60 * self.settings.checkpoint_minutes:
                self._save()
            if stop.asked:
                stop.now()

        size, parts = self.settings.batch_size, (self.estep, mstep, self.volume, mstep.model)
        sweep(self.dataset, order, size, *parts, name, done, after)
        assert mstep.last is not None
        rate = max(0, len(order) - done * size) / (time.monotonic() - start)
        self._finish(epoch, mstep.last, rate, time.monotonic() - start)

    def _arrive(self, batch: int) -> None:
        """So many batches of this epoch are done."""
        self.batch = batch
        self.estep.arrive(self.epoch + batch / self.batches)

    def _begin(self, epoch: int) -> None:
        """Resolution and parts of an epoch. In the middle of one the sums so far are taken up again."""
        for module in (self.volume, self.estep):
            module.train()
        if self.batch == 0:
            self.mstep.begin(self.settings.radius_at(epoch, self.dataset.lattice.radius), self.batches)

    def _finish(self, epoch: int, last: SweepLoss, rate: float, seconds: float) -> None:
        """History, maps, noise, checkpoint."""
        self.epoch = epoch
        self._arrive(0)
        noise_gs, shells = self.dataset.noise_gs.clone(), last.power_gs.shape[1]
        residual_gs = noise_gs[:, :shells] * last.power_gs
        loss = history.mean(residual_gs / self.first_noise_gs[:, :shells], self.dataset, self.mstep.radius)
        self._record(loss, last, rate, seconds)
        self._write_maps()
        noise_gs[:, :shells] = torch.minimum(noise_gs[:, :shells], residual_gs)
        self.dataset = self.dataset.with_noise(noise_gs)
        self._save()

    def _record(self, loss: float, last: SweepLoss, rate: float, seconds: float) -> None:
        """A line of history, one on the terminal, a notice where the latent is of no use."""
        latents = history.of_latents(self.mstep, self.trained_n)
        self.run.record(
            **({"part": self.part} if self.part else {}),
            epoch=self.epoch,
            radius=self.mstep.radius,
            loss=round(loss, 6),
            penalty=round(last.penalty, 6),
            **heldout.loss(self.dataset.with_noise(self.first_noise_gs), self.held_n, self.estep, self.volume),
            **latents,
            skipped=last.skipped,
            images_per_s=round(rate, 1),
            memory_GB=round(history.memory_GB(), 2),
            seconds=round(seconds, 2),
        )
        left = len(self.trained_n) * (self.settings.epochs - self.epoch) / max(rate, 1e-9)
        speed = f"{rate:,.0f} images/s, {history.memory_GB():.1f} GB, {history.duration(left)} left"
        name = f"Epoch {self.epoch} of {self.settings.epochs}"
        self.run.log(f"{name}: loss {loss:.4f}, penalty {last.penalty:.3f}, {speed}")
        if self.epoch == 2 and latents.get("active") == 0:
            self.run.notice("no dimension of z is used after two epochs; lower --beta, or let it rise more slowly")

    def _write_maps(self) -> None:
        """Maps at the centres of clusters, every few epochs and after the last."""
        settings = self.settings
        if not isinstance(settings, LatentSettings) or not settings.map_every:
            return
        if self.epoch % settings.map_every and self.epoch != settings.epochs:
            return
        z_nq = self.mstep.mean_nq.cpu().numpy()[self.trained_n]
        count = min(MAPS, len(np.unique(z_nq, axis=0)))
        former_kq = self.mean_kq.numpy() if len(self.mean_kq) == count else None
        found = cluster(z_nq, count, self.run.seed, former_kq)
        if self.epoch % settings.map_every == 0:  # what the last epoch writes beside must not matter to a longer run
            self.mean_kq = torch.from_numpy(found.mean_kq.astype(np.float32))
        self.volume.eval()
        folder = self.run.folder / "maps" / f"epoch-{self.epoch:03d}"
        write_centres(folder, self.volume, z_nq, found, self.trained_n, self.dataset.pixel_A, settings.map_box)

    def _tell(self, start: float, batches: int) -> None:
        """Once, within the first minute: speed, memory, time left."""
        seconds = time.monotonic() - start
        if self.told is None or seconds < 20:
            return
        self.told = None
        rate = batches / seconds
        left = (self.batches * (self.settings.epochs - self.epoch) - self.batch) / rate
        speed = f"{rate * self.settings.batch_size:,.0f} images/s, {history.memory_GB():.1f} GB of memory"
        self.run.log(f"{speed}, about {history.duration(left)} left")

    def _save(self) -> None:
        self.saved = time.monotonic()
        state = {f"volume.{name}": value for name, value in self.volume.state_dict().items()}
        state |= {f"estep.{name}": value for name, value in self.estep.state_dict().items()}
        state |= {f"mstep.{name}": value for name, value in self.mstep.state().items()}
        state |= {"noise_gs": self.dataset.noise_gs, "mean_kq": self.mean_kq, "halved": torch.tensor(self.halved)}
        self.checkpoints.save(Checkpoint(self.epoch, self.batch, self.precision, state))

    def _restore(self, found: Checkpoint) -> None:
        parts: dict[str, dict[str, torch.Tensor]] = {"volume": {}, "estep": {}, "mstep": {}}
        for name, value in found.state.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        self.epoch = found.epoch
        self._arrive(found.batch)
        self.volume.load_state_dict(parts["volume"])
        self.estep.load_state_dict(parts["estep"])
        self.dataset = self.dataset.with_noise(parts["noise_gs"][""])
        self.mean_kq, halved = parts["mean_kq"][""], int(parts["halved"][""])
        self.mstep.begin(self.settings.radius_at(self.epoch + 1, self.dataset.lattice.radius), self.batches)
        self.mstep.load(parts["mstep"])
        self._halve(halved)

    def go_back(self, error: DivergedError) -> None:
        """To the last checkpoint, with half the step. Errors: RunError where that was done before."""
        where = f"epoch {self.epoch + 1}, batch {self.batch + 1}"
        if self.halved:
            raise RunError(f"{where}: {error}, also with half the step; look at these images, or lower --learning-rate")
        found = self.checkpoints.latest()
        assert found is not None
        self._restore(found)
        self._halve(1)
        self.run.notice(f"{where}: {error}; going on after epoch {self.epoch} with half the step")

    def _halve(self, times: int) -> None:
        """The steps as they were set, or half of them."""
        self.halved = times
        for optimizer in self.mstep.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("whole", group["lr"]) / 2**times


def _precision(found: Checkpoint | None, run: Run, settings: NetworkSettings, device: str) -> str:
    """What a run goes on with is what it began with. Errors: InputError where another one is asked for."""
    asked = run.compute.precision
    if found and asked not in ("auto", found.precision):
        raise InputError(f"--precision {asked}: the run began in {found.precision}; give that, or --overwrite")
    if found:
        return found.precision
    if asked == "auto":
        return "bfloat16" if bfloat16_pays(8192, settings.width, device) else "float32"
    return asked
