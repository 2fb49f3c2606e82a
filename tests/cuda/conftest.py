"""Where the tests of this folder run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from monai_cae.training import use_machine


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The GPU; with `--on cpu` the CPU, which tries the tests, not the GPU."""
    return request.config.getoption("--on")


@pytest.fixture
def gpu(device: str) -> str:
    """The GPU, for what a CPU can't show."""
    if device == "cpu":
        pytest.skip("a CPU has nothing of this")
    return device


@pytest.fixture(autouse=True)
def usual_machine() -> Iterator[None]:
    """What a run has set for its process does not stay for the next test."""
    yield
    use_machine()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
