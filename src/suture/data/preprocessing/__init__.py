"""What a network wants of raw examples."""

from suture.data.preprocessing.images import ImagePreprocessing as ImagePreprocessing
from suture.data.preprocessing.images import parse as parse
from suture.data.preprocessing.texts import TextPreprocessing as TextPreprocessing
from suture.data.preprocessing.texts import same_tokens as same_tokens
