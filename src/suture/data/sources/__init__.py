"""Sources of data by path, by name or by object, as raw examples.

>>> from suture import sources
>>> sources.open_pair("data/cifar10", train_size=5000)[0]
Examples(cifar10-train/5000@0: 5000 images, 10 classes)
"""

from suture.data.sources.examples import Examples as Examples
from suture.data.sources.specs import is_spec as is_spec
from suture.data.sources.specs import open_auxiliary as open_auxiliary
from suture.data.sources.specs import open_pair as open_pair
from suture.data.sources.specs import open_source as open_source
