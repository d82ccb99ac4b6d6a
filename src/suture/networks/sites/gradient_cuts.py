"""Functions in a forward pass that numbers go through without their gradient."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from suture.networks.sites.axis_trace import PausableMode, walk_arguments

_VALUES = re.compile("item|tolist|numpy|equal|allclose|is_nonzero|"
                     "__(bool|int|float|index|array|format|repr|contains|dlpack)__")
"""Functions that make other values of a tensor's numbers."""
_SHAPES = re.compile(r".*_like|new_.*|size|__len__")
"""Functions that read the shape of a tensor alone."""


class GradientCuts(PausableMode):
    """A context that sees where numbers go on without their gradient: a comparison, an index, `detach`.

    Attributes:
        found: True if some function of a tensor with a gradient gave another one without, or its values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if not (self._pauses or self.found) and any(t.requires_grad for t in walk_arguments(args, kwargs)):
            name = getattr(func, "__name__", "")
            given = args[:1] if made is None else made  # what is None was written into the first one
            tensors = [t for t in (given if isinstance(given, tuple | list) else [given])
                       if isinstance(t, Tensor)]
            self.found = bool(_VALUES.fullmatch(name)) or (not all(t.requires_grad for t in tensors)
                                             and not _SHAPES.fullmatch(name))
        return made

