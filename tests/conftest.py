"""What holds for all tests: programs are compiled in each run, and not taken from disk."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("MAPSTO_CACHE_LIMIT", "0")

# Compilers make much and drop all of it at once: with the usual thresholds the collector would
# visit what is alive time and again, to find next to nothing.
gc.set_threshold(500_000, 20, 50)


def pytest_collection_finish() -> None:
    """What was imported stays for the whole run: the collector need not visit it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def kept_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for compiled code that is empty when the run begins."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def kept_code(kept_folder: Path) -> Iterator[None]:
    """While a module's tests run, what is compiled is kept and found again, in other processes too:
    for tests of what programs do there, and not of how they are compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAPSTO_CACHE", str(kept_folder))
        patch.setenv("MAPSTO_CACHE_LIMIT", "512")
        yield
