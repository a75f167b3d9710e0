"""What an analysis leaves: labels that name maps, paths, pictures, scripts, one page that needs nothing else."""

import html.parser
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from sklearn.metrics import adjusted_rand_score

from morphem.analysis import Analysis, analyze, latent
from morphem.analysis.decoding import decode_series
from morphem.analysis.landscape import Landscape
from morphem.analysis.maps import write_differences
from morphem.analysis.pictures import Camera, contour, lit_surface, resized, towards_viewer
from morphem.analysis.report import percentages
from morphem.config import write_yaml
from morphem.data.latent_table import LatentTable
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.io.mrc import read_map, write_map
from morphem.models import save_volume
from morphem.models.volume import LinearVolume
from morphem.physics.fsc import half_map_fsc, write_fsc_star
from morphem.physics.masks import sphere

BOX, PIXEL_A, IMAGES = 16, 3.5, 120


def blob(x: float, y: float, z: float, sigma: float = 1.6) -> np.ndarray:
    squared = [(np.arange(BOX) - BOX // 2 - c) ** 2 for c in (x, y, z)]
    return np.exp(-(squared[2][:, None, None] + squared[1][:, None] + squared[0]) / (2 * sigma**2)).astype(np.float32)


def write_run(folder: Path, latent_dim: int) -> Ensemble:
    """A run of a core whose parts come and go: z in as many dimensions as asked."""
    rng = np.random.default_rng(0)
    parts = [0.3 * blob(4 * np.cos(a), 4 * np.sin(a), 0) for a in np.arange(latent_dim)]
    maps = np.stack([blob(0, 0, 0) + sum(parts), *parts])
    z_nq = rng.standard_normal((IMAGES, latent_dim)) * np.geomspace(1, 0.3, latent_dim)
    write_map(folder / "maps" / "consensus.mrc", maps[0], PIXEL_A)
    write_map(folder / "maps" / "mask.mrc", sphere(BOX, 6), PIXEL_A)
    halves = [maps[0] + 0.05 * rng.standard_normal(maps[0].shape) for _ in range(2)]
    write_fsc_star(folder / "maps" / "consensus_fsc.star", half_map_fsc(*halves, sphere(BOX, 6), PIXEL_A))
    save_volume(folder / "weights.safetensors", LinearVolume.of(torch.from_numpy(maps), BOX // 2 - 1))
    cov_nqq, halves_n = np.zeros((*z_nq.shape, z_nq.shape[1])), 1 + np.arange(len(z_nq)) % 2
    LatentTable(z_nq, cov_nqq, np.ones((len(z_nq), 1)), halves_n).write(folder / "latents.parquet")
    source = {"particles": "<script>.star", "no_ctf": True}
    described = {"method": "variability", "version": "0", "seed": 0, "source": source, "settings": {"epochs": 3}}
    write_yaml(folder / "config.yaml", described | {"box": BOX, "pixel_A": PIXEL_A, "radius": BOX / 2 - 1})
    records = [{"epoch": epoch, "loss": 1 / epoch, "stage": "fit"} for epoch in (1, 2, 3)]
    (folder / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "run.log").write_text("2026-01-01 00:00:00 Notice: dark particles\n")
    for name in ("particles.star", "citations.bib"):
        (folder / name).write_text("")
    return Ensemble.open(folder)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory) -> tuple[Ensemble, Path]:
    """A run with a latent of four, analysed with UMAP."""
    ensemble = write_run(tmp_path_factory.mktemp("run"), 4)
    analyze(ensemble, Analysis(clusters=7, frames=4, axes=2), seed=0)
    return ensemble, ensemble.folder / "analysis"


def test_label_map_and_nearest_particle_have_one_number(analysed):
    ensemble, folder = analysed
    clusters = pd.read_parquet(folder / "clusters.parquet")
    assert sorted(clusters["label"].unique()) == list(range(1, 8))
    for number, rows in clusters.groupby("label"):
        centre = rows["centre"].unique()
        assert len(centre) == 1 and clusters["label"][centre[0]] == number
        middle_q = ensemble.z_nq[rows["index"]].mean(0)
        distance_n = np.linalg.norm(ensemble.z_nq[rows["index"]] - middle_q, axis=1)
        assert rows["index"].iloc[distance_n.argmin()] == centre[0]
        expected = next(ensemble.decode(ensemble.z_nq[centre]))
        found, pixel_A = read_map(folder / "kmeans" / f"map_{number:03d}.mrc")
        assert found == pytest.approx(expected, abs=1e-6) and pixel_A == pytest.approx(PIXEL_A)
    assert len(list((folder / "kmeans").iterdir())) == 7


def test_paths_run_along_principal_components(analysed):
    ensemble, folder = analysed
    maps, coordinates = (pd.read_parquet(folder / f"{name}.parquet") for name in ("maps", "coordinates"))
    for number in (1, 2):
        path = maps[maps["series"] == f"pc{number}"]
        z_fq = path[[f"z_{i}" for i in range(4)]].to_numpy()
        assert list(path["map"]) == [1, 2, 3, 4]
        assert np.diff(z_fq, axis=0) == pytest.approx(np.tile(np.diff(z_fq, axis=0)[0], (3, 1)), abs=1e-6)
        reach = np.linalg.norm(z_fq[-1] - z_fq[0])
        low, high = np.percentile(coordinates[f"pc{number}"], [5, 95])
        assert reach == pytest.approx(high - low, rel=1e-5)
        last = next(ensemble.decode(z_fq[-1]))
        assert read_map(folder / f"pc{number}" / "map_004.mrc")[0] == pytest.approx(last, abs=1e-5)
    assert not (folder / "pc3").exists()


def test_umap_is_the_same_again(analysed):
    ensemble, folder = analysed
    again = latent.embed(ensemble.z_nq, seed=0)
    assert np.array_equal(again, pd.read_parquet(folder / "coordinates.parquet")[["umap1", "umap2"]])


def test_scripts_name_the_maps_that_exist(analysed):
    _, folder = analysed
    for name, count in (("kmeans", 7), ("pc1", 4), ("pc2", 4)):
        opened = (
            (folder / f"{name}.cxc").read_text().splitlines()[0].removeprefix("open ").removesuffix(" vseries true")
        )
        files = opened.split(" ")
        assert len(files) == count and all((folder / file).is_file() for file in files)


class Page(html.parser.HTMLParser):
    """Every address that a page would load or link to, and its pictures."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_report_needs_nothing_else(analysed):
    _, folder = analysed
    text = (folder.parent / "report.html").read_text()
    page = Page(text)
    assert len(page.addresses) > 10
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert "url(" not in text and "@import" not in text and "http" not in text


def test_report_escapes_names_and_shows_warnings(analysed):
    text = (analysed[1].parent / "report.html").read_text()
    assert "&lt;script&gt;.star" in text and Page(text).scripts == 2
    assert "dark particles" in text


@pytest.mark.parametrize("latent_dim", [0, 1, 2])
def test_every_latent_dimension_has_a_report(tmp_path, latent_dim):
    report = analyze(write_run(tmp_path / "run", latent_dim), Analysis(clusters=3, frames=2), seed=0)
    folder = report.parent / "analysis"
    assert (folder / "consensus.png").is_file() and (folder / "fsc.png").is_file()
    assert {path.name for path in folder.glob("pc*.cxc")} == {f"pc{i + 1}.cxc" for i in range(latent_dim)}
    assert ("States" in report.read_text()) == (latent_dim > 0)


def test_an_analysis_replaces_the_former_one(tmp_path):
    ensemble = write_run(tmp_path / "run", 1)
    analyze(ensemble, Analysis(clusters=5, frames=2))
    analyze(ensemble, Analysis(clusters=2, frames=2))
    assert len(list((ensemble.folder / "analysis" / "kmeans").iterdir())) == 2
    assert not [path for path in ensemble.folder.iterdir() if path.name.startswith(".")]


def test_more_clusters_than_images_are_refused_and_nothing_is_left(tmp_path):
    ensemble = write_run(tmp_path / "run", 1)
    before = sorted(ensemble.folder.iterdir())
    with pytest.raises(InputError, match="--clusters 121"):
        analyze(ensemble, Analysis(clusters=121))
    assert sorted(ensemble.folder.iterdir()) == before


def test_67_decoded_maps_come_whole_and_are_not_overwritten_unasked(tmp_path):
    ensemble, folder = write_run(tmp_path / "run", 2), tmp_path / "out"
    decode_series(ensemble, np.zeros((3, 2)), folder, "model", overwrite=False)
    names = {"map_001.mrc", "map_002.mrc", "map_003.mrc", "maps.cxc", "z.csv"}
    assert {path.name for path in folder.iterdir()} == names
    with pytest.raises(InputError, match="--overwrite"):
        decode_series(ensemble, np.ones((1, 2)), folder, "model", overwrite=False)
    with pytest.raises(InputError, match="3 numbers"):
        decode_series(ensemble, np.ones((1, 3)), folder, "model", overwrite=True)
    assert {path.name for path in folder.iterdir()} == names
    decode_series(ensemble, np.ones((1, 2)), folder, "model", overwrite=True)
    assert {path.name for path in folder.iterdir()} == {"map_001.mrc", "maps.cxc", "z.csv"}


def test_percentages_add_up():
    for count_k in ([1, 1, 1], [333, 333, 334], [7], np.arange(1, 21)):
        assert sum(round(10 * float(share)) for share in percentages(np.array(count_k))) == 1000


def test_principal_components_are_those_of_a_known_ellipse():
    rng = np.random.default_rng(0)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    z_nq = rng.standard_normal((20_000, 2)) * [3, 1] @ turn + [5, 7]
    found = latent.principal_components(z_nq)
    assert found.axis_pq == pytest.approx(np.array([[0.6, 0.8], [0.8, -0.6]]), abs=0.02)
    assert found.share_p == pytest.approx([0.9, 0.1], abs=0.01)
    assert found.mean_q + found.coordinate_np @ found.axis_pq == pytest.approx(z_nq)
    unsure = np.broadcast_to(np.eye(2), (20_000, 2, 2))
    assert found.reliability(unsure) == pytest.approx([0.9, 0.5], abs=0.02)


def test_points_beyond_the_landmarks_lie_among_their_neighbours(monkeypatch):
    monkeypatch.setattr(latent, "LANDMARKS", 100)
    monkeypatch.setattr(latent, "_umap", lambda z_nq, seed: z_nq[:, :2].copy())
    z_nq = np.random.default_rng(0).uniform(size=(3000, 3))
    plane_n2 = latent.embed(z_nq, seed=0)
    assert np.abs(plane_n2 - z_nq[:, :2]).mean() < 0.15
    assert np.sum(np.all(plane_n2 == z_nq[:, :2], axis=1)) >= 100


def test_views_are_rotations_never_mirrors():
    map_zyx = np.random.default_rng(0).standard_normal((BOX, BOX, BOX))
    index_3zyx = np.indices((BOX, BOX, BOX))
    for axis in "xyz":
        direction_33 = np.stack(
            [np.gradient(towards_viewer(i, axis).astype(float), axis=(0, 1, 2)) for i in index_3zyx]
        )
        assert np.linalg.det(direction_33[:, :, 1, 1, 1]) == pytest.approx(1)
        assert towards_viewer(map_zyx, axis).sum() == pytest.approx(map_zyx.sum())


def test_contour_parts_a_ball_from_noise():
    ball = sphere(32, 8, edge=0) + 0.1 * np.random.default_rng(0).standard_normal((32, 32, 32))
    assert 0.3 < contour(ball) < 0.7


def test_the_lit_side_of_a_ball_is_where_the_light_is():
    surface_uw2 = lit_surface(sphere(32, 10, edge=4), 0.5, side=64)
    bright_uw, cover_uw = np.moveaxis(surface_uw2, -1, 0)
    assert cover_uw.sum() == pytest.approx(np.pi * (2 * 12) ** 2, rel=0.05)
    assert bright_uw[42, 22] > bright_uw[22, 42] + 0.1


def test_resizing_keeps_densities_and_places():
    fine = resized(blob(2, -1, 3), 2 * BOX)
    assert np.unravel_index(fine.argmax(), fine.shape) == (BOX + 6, BOX - 2, BOX + 4)
    assert fine.max() == pytest.approx(1, abs=0.02)


def test_pictures_hold_all_density():
    camera = Camera.of(blob(5, 0, 0) + blob(-5, 0, 0))
    assert camera.reach >= 7


def test_figures_are_drawn(analysed):
    for name in ("consensus", "fsc", "history", "variance", "pca", "umap", "kmeans", "pc1"):
        picture = imread(analysed[1] / f"{name}.png")
        assert picture.shape[1] > 300 and picture[..., :3].std() > 0.02


def test_a_frame_off_the_data_is_known_in_the_table_and_shown(tmp_path, capsys):
    ensemble = write_run(tmp_path / "run", 2)
    angle_n = np.linspace(0, 2 * np.pi, IMAGES)
    ring = LatentTable.read(ensemble.folder / "latents.parquet")
    z_nq = np.stack([2 * np.cos(angle_n), np.sin(angle_n)], axis=1).astype(np.float32)
    replace(ring, z_nq=z_nq).write(ensemble.folder / "latents.parquet")
    report = analyze(Ensemble.open(ensemble.folder), Analysis(clusters=3, frames=5, axes=1))
    maps = pd.read_parquet(report.parent / "analysis" / "maps.parquet")
    path = maps[maps["series"] == "pc1"]
    assert list(path["off_data"]) == [0, 1, 1, 1, 0] and path["density"].iloc[2] < 0.2
    assert "pc1: 3 of 5 frames lie where there are no images: 2, 3, 4" in capsys.readouterr().err
    assert report.read_text().count("no images are near<") == 3


def test_densities_are_corrected_where_the_run_says_how_unsure_z_is(tmp_path):
    ensemble = write_run(tmp_path / "run", 2)
    table = LatentTable.read(ensemble.folder / "latents.parquet")
    replace(table, cov_nqq=np.tile(0.1 * np.eye(2), (IMAGES, 1, 1))).write(ensemble.folder / "latents.parquet")
    folder = analyze(Ensemble.open(ensemble.folder), Analysis(clusters=3, frames=2)).parent / "analysis"
    states = pd.read_parquet(folder / "populations.parquet")
    assert list(states["label"]) == [1, 2, 3] and states["images"].sum() == IMAGES
    assert states["corrected"].sum() == pytest.approx(1, abs=1e-4)
    assert pd.read_parquet(folder / "free_energy.parquet")["corrected"].min() == pytest.approx(0)
    assert len(pd.read_parquet(folder / "free_energy_plane.parquet")) == 1600
    assert imread(folder / "populations.png").std() > 0.02 and imread(folder / "free_energy.png").std() > 0.02


def test_a_landscape_has_the_distances_of_its_maps_and_finds_their_groups():
    rng = np.random.default_rng(0)
    group_m = np.repeat([0, 1, 2], 10)
    map_mv = rng.standard_normal((3, 400))[group_m] + 0.1 * rng.standard_normal((30, 400))
    weight_m = rng.integers(1, 9, 30)
    found = Landscape.of(map_mv, weight_m, 3)
    assert adjusted_rand_score(group_m, found.state_m) == 1
    assert found.axis_pv @ found.axis_pv.T == pytest.approx(np.eye(len(found.axis_pv)), abs=1e-6)
    assert found.mean_v == pytest.approx(np.average(map_mv, axis=0, weights=weight_m))
    exact = np.linalg.svd(np.sqrt(weight_m / weight_m.sum())[:, None] * (map_mv - found.mean_v))[1] ** 2
    assert found.share_p == pytest.approx((exact / exact.sum())[:10], abs=1e-6)
    first = found.means(map_mv)[found.state_m[0] - 1]
    same = found.state_m == found.state_m[0]
    assert first == pytest.approx(np.average(map_mv[same], axis=0, weights=weight_m[same]))


def test_a_landscape_of_a_linear_run_is_its_latent(tmp_path):
    """Maps of a linear volume are linear in z: two components hold all, and an image between maps lies between them."""
    ensemble = write_run(tmp_path / "run", 2)
    analyze(ensemble, Analysis(clusters=3, frames=2, landscape=60, landscape_states=4))
    folder = ensemble.folder / "analysis" / "landscape"
    images, maps, states = (pd.read_parquet(folder / f"{name}.parquet") for name in ("coordinates", "maps", "states"))
    assert len(images) == IMAGES and len(maps) == 60 and states["images"].sum() == IMAGES
    assert [name for name in maps if name.startswith("map_pc")] == ["map_pc1", "map_pc2"]
    design = np.column_stack([ensemble.z_nq, np.ones(IMAGES)])
    left = images["map_pc1"] - design @ np.linalg.lstsq(design, images["map_pc1"], rcond=None)[0]
    assert left.var() < 0.05 * images["map_pc1"].var()
    mask = read_map(ensemble.folder / "maps" / "mask.mrc")[0] > 0.5
    of_1 = maps[maps["state"] == 1]
    decoded = np.stack(list(ensemble.decode(of_1[["z_0", "z_1"]].to_numpy())))
    expected = np.average(decoded, axis=0, weights=of_1["images"]) * mask
    assert read_map(folder / "state_001.mrc")[0] == pytest.approx(expected, abs=1e-5)
    assert imread(folder.parent / "landscape.png").std() > 0.02
    assert all((folder / file).is_file() for file in (folder / "states.cxc").read_text().split()[1:5])


def test_difference_maps_are_the_maps_about_their_mean_within_the_mask(tmp_path):
    rng = np.random.default_rng(0)
    map_mzyx, mask_zyx = rng.normal(size=(3, 16, 16, 16)).astype(np.float32), rng.random((16, 16, 16)) > 0.5
    for number, map_zyx in enumerate(map_mzyx, start=1):
        write_map(tmp_path / "pc1" / f"map_{number:03d}.mrc", map_zyx, 2.0)
    series = SimpleNamespace(name="pc1", z_mq=np.zeros((3, 1)))
    write_differences(tmp_path, series, mask_zyx, 2.0)  # pyright: ignore
    for number, map_zyx in enumerate(map_mzyx, start=1):
        found, pixel_A = read_map(tmp_path / "pc1" / f"difference_{number:03d}.mrc")
        np.testing.assert_allclose(found, (map_zyx - map_mzyx.mean(0)) * mask_zyx, atol=1e-6)
        assert pixel_A == 2.0
