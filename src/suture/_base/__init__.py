"""Foundation of every room: the error, checks, trees of tensors, files, hashes, progress, free memory."""

from suture._base.checks import describe_value as describe_value
from suture._base.checks import is_count as is_count
from suture._base.errors import SutureError as SutureError
from suture._base.errors import import_optional as import_optional
from suture._base.errors import make_unknown_error as make_unknown_error
from suture._base.errors import summarise_error as summarise_error
from suture._base.files import clean_file_name as clean_file_name
from suture._base.files import make_unwritable_error as make_unwritable_error
from suture._base.files import replace_file as replace_file
from suture._base.files import write_new_file as write_new_file
from suture._base.hashing import fingerprint_network as fingerprint_network
from suture._base.memory import check_free_memory as check_free_memory
from suture._base.memory import format_bytes as format_bytes
from suture._base.progress import Progress as Progress
from suture._base.trees import convert_tensors as convert_tensors
from suture._base.trees import count_duplicates as count_duplicates
from suture._base.trees import count_examples as count_examples
from suture._base.trees import find_only_input as find_only_input
from suture._base.trees import hash_examples as hash_examples
from suture._base.trees import list_tensors as list_tensors
from suture._base.trees import replace_input as replace_input
from suture._base.trees import walk_tensors as walk_tensors
