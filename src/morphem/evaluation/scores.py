"""How likely images are under states, and under errors of imaging: all that validation asks of single images.

    log p(y | φ) = φᵀ⟨A, y⟩ − ½ φᵀ⟨A, A⟩ φ + const,   A_j = CTF/σ · S(R) V_j,   ⟨u, v⟩ = 2 Re Σ ū v

What is learnt of an image is learnt from one half of its samples and judged by the other, p(y₂ | y₁), both ways: noise
that z has fitted in one half is not in the other (docs/notes/validation.md).
Axes: n images, m states, j features (mean, components, errors), h halves of the samples, r real and imaginary parts.
"""

from dataclasses import dataclass

import numpy as np
import torch

from morphem.data.dataset import Dataset, Observed
from morphem.evaluation.imaging import ERRORS, of_errors
from morphem.evaluation.states import States
from morphem.inference.subspaces import Overlaps
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume

BATCH = 200
SWEEPS = 40
EMPTY = 0.25
"""Of the power of images: a state that gives less shows nothing."""


@dataclass(frozen=True, eq=False)
class Seen:
    """⟨A, y⟩ and ⟨A, A⟩ of images with the mean, the components and the seven `ERRORS`, float64."""

    data_hnj: np.ndarray
    gram_hnjj: np.ndarray
    excess_n: np.ndarray
    """|y − the mean's image|² above its expectation under noise, over its standard deviation."""

    @classmethod
    @torch.inference_mode()
    def of(cls, states: States, dataset: Dataset, rows: np.ndarray) -> "Seen":
        """Of some rows of a dataset, at its poses and whitened as it is."""
        volume, dataset = states.volume, dataset.within(states.volume.radius)
        still = LinearVolume.of(volume.map_czyx[:1], volume.radius, volume.padding)
        found = [_overlaps(volume, still, dataset, observed) for observed in dataset.batches(BATCH, rows)]
        data_nhj, gram_nhjj, power_nh = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
        samples = 2 * len(dataset.lattice)
        excess_n = (power_nh.sum(1) - samples) / np.sqrt(2 * samples)
        return cls(data_nhj.swapaxes(0, 1), gram_nhjj.swapaxes(0, 1), excess_n)

    @property
    def components(self) -> np.ndarray:
        return np.arange(1, self.data_hnj.shape[2] - len(ERRORS))

    @property
    def errors(self) -> np.ndarray:
        return np.arange(self.data_hnj.shape[2] - len(ERRORS), self.data_hnj.shape[2])

    def log_likelihood(self, phi_mj: np.ndarray, half: int) -> np.ndarray:
        """log p(half of y | m) − log p(half of y | nothing), (n, m)."""
        count = phi_mj.shape[1]
        gram_njj = self.gram_hnjj[half][:, :count, :count]
        square_mj = (phi_mj[:, :, None] * phi_mj[:, None]).reshape(len(phi_mj), -1)
        return self.data_hnj[half][:, :count] @ phi_mj.T - 0.5 * gram_njj.reshape(len(gram_njj), -1) @ square_mj.T

    def recognised(self) -> np.ndarray:
        """log p(y | mean map) − log p(y | nothing), (n)."""
        return self.of_states(np.ones((1, 1)))[:, 0]

    def of_states(self, phi_mj: np.ndarray, halves: tuple[int, ...] = (0, 1)) -> np.ndarray:
        """The same of some halves together."""
        return np.sum([self.log_likelihood(phi_mj, half) for half in halves], axis=0)

    def placed(self, states: States, halves: tuple[int, ...] = (0, 1)) -> np.ndarray:
        """E[φ | y] by the states' weights, from either half of the samples or both, (n, j)."""
        log_nm = np.log(states.weight_m) + self.of_states(states.phi_mj, halves)
        return np.exp(log_nm - _logsumexp(log_nm)[:, None]) @ states.phi_mj

    def shown(self, states: States) -> np.ndarray:
        """log p(y | the states that show something) − log p(y | nothing), (n).

        Where images hold no molecule a fit has a state for them, an empty one: it is left out.
        """
        count = states.phi_mj.shape[1]
        gram_jj = self.gram_hnjj[..., :count, :count].sum(0).mean(0)
        power_m = np.einsum("mj,jl,ml->m", states.phi_mj, gram_jj, states.phi_mj)
        full_m = power_m > EMPTY * np.quantile(power_m, 0.75)
        weight_m = states.weight_m[full_m] / states.weight_m[full_m].sum()
        return _logsumexp(np.log(weight_m) + self.of_states(states.phi_mj[full_m]))


def _logsumexp(log_nm: np.ndarray) -> np.ndarray:
    largest_n1 = log_nm.max(1, keepdims=True)
    return largest_n1[:, 0] + np.log(np.exp(log_nm - largest_n1).sum(1))


def predictive(seen: Seen, states: States) -> np.ndarray:
    """Σ over both ways of log Σ_m p(m | y₁) p(y₂ | m) − log p(y₂ | nothing), (n), in nats: of any ensemble alike."""
    log_m, (one_nm, other_nm) = np.log(states.weight_m), (seen.log_likelihood(states.phi_mj, half) for half in (0, 1))
    return 2 * _logsumexp(one_nm + other_nm + log_m) - _logsumexp(one_nm + log_m) - _logsumexp(other_nm + log_m)


