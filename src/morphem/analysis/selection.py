"""Which rows of the table that a run was fitted to are meant by clusters, or by rows of the run.

Axes: n images of the run, m selected, q latent, k clusters.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from morphem.analysis.regions import rows_where
from morphem.data import cryodrgn, tables
from morphem.data.export import Extras, Selection, refuse_cs_of_others, start_of_names
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.io.reading import sha256
from morphem.run import NOTICE, say


def of_run(
    ensemble: Ensemble,
    kind: str,
    extras: Extras,
    labels: list[int] | None = None,
    ind: Path | None = None,
    where: str | None = None,
    datadir: Path | None = None,
) -> Selection:
    """Rows of the table that the run was fitted to: of the clusters, of the run's images that `ind` numbers, of those
    for which `where` holds, or all.

    Errors: InputError where a label does not exist, or the table is not what it was.
    """
    if extras.latents and not ensemble.latent_dim:
        raise InputError(f"--latents: {ensemble.folder} has no latent; leave it out")
    label_n = labels_of(ensemble) if labels is not None or kind == "cryodrgn" else None
    table, place_n = _origin(ensemble, kind)
    row_m = _chosen(ensemble, label_n, labels, ind, where)
    place_m, first_m = np.unique(place_n[row_m], return_index=True)
    row_m, source = row_m[first_m], ensemble.config["source"]
    reference = ensemble.folder / "maps" / "consensus.mrc"
    return Selection(
        table,
        place_m,
        read=tuple(_read(ensemble)),
        scale=(ensemble.pixel_A, ensemble.box),
        start=start_of_names(table, datadir or source["datadir"]),
        passthrough=Path(source["passthrough"]) if source["passthrough"] and kind == "cs" else None,
        particles=ensemble.poses.take(row_m) if extras.poses or kind == "cryodrgn" else None,
        z_mq=ensemble.z_nq[row_m],
        variance_mq=np.diagonal(ensemble.uncertainty_nqq[row_m], axis1=1, axis2=2),
        label_m=None if label_n is None else label_n[row_m],
        added=tuple(f"morphemZ{i}" for i in range(ensemble.latent_dim)) if table.path == _own(ensemble) else (),
        reference=reference if reference.is_file() else None,
    )


def _chosen(
    ensemble: Ensemble, label_n: np.ndarray | None, labels: list[int] | None, ind: Path | None, where: str | None
) -> np.ndarray:
    if labels is not None:
        return rows_of_labels(ensemble, label_n, labels)
    if where is not None:
        labels_of(ensemble)  # refuses an analysis of other latents
        return rows_where(ensemble, where)
    return np.arange(len(ensemble)) if ind is None else cryodrgn.read_index(ind, len(ensemble))


def rows_of_labels(ensemble: Ensemble, label_n: np.ndarray | None, labels: list[int]) -> np.ndarray:
    """The run's images in the clusters with these labels, counted from 1. Errors: InputError."""
    if label_n is None:
        raise InputError(f"{ensemble.folder}: has no clusters; run `morphem analyze {ensemble.folder}` first")
    wrong = next((label for label in labels if not 1 <= label <= label_n.max()), None)
    if wrong is not None:
        raise InputError(f"--select {wrong}: {ensemble.folder} has clusters 1 to {label_n.max()}; give some of them")
    return np.flatnonzero(np.isin(label_n, labels))


def labels_of(ensemble: Ensemble) -> np.ndarray | None:
    """The label of each image, that of its map, from 1; None before `analyze`. Errors: InputError for old labels."""
    folder = ensemble.folder / "analysis"
    if not (folder / "clusters.parquet").is_file():
        return None
    clusters, maps = (pd.read_parquet(folder / f"{name}.parquet") for name in ("clusters", "maps"))
    z_kq = maps[maps["series"] == "kmeans"].filter(regex=r"^z_\d+$").to_numpy()
    centre_k = clusters.drop_duplicates("label").sort_values("label")["centre"].to_numpy()
    same = len(clusters) == len(ensemble) and len(z_kq) == len(centre_k)
    if not same or not np.allclose(ensemble.z_nq[centre_k], z_kq, atol=1e-5):
        raise InputError(f"{folder}: is of other latents than the run's; run `morphem analyze {ensemble.folder}` again")
    return clusters["label"].to_numpy()


def _read(ensemble: Ensemble) -> list[Path]:
    """The files that a run was made of, and its own table."""
    source = ensemble.config["source"]
    return [_own(ensemble), *(Path(source[name]) for name in ("particles", "passthrough", "ind") if source[name])]


def _own(ensemble: Ensemble) -> Path:
    return ensemble.folder / "particles.star"


def _origin(ensemble: Ensemble, kind: str) -> tuple[tables.Table, np.ndarray]:
    """The table that the run was fitted to and each image's row in it; the run's own table where a STAR is asked for
    and there was none, or it is gone.

    Errors: InputError where a file has changed since the run, or a .cs is asked for and was none.
    """
    path = Path(ensemble.config["source"]["particles"])
    refuse_cs_of_others(path, kind)
    if kind != "cs" and not path.exists():
        say(f"{NOTICE}{path} is gone: rows and their numbers are those of {_own(ensemble)}, with the run's poses")
    elif kind != "star" or path.suffix == ".star":
        return _fitted_table(ensemble, path)
    return tables.any_table(_own(ensemble), None), np.arange(len(ensemble))


def _fitted_table(ensemble: Ensemble, path: Path) -> tuple[tables.Table, np.ndarray]:
    source, folder = ensemble.config["source"], ensemble.folder
    tables_of_rows = {name: then for name, then in ensemble.config.get("sha256", {}).items() if name in source}
    for name, then in tables_of_rows.items():
        there = Path(source[name]).is_file()
        if not there or sha256(source[name], name) != then:
            found = "has changed" if there else "is gone"
            raise InputError(f"{source[name]}: {found} since {folder} was fitted; put back the file as it was then")
    table = tables.any_table(path, source["passthrough"])
    place_n = cryodrgn.read_index(source["ind"], len(table)) if source["ind"] else np.arange(len(table))
    if len(place_n) != len(ensemble):
        raise InputError(f"{path}: {len(place_n)} rows, but {folder} has {len(ensemble)} images; give its own table")
    return table, place_n
