"""What holds for all comparisons with PyTorch: its weights are the same ones in each run."""

import pytest


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Starts PyTorch's generator anew for each test: what a model begins with follows from the test
    alone, and so does whether the test passes."""
    pytest.importorskip("torch").manual_seed(3)