def gain_of_states(seen: Seen, states: States) -> np.ndarray:
    """The same above one map, (n): the best that the states' mean and components make for all these images alike."""
    still = Amounts.fitted(seen, seen.components, np.zeros(len(seen.components)), np.zeros(len(seen.components), bool))
    return predictive(seen, states) - seen.recognised() - still.gain(seen)


@dataclass(frozen=True, eq=False)
class Amounts:
    """What images have of some features: normal amounts, w ~ N(μ, D²), D diagonal; of width 0, the same amount each.

    With G = ⟨A, A⟩, x = ⟨A, y − the mean's image⟩, Q = 1 + D G D and g = D (x − G μ)

        log p(y) − log p(y | mean map) = μᵀx − ½ μᵀGμ + ½ gᵀQ⁻¹g − ½ log det Q
    """

    which_j: np.ndarray
    mean_j: np.ndarray
    width_j: np.ndarray

    @classmethod
    def fitted(cls, seen: Seen, which_j: np.ndarray, width_j: np.ndarray, free_j: np.ndarray) -> "Amounts":
        """The likeliest means, and widths where they are free: means by least squares, widths by EM, by turns."""
        gram_njj, data_nj = (value.sum(0) for value in _about_mean(seen, which_j))
        mean_j = np.zeros(len(which_j))
        for _ in range(SWEEPS if free_j.any() else 1):
            mean_j = _common(gram_njj, data_nj, width_j)
            q_njj = np.eye(len(width_j)) + width_j[:, None] * gram_njj * width_j
            g_nj = width_j * (data_nj - gram_njj @ mean_j)
            inverse_njj = np.linalg.inv(q_njj)
            power_nj = np.einsum("njk,nk->nj", inverse_njj, g_nj) ** 2 + np.diagonal(inverse_njj, axis1=1, axis2=2)
            width_j = np.where(free_j, width_j * np.sqrt(power_nj.mean(0)), width_j)
        return cls(which_j, mean_j, width_j)

    def gain(self, seen: Seen) -> np.ndarray:
        """Σ over both ways of log p(y₂ | y₁) − log p(y₂ | mean map), (n)."""
        gram_hnjj, data_hnj = _about_mean(seen, self.which_j)
        one_n, other_n = (self._evidence(gram_hnjj[half], data_hnj[half]) for half in (0, 1))
        return 2 * self._evidence(gram_hnjj.sum(0), data_hnj.sum(0)) - one_n - other_n

    def _evidence(self, gram_njj: np.ndarray, data_nj: np.ndarray) -> np.ndarray:
        shifted_nj = data_nj - gram_njj @ self.mean_j
        q_njj = np.eye(len(self.width_j)) + self.width_j[:, None] * gram_njj * self.width_j
        solved_nj = np.linalg.solve(q_njj, (shifted_nj * self.width_j)[..., None])[..., 0]
        alike_n = 0.5 * (data_nj + shifted_nj) @ self.mean_j
        return alike_n + 0.5 * ((shifted_nj * self.width_j * solved_nj).sum(1) - np.linalg.slogdet(q_njj)[1])


def _common(gram_njj: np.ndarray, data_nj: np.ndarray, width_j: np.ndarray) -> np.ndarray:
    """μ by generalised least squares: Σ (G − G D Q⁻¹ D G) μ = Σ (x − G D Q⁻¹ D x)."""
    scaled_njj = gram_njj * width_j
    q_njj = np.eye(len(width_j)) + width_j[:, None] * scaled_njj
    pull_njj = np.linalg.solve(q_njj, scaled_njj.swapaxes(1, 2))
    normal_jj = (gram_njj - scaled_njj @ pull_njj).sum(0)
    right_j = (data_nj - np.einsum("nkj,nk->nj", pull_njj, width_j * data_nj)).sum(0)
    ridge_jj = 1e-9 * np.diag(np.diag(normal_jj)) + 1e-30 * np.eye(len(right_j))
    return np.linalg.solve(normal_jj + ridge_jj, right_j)


def _about_mean(seen: Seen, which_j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """⟨A, A⟩ of some features, and ⟨A, y − the mean's image⟩, of either half."""
    gram_hnjj = seen.gram_hnjj[:, :, which_j][..., which_j]
    return gram_hnjj, seen.data_hnj[..., which_j] - seen.gram_hnjj[..., which_j, 0]


def _overlaps(
    volume: LinearVolume, still: LinearVolume, dataset: Dataset, observed: Observed
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """⟨A, y⟩ (n, h, j), ⟨A, A⟩ (n, h, j, j) and |y − the mean's image|² (n, h) of a batch."""
    model = ImageModel()
    feature_brj = model.features(volume, observed)
    feature_brj = torch.cat([feature_brj, of_errors(still, dataset, observed, feature_brj[..., 0])], -1)
    data_br = model.centred(observed)
    left_br = 2 * (data_br - feature_brj[..., 0]) ** 2
    parts = []
    for half in (0, 1):
        own = slice(half, None, 2)
        halved_brj, halved_br = (_samples(value, own) for value in (feature_brj, data_br))
        overlaps = Overlaps.of(halved_br, halved_brj, 1)
        parts.append((overlaps.data_bhj[:, 0], overlaps.gram_bhjj[:, 0], _samples(left_br, own).sum(1).double()))
    data, gram, power = (torch.stack(part, 1) for part in zip(*parts, strict=True))
    return data, gram, power


def _samples(value_br: torch.Tensor, which: slice) -> torch.Tensor:
    """Some of the samples, with both their parts."""
    return value_br.unflatten(1, (-1, 2))[:, which].flatten(1, 2)
