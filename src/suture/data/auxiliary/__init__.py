"""Auxiliary data: inputs that a network was never made for, made from a sample of its own; nothing is
downloaded."""

from suture._base import count_duplicates as count_duplicates
from suture.data.auxiliary.maker import TRAINING_KINDS as TRAINING_KINDS
from suture.data.auxiliary.maker import UNSEEN_KINDS as UNSEEN_KINDS
from suture.data.auxiliary.maker import find_input_kind as find_input_kind
from suture.data.auxiliary.maker import list_allowed_kinds as list_allowed_kinds
from suture.data.auxiliary.maker import make_auxiliary as make_auxiliary
