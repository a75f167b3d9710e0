"""Classes that each may move, started from one wide subspace: a Gaussian mixture of its z, lifted back to maps.

A mixture in z costs seconds and sees all images at once, so classes do not freeze as random maps do; EM over the images
then corrects what the subspace could not hold.

Axes: n images, c classes, j features, q latent of a class, w latent of the wide subspace, z y x maps.
"""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from morphem.inference.expectation import PADDING, Model
from morphem.inference.subspaces import Subspaces
from morphem.models.volume import LinearVolume

FEWEST = 50
"""Images that a class must have."""
STARTS = 10


def split(
    wide: LinearVolume, z_nw: np.ndarray, classes: int, latent_dim: int, seed: int, contrast_variance: float = 0.0
) -> Model:
    """(K, q): class c has the mean μ + U m_c and the q largest principal axes of U S_c Uᵀ, m and S of the mixture."""
    mixture = gaussian_mixture(z_nw, classes, seed)
    mean_zyx, mode_wzyx = wide.map_czyx[0], wide.map_czyx[1:]
    frames = [
        np.column_stack([mean_w, _axes(covariance_ww, latent_dim)])
        for mean_w, covariance_ww in zip(mixture.means_, mixture.covariances_, strict=True)
    ]
    place_cwj = torch.from_numpy(np.stack(frames)).to(mode_wzyx)
    map_cjzyx = torch.einsum("cwj,wzyx->cjzyx", place_cwj, mode_wzyx)
    map_cjzyx[:, 0] += mean_zyx
    estep = Subspaces(classes, latent_dim, contrast_variance)
    estep.prior_h = torch.from_numpy(mixture.weights_).double()
    volume = LinearVolume.of(map_cjzyx.flatten(0, 1), wide.radius, wide.padding)
    return Model(volume, estep.to(map_cjzyx.device))


def of_maps(map_czyx: torch.Tensor, radius: float, contrast_variance: float = 0.0) -> Model:
    """(K, 0): classes of given maps, equally probable."""
    estep = Subspaces(len(map_czyx), 0, contrast_variance).to(map_czyx.device)
    return Model(LinearVolume.of(map_czyx, radius, PADDING), estep)


def by_size(model: Model) -> Model:
    """The same classes, the largest first."""
    return _chosen(model, model.estep.prior_h.argsort(descending=True, stable=True))


def gaussian_mixture(z_nw: np.ndarray, classes: int, seed: int) -> GaussianMixture:
    """The likeliest of several fits, each started from k-means."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(classes, n_init=STARTS, reg_covar=1e-3, random_state=seed).fit(z_nw)


def _axes(covariance_ww: np.ndarray, count: int) -> np.ndarray:
    """√λ e of the largest eigenvalues, (w, count)."""
    value_w, vector_ww = np.linalg.eigh(covariance_ww)
    largest = np.argsort(-value_w)[:count]
    return vector_ww[:, largest] * np.sqrt(value_w[largest])


def without_small(model: Model, images: int) -> Model:
    """The classes that have at least `FEWEST` images."""
    keep_c = model.estep.prior_h * images >= min(FEWEST, images / (2 * model.classes))
    return model if keep_c.all() else _chosen(model, keep_c.nonzero()[:, 0])


def _chosen(model: Model, order_c: torch.Tensor) -> Model:
    map_cjzyx = model.volume.map_czyx.unflatten(0, (model.classes, -1))[order_c]
    estep = Subspaces(len(order_c), model.estep.latent_dim, model.estep.contrast_variance).to(order_c.device)
    estep.prior_h = model.estep.prior_h[order_c] / model.estep.prior_h[order_c].sum()
    return Model(LinearVolume.of(map_cjzyx.flatten(0, 1), model.volume.radius, model.volume.padding), estep)
