"""Representations: their shapes, their alignment to pairs of matrices, and the accumulators of all cells."""

from suture.indices import PAPER_EXAMPLES as PAPER_EXAMPLES
from suture.representations.accumulators import Accumulators as Accumulators
from suture.representations.accumulators import AccumulatorSettings as AccumulatorSettings
from suture.representations.aligned_moments import Cell as Cell
from suture.representations.alignment import DEFAULT_RULE as DEFAULT_RULE
from suture.representations.alignment import Alignment as Alignment
from suture.representations.alignment import AlignmentRule as AlignmentRule
from suture.representations.alignment import Part as Part
from suture.representations.alignment import View as View
from suture.representations.alignment import get_row_mask as get_row_mask
from suture.representations.alignment import to_grid as to_grid
from suture.representations.shapes import Kind as Kind
from suture.representations.shapes import Shape as Shape
from suture.representations.shapes import ShapeOverride as ShapeOverride
from suture.representations.shapes import find_image_size as find_image_size
from suture.representations.shapes import recognise_shape as recognise_shape
from suture.representations.token_masks import Masks as Masks
from suture.representations.token_masks import TokenMasks as TokenMasks
from suture.representations.token_masks import find_sequence_lengths as find_sequence_lengths
from suture.representations.token_masks import get_token_mask as get_token_mask
from suture.representations.token_masks import has_unpadded_tokens as has_unpadded_tokens
from suture.representations.token_masks import read_mask as read_mask
from suture.representations.token_masks import select_mask as select_mask
from suture.representations.token_masks import select_output_mask as select_output_mask
