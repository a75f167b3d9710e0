"""Clusters of latents, and the maps that stand for them.

Axes: n images, q latent, k clusters.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage

from morphem.errors import InputError
from morphem.inference.partitions import PARTITIONS
from morphem.io.files import replacing_folder
from morphem.io.mrc import write_map
from morphem.models.volume import Volume


@dataclass(frozen=True, eq=False)
class Clusters:
    """Label n, from 1, is map n, is the map at the latent of image `centre_k[n − 1]`."""

    label_n: np.ndarray
    centre_k: np.ndarray
    mean_kq: np.ndarray
    """The mean latent of each cluster; of density peaks the peak."""

    @property
    def images_k(self) -> np.ndarray:
        """How many images have each label."""
        return np.bincount(self.label_n, minlength=len(self.centre_k) + 1)[1:]


def cluster(
    z_nq: np.ndarray, count: int, seed: int, start_kq: np.ndarray | None = None, by: str = "kmeans"
) -> Clusters:
    """k-means, or another of `PARTITIONS`; every centre moves to its nearest image, and similar centres get
    neighbouring numbers.

    With the means of former clusters k-means starts from those, and their numbers stay.

    Errors: InputError where there are fewer distinct latents than clusters.
    """
    distinct = count_distinct(z_nq)
    if not 1 <= count <= distinct:
        raise InputError(
            f"--clusters {count}: {len(z_nq)} images have {distinct} distinct latents; give 1 to {distinct}"
        )
    begin = {} if start_kq is None else {"start_kq": start_kq}
    place_kq, group_n = PARTITIONS[by](z_nq, count, seed, **begin)
    order_k = _by_similarity(place_kq) if start_kq is None else np.arange(len(place_kq))
    label_n = np.argsort(order_k)[group_n] + 1
    nearest_first_n = np.argsort(((z_nq - place_kq[group_n]) ** 2).sum(1), kind="stable")
    first_k = np.unique(label_n[nearest_first_n], return_index=True)[1]
    return Clusters(label_n, nearest_first_n[first_k], place_kq[order_k])


def count_distinct(z_nq: np.ndarray) -> int:
    """How many latents differ by more than a thousandth of their deviation."""
    scale = max(float(z_nq.std()), 1e-30)
    return len(np.unique(np.round(z_nq / (1e-3 * scale)), axis=0))


def _by_similarity(centre_kq: np.ndarray) -> np.ndarray:
    """An order in which neighbours are alike: the leaves of a tree, turned for the shortest way along them."""
    if len(centre_kq) < 3:
        return np.arange(len(centre_kq))
    return leaves_list(linkage(centre_kq, "average", optimal_ordering=True))


def map_name(number: int) -> str:
    """Maps are numbered from 1, like labels."""
    return f"map_{number:03d}.mrc"


@torch.inference_mode()
def write_centres(
    folder: Path,
    volume: Volume,
    z_nq: np.ndarray,
    clusters: Clusters,
    row_n: np.ndarray,
    pixel_A: float,
    box: int | None = None,
) -> None:
    """The map at every cluster's centre, and kmeans.csv: label, row of the centre (one of `row_n`), images, z."""
    device = volume.mask_zyx.device
    columns = [np.arange(1, len(clusters.centre_k) + 1), row_n[clusters.centre_k], clusters.images_k]
    z_kq = z_nq[clusters.centre_k]
    names = ["label", "row", "images", *(f"z_{i}" for i in range(z_nq.shape[1]))]
    with replacing_folder(folder) as aside:
        for number, z_q in enumerate(z_kq, start=1):
            map_zyx = volume.maps(torch.from_numpy(z_q[None]).to(device), box)[0].cpu().numpy()
            write_map(aside / map_name(number), map_zyx, pixel_A * volume.box / len(map_zyx))
        table = np.column_stack([*columns, z_kq])
        np.savetxt(aside / "kmeans.csv", table, delimiter=",", fmt="%.7g", header=",".join(names), comments="")
