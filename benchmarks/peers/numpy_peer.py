"""NumPy with its BLAS: operations alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from speed_rows import Row
from threadpoolctl import threadpool_limits


class Peer:
    """The function of NumPy."""

    trains = False
    version = np.__version__

    def __init__(self, row: Row, weights: Mapping[str, Any], folder: Path, threads: int) -> None:
        self.limits = threadpool_limits(threads)
        inputs = tuple(row.inputs().values())
        function = {"add": np.add, "product": np.matmul}[row.model]
        self.call = lambda: function(*inputs)
