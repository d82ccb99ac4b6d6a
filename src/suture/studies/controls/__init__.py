"""Controls: cells whose right verdict is known, to measure how often a verdict is wrong.

>>> suture.controls.grade(network, train, test)                       # altered native representations
>>> noise = suture.controls.class_noise(network, images, "layer1.0")  # a source that holds only the class
>>> suture.compare(noise, network, train, test, sites=[noise.site])
"""

from suture.studies.controls.alterations import ALTERATIONS as ALTERATIONS
from suture.studies.controls.grading import grade as grade
from suture.studies.controls.pairing import PermutedExamples as PermutedExamples
from suture.studies.controls.pairing import permuted_examples as permuted_examples
from suture.studies.controls.retrained import random_labels as random_labels
from suture.studies.controls.retrained import random_weights as random_weights
from suture.studies.controls.retrained import rotated as rotated
from suture.studies.controls.sources import NoiseSource as NoiseSource
from suture.studies.controls.sources import class_noise as class_noise
from suture.studies.controls.sources import pure_noise as pure_noise
from suture.studies.controls.truths import TRUTHS as TRUTHS
from suture.studies.controls.truths import Truth as Truth
from suture.studies.controls.truths import find_truth as find_truth
from suture.studies.controls.truths import tabulate_truths as tabulate_truths
