"""Moments of all cells of a comparison, accumulated batch by batch."""

from suture.numbers.pair_moments.groups import NonFiniteError as NonFiniteError
from suture.numbers.pair_moments.shared_work import SharedWork as SharedWork
from suture.numbers.pair_moments.sums import PairMoments as PairMoments
