"""Auxiliary data: out-of-distribution inputs made from in-distribution ones, without downloads."""

from suture._base import count_duplicates as count_duplicates
from suture.data.auxiliary.maker import TRAINING_KINDS as TRAINING_KINDS
from suture.data.auxiliary.maker import UNSEEN_KINDS as UNSEEN_KINDS
from suture.data.auxiliary.maker import find_input_kind as find_input_kind
from suture.data.auxiliary.maker import list_allowed_kinds as list_allowed_kinds
from suture.data.auxiliary.maker import make_auxiliary as make_auxiliary
