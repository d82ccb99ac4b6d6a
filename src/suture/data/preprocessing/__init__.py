"""Preprocessing: from raw examples to a network's inputs."""

from suture.data.preprocessing.images import ImagePreprocessing as ImagePreprocessing
from suture.data.preprocessing.images import parse_preprocessing as parse_preprocessing
from suture.data.preprocessing.texts import TextPreprocessing as TextPreprocessing
from suture.data.preprocessing.texts import explain_token_mismatch as explain_token_mismatch
