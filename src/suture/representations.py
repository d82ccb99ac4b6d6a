"""The kinds of representation and how two of them are brought to the same rows. The only place that knows shapes.

Inside suture a representation is a *grid*: (N, H, W, C), channels last. A map (N, C, H, W) is one by a permutation
that copies nothing where the network runs channels last; a vector (N, D) is a grid of one position.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from suture._errors import SutureError
from suture.moments import Resampling, resize


class Kind(Enum):
    """What a site outputs: a map (C, H, W), tokens (T, D) or a vector (D)."""

    MAP = "map"
    TOKENS = "tokens"
    VECTOR = "vector"


@dataclass(frozen=True)
class Shape:
    """Shape of one example's representation.

    Attributes:
        kind: map, tokens or vector.
        width: number of channels or token dimensions.
        size: positions: (H, W) of a map, (T,) of tokens, () of a vector.
    """

    kind: Kind
    width: int
    size: tuple[int, ...] = ()

    def __str__(self) -> str:
        dims = (self.width, *self.size) if self.kind is Kind.MAP else (*self.size, self.width)
        return f"{self.kind.value} {'x'.join(map(str, dims))}"

    @property
    def grid(self) -> tuple[Kind, int, int]:
        """Equal for two shapes exactly when their positions correspond one to one."""
        height, width = self.size if self.kind is Kind.MAP else (1, 1)
        return self.kind, height, width

    @property
    def rows(self) -> int:
        """Rows that one example gives to a matrix."""
        _, height, width = self.grid
        return height * width


def shape_of(x: Tensor) -> Shape:
    """The shape of a batch of representations: (N, C, H, W) is a map, (N, D) a vector.

    Raises:
        SutureError: any other number of axes. Tokens (N, T, D) are recognised and refused where they are aligned.
    """
    if x.ndim == 4:
        return Shape(Kind.MAP, x.shape[1], (x.shape[2], x.shape[3]))
    if x.ndim == 3:
        return Shape(Kind.TOKENS, x.shape[2], (x.shape[1],))
    if x.ndim == 2:
        return Shape(Kind.VECTOR, x.shape[1])
    raise SutureError(f"expected a representation (N, C, H, W) or (N, D), got shape {tuple(x.shape)}; "
                      "choose another site or output slot")


def to_grid(x: Tensor) -> Tensor:
    """A map (N, C, H, W) or a vector (N, D) as a grid (N, H, W, C)."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x[:, None, None, :]


def from_grid(grid: Tensor, kind: Kind) -> Tensor:
    """The inverse of `to_grid`."""
    return grid.permute(0, 3, 1, 2) if kind is Kind.MAP else grid[:, 0, 0, :]


@dataclass(frozen=True)
class Alignment:
    """How a source's representation gets the target's positions.

    A map into a map is resized bilinearly (corners not aligned, no antialiasing: the paper's choice); a map into a
    vector is averaged over its positions; a vector into a map is repeated at every position; equal positions are
    left alone. Every one of them is a linear map on positions whose weights sum to one, so it commutes with an
    affine map of the channels.
    """

    source: Shape
    target: Shape

    def __post_init__(self) -> None:
        if Kind.TOKENS in (self.source.kind, self.target.kind):
            raise SutureError(f"cannot align {self.source} with {self.target}: this version stitches maps and "
                              "vectors; choose sites that give (N, C, H, W) or (N, D)")

    @property
    def resampling(self) -> Resampling:
        """The linear map on positions."""
        (_, *source), (kind, *target) = self.source.grid, self.target.grid
        mean = kind is Kind.VECTOR and self.source.kind is Kind.MAP
        return Resampling((source[0], source[1]), (target[0], target[1]), mean)

    @property
    def grows(self) -> bool:
        """Whether the target has more positions, so that the affine map is cheaper before the resize."""
        return self.target.rows > self.source.rows

    def resize(self, grid: Tensor) -> Tensor:
        """Bring a grid (N, H, W, C) of the source to the target's positions (N, H', W', C)."""
        r = self.resampling
        if r.mean:
            return grid.mean((1, 2), keepdim=True)
        return grid if r.source == r.target else resize(grid, r.target)
