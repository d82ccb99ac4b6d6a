"""Auxiliary data: out-of-distribution inputs made from in-distribution ones."""

from suture.data.auxiliary.maker import TRAINING_KINDS as TRAINING_KINDS
from suture.data.auxiliary.maker import UNSEEN_KINDS as UNSEEN_KINDS
from suture.data.auxiliary.maker import find_input_kind as find_input_kind
from suture.data.auxiliary.maker import make_auxiliary as make_auxiliary
