"""Data: sources of examples, preprocessing for each network, and batches that both networks read in step."""

from suture.data.auxiliary import TRAINING_KINDS as TRAINING_KINDS
from suture.data.auxiliary import UNSEEN_KINDS as UNSEEN_KINDS
from suture.data.auxiliary import find_input_kind as find_input_kind
from suture.data.auxiliary import make_auxiliary as make_auxiliary
from suture.data.batch import Batch as Batch
from suture.data.batch import Prepared as Prepared
from suture.data.batch import Preprocessing as Preprocessing
from suture.data.batch import cut_batch as cut_batch
from suture.data.batch import is_same_batch as is_same_batch
from suture.data.batch import move_batch as move_batch
from suture.data.batches import Batches as Batches
from suture.data.batches import Paired as Paired
from suture.data.batches import can_shuffle as can_shuffle
from suture.data.batches import split_labels as split_labels
from suture.data.batches import split_rows as split_rows
from suture.data.forms import describe_form as describe_form
from suture.data.image_preprocessing import ImagePreprocessing as ImagePreprocessing
from suture.data.image_preprocessing import parse_preprocessing as parse_preprocessing
from suture.data.seen import SeenData as SeenData
from suture.data.sources import is_spec as is_spec
from suture.data.sources import open_pair as open_pair
from suture.data.sources.examples import Examples as Examples
from suture.data.sources.splits import draw_balanced_order as draw_balanced_order
from suture.data.sources.splits import make_generator as make_generator
from suture.data.text_preprocessing import TextPreprocessing as TextPreprocessing
from suture.data.text_preprocessing import explain_token_mismatch as explain_token_mismatch
