"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of files written by other programs, which are not part of this one."""
    if "MORPHEM_FIXTURES" not in os.environ:
        pytest.skip("MORPHEM_FIXTURES is not set: no files of other programs here")
    return Path(os.environ["MORPHEM_FIXTURES"])
