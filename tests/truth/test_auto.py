"""`fit auto`: what moves is found by a method that can hold it, and what does not is left alone."""

import numpy as np
import pytest

from morphem.data.dataset import Dataset, Source
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.evaluation import Auto
from morphem.evaluation.auto import FOLDER, fit
from morphem.run import NOTICE, Compute, Run

SHAPE = {"images": 800, "box": 32, "pixel_size": 6.0, "snr": 0.3}


def competed(folder, methods=("variability", "classify"), **what) -> tuple[Ensemble, list[dict]]:
    simulate(folder / "set", Simulation(**(SHAPE | what)))
    run = Run(folder / "run", Compute(threads=1))
    ensemble = fit(Dataset.open(Source(folder / "set" / "particles.star")), Auto(methods=methods), run)
    return ensemble, [record for record in run.history() if record.get("part") == "auto"]


def test_a_turning_arm_is_given_to_a_method_that_moves(tmp_path):
    ensemble, compared = competed(tmp_path, kind="hinge", images=600)
    by_name = {record["method"]: record for record in compared}
    assert ensemble.method == "variability"
    assert ensemble.latent_dim == ensemble.config["settings"]["latent_dim"] == by_name["variability"]["latent_dim"] > 1
    assert len(ensemble) == 600 and len(Ensemble.open(tmp_path / "run" / FOLDER / "classify")) == 540


def test_a_still_molecule_is_left_alone(tmp_path):
    ensemble, compared = competed(tmp_path, kind="still")
    assert ensemble.method == "backproject" and len(compared) == 2
    assert NOTICE + "No heterogeneity is shown" in (tmp_path / "run" / "run.log").read_text()


def test_a_candidate_can_be_opened_with_the_images_that_it_has_seen(tmp_path):
    competed(tmp_path, methods=("variability",), kind="hinge", images=400)
    candidate = Ensemble.open(tmp_path / "run" / FOLDER / "variability")
    whole = Dataset.open(Source(tmp_path / "set" / "particles.star"))
    names = dict(zip(whole.particles.image_names, whole.packed_nk, strict=True))
    own = candidate.dataset()
    numbers = [int(name.split("@")[0]) for name in own.particles.image_names]
    assert len(own) == 360 and numbers == sorted(set(numbers))
    first = next(iter(names)).split("@")[1]
    for number, packed_k in zip(numbers, own.packed_nk, strict=True):
        np.testing.assert_array_equal(packed_k, names[f"{number:06d}@{first}"][: len(packed_k)])


@pytest.mark.parametrize("wrong", [{"methods": ()}, {"images": 10}, {"held_out": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError):
        Auto(**wrong)
