"""Where suture deviates from the published code, why, and what it changes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deviation:
    """One deviation from the published code (github.com/szegedai/stitching-ood, commit 85249b2).

    Attributes:
        key: of its measured numbers; "" if nothing is measured.
        what: it is about.
        where: files and lines there.
        published: what that code does.
        ours: what suture does instead.
        change: what it changes where no number is measured.
    """

    key: str
    what: str
    where: str
    published: str
    ours: str
    change: str = ""


_STITCHING, _MODELS = "nn_stitching", "general_utils/models/article_custom"
_SIMILARITY = f"{_STITCHING}/utils/representational_similarity"
_DETECTOR = "exec_train_representation_classifier.py"
DEVIATIONS = (
    Deviation(
        "cut", "Representations of low rank",
        f"{_STITCHING}/utils/low_rank/low_rank.py:18-24, called in exec_probe.py:43-44 and "
        f"{_STITCHING}/stitchers/stitcher.py:63-64",
        "the principal components are those of each mini-batch, in training and in tests",
        'those of all rows of the fitting data, also for test data; basis="batch" repeats theirs'),
    Deviation(
        "pinv", "Cut of the pseudo-inverse", f"{_STITCHING}/init/least_squares.py:123",
        "float32 with PyTorch's default cut, which grows with the number of rows",
        "float64 moments, and a cut at rounding level"),
    Deviation(
        "residual", "Residual of the fit", f"{_STITCHING}/init/least_squares.py:83,149; exec_stitch.py:216",
        "'Normalized PINV difference' is that of a second pseudo-inverse without a cut. The residual on test "
        "batches (exec_stitch.py:197), the paper's structural DM, is that of the installed layer",
        "residuals are always those of the installed layer"),
    Deviation(
        "", "Images of direct matching", f"{_STITCHING}/init/least_squares.py:69",
        "each cell draws its own 100 training images", "all cells use the first 100",
        "cells of one grid differ by their images too; not measured"),
    Deviation(
        "order", "Order of PWCCA's arguments",
        f"{_SIMILARITY}/cca.py:78-82, {_SIMILARITY}/__init__.py:139-140",
        "correlations are weighted by the first representation",
        "pwcca is weighted by the source and pwcca_target by the target"),
    Deviation(
        "positive", "Eigenvalues in CCA", f"{_SIMILARITY}/cca.py:25-31",
        "float32, and every positive eigenvalue is inverted: rounding errors of a cut representation too",
        "float64 moments, and eigenvalues at rounding level are no directions"),
    Deviation(
        "", "Start of the stitching layer",
        f"{_STITCHING}/stitching_layers/__init__.py:19-22, resized_conv_to_conv.py:64-67",
        "all cells between maps start at random, own layers too; the option -i eye is not passed on to them",
        'random too; init="identity" and "dm" are options', "nothing by default; E11 has the others"),
    Deviation(
        "", "Learning rate of fine-tuning detectors", f"{_DETECTOR}:194,243",
        "the schedule is stepped in each batch: the rate falls to a tenth after half as many batches as "
        "there are epochs", "the rate falls after half of the epochs",
        "with 10 epochs, all but 5 batches have 1e-4 in place of 1e-3; not measured"),
    Deviation(
        "", "Crops of auxiliary images", "general_utils/datasets/oe.py:10-15, cifar.py:26-30",
        "only out-of-distribution images are mirrored and cropped; their black border gives them away",
        "both kinds are augmented alike", "a detector can learn the border; not measured"),
    Deviation(
        "", "Images of fine-tuning", f"{_DETECTOR}:179-190",
        "CIFAR-5M as in-distribution images; 32 of them and 32 others in a batch",
        "the training images again; 64 and 64", "not measured"),
    Deviation(
        "", "Length of fine-tuning", f"{_DETECTOR}:185-190",
        "an epoch is as long as the smaller of both sets of images: 300,000, thus 9,375 steps",
        "an epoch is the training images once: 50,000, thus 782 steps", "not measured"),
    Deviation(
        "", "Inputs of detectors", f"{_MODELS}/repr_cls_resnet.py:190",
        "representations as they are, resized to the image",
        "channels are standardised by their native mean and deviation, then resized",
        "detectors train alike at every scale of a site; not measured"),
    Deviation(
        "", "Augmentation of SVHN", "general_utils/datasets/svhn.py:7-12",
        "edges are padded; turns by up to 5 degrees, scales of 0.9 to 1.1 and shears of up to 5 degrees",
        "crops of 4 pixels, without mirroring", "E5 at the paper's scale only; not measured"),
    Deviation(
        "", "Networks of ImageNet", "misc/imagenet_train_main.py",
        "a ResNet-18 that the authors trained", "published weights, by path",
        "E1 at the paper's scale only; not measured"),
)
