"""Types of NumPy arrays, each with one name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Float32Array = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Strings = NDArray[np.object_]
Arrays = Mapping[str, NDArray[Any]]
"""Arrays of a comparison by name."""
