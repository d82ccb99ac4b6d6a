"""Representations: their shapes, their alignment to pairs of matrices, and the accumulators of all cells."""

from suture.indices import PAPER_EXAMPLES as PAPER_EXAMPLES
from suture.representations.accumulators import Accumulators as Accumulators
from suture.representations.accumulators import AccumulatorSettings as AccumulatorSettings
from suture.representations.accumulators import Cell as Cell
from suture.representations.alignment import DEFAULT_RULE as DEFAULT_RULE
from suture.representations.alignment import Alignment as Alignment
from suture.representations.alignment import AlignmentRule as AlignmentRule
from suture.representations.alignment import Part as Part
from suture.representations.alignment import View as View
from suture.representations.alignment import get_row_mask as get_row_mask
from suture.representations.alignment import to_grid as to_grid
from suture.representations.recognition import NO_CHANNELS as NO_CHANNELS
from suture.representations.recognition import UNKNOWN as UNKNOWN
from suture.representations.recognition import Evidence as Evidence
from suture.representations.recognition import ShapeOverride as ShapeOverride
from suture.representations.recognition import recognise_shape as recognise_shape
from suture.representations.shapes import Kind as Kind
from suture.representations.shapes import Shape as Shape
from suture.representations.shapes import find_image_size as find_image_size
from suture.representations.shapes import find_sequence_lengths as find_sequence_lengths
from suture.representations.shapes import get_token_mask as get_token_mask
