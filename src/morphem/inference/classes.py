"""Classes that each may move, started from one wide subspace: clusters of its z, lifted back to maps.

Clusters in z cost seconds and see all images at once, so classes do not freeze as random maps do; EM over the images
then corrects what the subspace could not hold.

Axes: n images, c classes, j features, q latent of a class, w latent of the wide subspace, z y x maps.
"""

import numpy as np
import torch
from sklearn.cluster import BisectingKMeans, KMeans
from sklearn.metrics import adjusted_rand_score

from morphem.inference.expectation import PADDING, Model
from morphem.inference.subspaces import Subspaces
from morphem.models.volume import LinearVolume

FEWEST = 50
"""Images that a class must have."""
KNOWN = 0.5
"""A dimension of z tells classes apart where its mean posterior variance is less; the prior's is 1."""
METRICS = (0.0, 1.0, 0.5)
"""Starts differ in how clusters are measured: z times the length of its axis to such a power."""
HIERARCHICAL = 2
"""Every third start splits the largest cluster in two, again and again; the others make all clusters at once."""


def splits(
    wide: LinearVolume,
    z_nw: np.ndarray,
    variance_w: np.ndarray,
    shape: tuple[int, int],
    starts: int,
    contrast_variance: float = 0.0,
) -> list[Model]:
    """(K, q) of every start that parts the images in a way of its own; `variance_w` is the mean posterior variance."""
    known_w = variance_w <= max(KNOWN, variance_w.min())
    length_w = wide.map_czyx[1:].flatten(1).norm(dim=1).cpu().numpy()
    classes, labels = min(shape[0], len(np.unique(z_nw, axis=0))), []
    for start in range(starts):
        near_nw = (z_nw * length_w ** METRICS[start % len(METRICS)])[:, known_w]
        label_n = _clusters(classes, start).fit_predict(near_nw)
        if all(adjusted_rand_score(label_n, other_n) < 1 for other_n in labels):
            labels.append(label_n)
    return [_lifted(wide, z_nw * known_w, label_n, shape, contrast_variance) for label_n in labels]


def _clusters(count: int, start: int) -> KMeans | BisectingKMeans:
    if start % len(METRICS) == HIERARCHICAL:
        return BisectingKMeans(count, n_init=5, random_state=start)
    return KMeans(count, n_init=20, random_state=start)  # pyright: ignore[reportArgumentType]


def _lifted(
    wide: LinearVolume, z_nw: np.ndarray, label_n: np.ndarray, shape: tuple[int, int], contrast_variance: float
) -> Model:
    """Class c has the mean μ + U m_c and the q largest principal axes of U S_c Uᵀ, of cluster c's moments m and S."""
    classes, latent_dim = shape
    frames = [_frame(z_nw[label_n == c], latent_dim) for c in range(classes)]
    place_cwj = torch.from_numpy(np.stack(frames)).to(wide.map_czyx)
    map_cjzyx = torch.einsum("cwj,wzyx->cjzyx", place_cwj, wide.map_czyx[1:])
    map_cjzyx[:, 0] += wide.map_czyx[0]
    estep = Subspaces(classes, latent_dim, contrast_variance)
    estep.prior_h = torch.from_numpy((np.bincount(label_n, minlength=classes) + 1) / (len(z_nw) + classes))
    return Model(LinearVolume.of(map_cjzyx.flatten(0, 1), wide.radius, wide.padding), estep.to(map_cjzyx.device))


def _frame(z_nw: np.ndarray, count: int) -> np.ndarray:
    """Mean of a cluster, and √λ e of its largest principal axes, (w, 1 + count); 0 where it has fewer."""
    value_w, vector_ww = np.linalg.eigh(np.cov(z_nw.T, bias=True).reshape((z_nw.shape[1],) * 2))
    largest = np.argsort(-value_w)[:count]
    axis_wq = vector_ww[:, largest] * np.sqrt(np.maximum(value_w[largest], 0))
    return np.column_stack([z_nw.mean(0), axis_wq, np.zeros((len(value_w), count - len(largest)))])


def of_maps(map_czyx: torch.Tensor, radius: float, contrast_variance: float = 0.0) -> Model:
    """(K, 0): classes of given maps, equally probable."""
    estep = Subspaces(len(map_czyx), 0, contrast_variance).to(map_czyx.device)
    return Model(LinearVolume.of(map_czyx, radius, PADDING), estep)


def by_size(model: Model) -> Model:
    """The same classes, the largest first."""
    return by_order(model, model.estep.prior_h.argsort(descending=True, stable=True))


def without_small(model: Model, images: int) -> Model:
    """The classes that have at least `FEWEST` images."""
    keep_c = model.estep.prior_h * images >= min(FEWEST, images / (2 * model.classes))
    return model if keep_c.all() else by_order(model, keep_c.nonzero()[:, 0])


def by_order(model: Model, order_c: torch.Tensor) -> Model:
    """Some of the classes, in the order given."""
    map_cjzyx = model.volume.map_czyx.unflatten(0, (model.classes, -1))[order_c]
    estep = Subspaces(len(order_c), model.estep.latent_dim, model.estep.contrast_variance).to(order_c.device)
    estep.prior_h = model.estep.prior_h[order_c] / model.estep.prior_h[order_c].sum()
    return Model(LinearVolume.of(map_cjzyx.flatten(0, 1), model.volume.radius, model.volume.padding), estep)
