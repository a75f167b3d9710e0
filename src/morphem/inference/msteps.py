"""M-steps: the contract, and the normal equations of a linear volume.

Axes: b images, h hypotheses, k samples, r their real and imaginary parts, c classes, j l features φ = s·[1, z], p pairs
(j, l ≤ j), z y x cube (v flattened), s shells.
"""

import abc
import dataclasses
from functools import cached_property

import numpy as np
import torch

from morphem.data.dataset import Observed
from morphem.inference.esteps import Hypotheses
from morphem.inference.solving import System
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics.lattice import Lattice
from morphem.physics.slice import cube_shape, fold, insert

NEGLIGIBLE = 1e-3
"""Responsibilities below this do not count."""


class MStep(abc.ABC):
    """`update` once a batch, `merge` another device's sums, `finish` once a sweep."""

    @abc.abstractmethod
    def update(self, observed: Observed, hypotheses: Hypotheses) -> None: ...

    @abc.abstractmethod
    def merge(self, other: "MStep") -> None: ...

    @abc.abstractmethod
    def finish(self) -> None: ...


class NormalEquations(MStep):
    """Weighted back-projection: per class and voxel W Δ = Y, with a = CTF/σ and centred, whitened samples y,

        W_jl = Σ w E[φ_j φ_l] Sᵀ(a²),   Y_j = Σ w Sᵀ a(E[φ_j] y − Σ_l E[φ_j φ_l] a S V_l).

    Sᵀ is `insert`, so W is the diagonal of the normal operator as trilinear interpolation spreads it. Corner weights
    are at least 0 and sum to 1, so W bounds the operator from above, and (W + T)⁻¹ is a step that cannot lower the
    likelihood. `around` is V; without it V = 0 and Δ is the back-projection. A map with the symmetry V(g x) = V(x)
    looks alike from R and R g: every image is inserted at all of them.
    """

    def __init__(
        self,
        lattice: Lattice,
        features: int = 1,
        classes: int = 1,
        padding: int = 2,
        device: str = "cpu",
        symmetry_g33: np.ndarray | None = None,
        around: LinearVolume | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.lattice, self.features, self.classes, self.padding, self.around = (
            lattice,
            features,
            classes,
            padding,
            around,
        )
        self.symmetry_g33 = torch.eye(3)[None] if symmetry_g33 is None else torch.from_numpy(symmetry_g33).float()
        self.pairs = torch.tril_indices(features, features).T.tolist()
        self.odd_c = torch.cat([cubes.odd_channels(features), torch.zeros(len(self.pairs), dtype=torch.bool)])
        shape = cube_shape(padding * lattice.radius, len(self.odd_c))
        self.sum_czyxp = torch.zeros(classes, *shape, device=device, dtype=dtype)
        self.moment_cjj = torch.zeros(classes, features, features, device=device, dtype=torch.float64)
        """Σ w E[φφᵀ]."""
        self.weight_c = torch.zeros(classes, device=device, dtype=torch.float64)
        """Σ w: how many images a class has."""
        self.contrast_c = torch.zeros(classes, device=device, dtype=torch.float64)
        """Σ w E[φ_0], the sum of contrasts."""
        self.evidence = 0.0
        """Σ log p(image)."""
        self.images = 0

    def update(self, observed: Observed, hypotheses: Hypotheses) -> None:
        weight_bh = hypotheses.logw_bh.exp()
        for h in range(weight_bh.shape[1]):
            at = dataclasses.replace(
                observed, rotation_b33=hypotheses.rotation_bh33[:, h], shift_b2=hypotheses.shift_bh2[:, h]
            )
            class_b, weight_b = hypotheses.class_bh[:, h], weight_bh[:, h]
            phi_bj, phiphi_bjj = hypotheses.phi_bhj[:, h], hypotheses.phiphi_bhjj[:, h]
            self.moment_cjj.index_add_(0, class_b, weight_b[:, None, None].double() * phiphi_bjj.double())
            self.weight_c.index_add_(0, class_b, weight_b.double())
            self.contrast_c.index_add_(0, class_b, weight_b.double() * phi_bj[:, 0].double())
            for c in class_b.unique().tolist():
                chosen_b = (class_b == c) & (weight_b > NEGLIGIBLE)
                if not chosen_b.any():
                    continue
                row = slice(None) if chosen_b.all() else chosen_b.nonzero()[:, 0].cpu().numpy()
                feature_brj = self._features(c, at, hypotheses.feature_brc, row)
                self._add(c, at[row], feature_brj, weight_b[row], phi_bj[row], phiphi_bjj[row])
        self.evidence += float(hypotheses.evidence_b.double().sum())
        self.images += len(observed)

    def _features(
        self, c: int, observed: Observed, feature_brc: torch.Tensor | None, row: slice | np.ndarray
    ) -> torch.Tensor | None:
        """a S V_j of a class's maps and some images; nothing where V = 0."""
        if self.around is None:
            return None
        if feature_brc is None:
            return ImageModel().features(self.around, observed[row], self._maps(c))
        return feature_brc[row][..., self._maps(c)]

    def _add(
        self,
        c: int,
        observed: Observed,
        feature_brj: torch.Tensor | None,
        weight_b: torch.Tensor,
        phi_bj: torch.Tensor,
        phiphi_bjj: torch.Tensor,
    ) -> None:
        """Insert the images of a class."""
        model, sum_zyxp = ImageModel(), self.sum_czyxp[c]
        transfer_br, dtype = model.transfer(observed), sum_zyxp.dtype
        data_brj = model.centred(observed)[..., None] * phi_bj[:, None].to(dtype)
        if feature_brj is not None:
            data_brj -= feature_brj @ phiphi_bjj.to(dtype)
        data_brj *= (transfer_br * weight_b[:, None])[..., None].to(dtype)
        pair_bp = weight_b[:, None] * torch.stack([phiphi_bjj[:, j, i] for j, i in self.pairs], dim=1)
        matrix_b33 = self.padding * observed.ratio_b[:, None, None] * observed.rotation_b33
        value_bkc = data_brj.unflatten(1, (-1, 2)).flatten(2)
        power_bk = (transfer_br[:, ::2] ** 2).to(dtype)
        for turn_33 in self.symmetry_g33.to(matrix_b33):
            points = matrix_b33 @ turn_33, observed.lattice.coords_k2
            insert(value_bkc, *points, self.odd_c, sum_zyxp, power_bk, pair_bp.to(dtype))

    def fade(self, share: float) -> None:
        """Forget all but a share of the sums of maps, so that later images count more."""
        self.sum_czyxp *= share

    def merge(self, other: "NormalEquations") -> None:
        self.sum_czyxp += other.sum_czyxp
        self.moment_cjj += other.moment_cjj
        self.weight_c += other.weight_c
        self.contrast_c += other.contrast_c
        self.evidence += other.evidence
        self.images += other.images

    def finish(self) -> None:
        """Sums stay sums: solving may follow more than once, and merging after it."""

    def shell_weight_csj(self) -> torch.Tensor:
        """Mean of W_jj over every shell of |k|, (classes, shells, j)."""
        diagonal = [2 * self.features + self.pairs.index([j, j]) for j in range(self.features)]
        return torch.stack([self.shell_mean(sum_zyxp[..., diagonal], once=True) for sum_zyxp in self.sum_czyxp])

    def shell_mean(self, value_zyxj: torch.Tensor, once: bool = False) -> torch.Tensor:
        """Mean over every shell of |k|, (shells, j), of values at the cube's voxels.

        The plane x = 0 holds both voxels of a pair ±k, so it counts half; not where a pair's sum lies on either
        (`once`), as before `fold`.
        """
        shell_v = self._radius_zyx.round().long().flatten()
        part_x = torch.ones(value_zyxj.shape[2], device=shell_v.device)
        part_x[0] = 0.5
        count_v = part_x.expand(value_zyxj.shape[:3]).flatten()
        value_vj = (value_zyxj if once else value_zyxj * part_x[:, None]).flatten(0, 2)
        shells = int(shell_v.max()) + 1
        total_sj = value_vj.new_zeros(shells, value_vj.shape[1]).index_add_(0, shell_v, value_vj)
        return total_sj / torch.zeros(shells).to(total_sj).index_add_(0, shell_v, count_v.to(total_sj))[:, None]

    def contrast(self) -> tuple[float, float]:
        """Mean of the images' contrasts, and their variance about it as a share of its square."""
        count = self.weight_c.sum()
        mean, square = float(self.contrast_c.sum() / count), float(self.moment_cjj[:, 0, 0].sum() / count)
        return mean, square / mean**2 - 1

    @property
    def box(self) -> int:
        """Of the maps: that of V where there is one, else of the images."""
        return self.lattice.box if self.around is None else self.around.box

    def _maps(self, c: int) -> slice:
        """Which of the volume's maps are those of a class."""
        return slice(c * self.features, (c + 1) * self.features)

    def solve(
        self,
        precision_csj: torch.Tensor,
        longest: float = torch.inf,
        mask_zyx: torch.Tensor | None = None,
        towards: LinearVolume | None = None,
    ) -> torch.Tensor:
        """The maps V + Δ (classes · j, z, y, x), with prior precisions 1/τ at every shell, interpolated between them.

        Where many images lie all around, the normal operator is W followed by a multiplication of the map by w², w the
        window of interpolation: the maximum is 1/w² times the step that cannot lower the likelihood, or `longest` times
        that where it is less. Steps of up to twice that one gain too. With a mask Δ vanishes outside it. The prior
        draws maps to 0, or each class's first to the one of `towards`. Of a back-projection (V = 0), what prepared
        images do not tell is 0.
        """
        systems = (self.system(c, precision_sj, towards) for c, precision_sj in enumerate(precision_csj))
        step_czyx = torch.cat([system.step(mask_zyx) for system in systems])
        window_zyx = cubes.interpolation_window(self.box, self.padding).to(step_czyx)
        step_czyx *= (window_zyx**-2).clamp(max=longest)
        return cubes.within_sphere(step_czyx) if self.around is None else self.around.map_czyx + step_czyx

    def system(self, c: int, precision_sj: torch.Tensor, towards: LinearVolume | None = None) -> System:
        """(W + T) Δ = Y − T (V − towards) of a class."""
        radius_zyx = self._radius_zyx
        sum_zyxp = fold(self.sum_czyxp[c], self.odd_c)
        data_zyxc, weight_zyxp = sum_zyxp.split([2 * self.features, len(self.pairs)], dim=-1)
        below_zyx = radius_zyx.long().clamp(max=len(precision_sj) - 2)
        part_zyx1 = (radius_zyx - below_zyx).clamp(max=1)[..., None]
        ridge_zyxj = precision_sj[below_zyx] ** (1 - part_zyx1) * precision_sj[below_zyx + 1] ** part_zyx1
        data_zyx2j = data_zyxc.unflatten(-1, (2, -1))
        if self.around is not None:
            away_zyx2j = self.around.cube_zyxc(self._maps(c)).unflatten(-1, (2, -1))
            data_zyx2j = data_zyx2j - away_zyx2j * ridge_zyxj[..., None, :]
        if towards is not None:
            data_zyx2j[..., 0] += towards.cube_zyxc() * ridge_zyxj[..., :1]
        outside_zyx = radius_zyx > self.lattice.radius + 0.5
        return System(weight_zyxp, ridge_zyxj, data_zyx2j, outside_zyx, self.box, self.padding)

    def pooled(self, share_c: torch.Tensor) -> "NormalEquations":
        """Those of one map for all classes, about the mean of their first maps."""
        assert self.around is not None
        mean_zyx = torch.einsum("c,czyx->zyx", share_c.to(self.around.map_czyx), self.around.map_czyx[:: self.features])
        around = LinearVolume.of(mean_zyx[None], self.around.radius, self.around.padding)
        device, dtype = str(self.sum_czyxp.device), self.sum_czyxp.dtype
        pooled = NormalEquations(self.lattice, 1, 1, self.padding, device, around=around, dtype=dtype)
        pooled.sum_czyxp = self.sum_czyxp[..., [0, self.features, 2 * self.features]].sum(0, keepdim=True)
        return pooled

    @cached_property
    def _radius_zyx(self) -> torch.Tensor:
        return cubes.voxel_radius(self.sum_czyxp[0], self.padding)
