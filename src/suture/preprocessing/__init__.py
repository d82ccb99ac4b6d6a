"""What a network wants of raw examples."""

from suture.preprocessing.images import ImagePreprocessing as ImagePreprocessing
from suture.preprocessing.images import parse as parse
from suture.preprocessing.texts import TextPreprocessing as TextPreprocessing
from suture.preprocessing.texts import same_tokens as same_tokens
