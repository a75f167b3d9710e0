"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from morphem.run import Compute

os.environ["OMP_NUM_THREADS"] = "1"  # of each worker: with more, two workers' threads spin for the same two cores

settings.register_profile("steady", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("steady")


def pytest_runtest_setup() -> None:
    """One thread, whatever the test before took."""
    Compute().apply()


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of files written by other programs, which are not part of this one."""
    if "MORPHEM_FIXTURES" not in os.environ:
        pytest.skip("MORPHEM_FIXTURES is not set: no files of other programs here")
    return Path(os.environ["MORPHEM_FIXTURES"])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A truth folder of 150 small images: a hinge in four states, with CTF, shifts and little noise."""
    from morphem.data.simulation import Simulation
    from morphem.data.synthetic import simulate

    folder = tmp_path_factory.mktemp("tiny") / "hinge"
    simulate(folder, Simulation(images=150, box=32, pixel_size=6.0, snr=2.0, states=4))
    return folder


@pytest.fixture(scope="session")
def tiny_set(tiny):
    """Those images, opened."""
    from morphem.data.dataset import Dataset, Source

    return Dataset.open(Source(tiny / "particles.star"))
