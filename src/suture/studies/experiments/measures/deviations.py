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


_STITCHING = "nn_stitching"
_DETECTOR = "exec_train_representation_classifier.py"
DEVIATIONS = (
    Deviation("cut", "Representations of low rank",
              f"{_STITCHING}/utils/low_rank/low_rank.py:18-24, called in exec_probe.py:43-44 and "
              f"{_STITCHING}/stitchers/stitcher.py:63-64",
              "the principal components are those of each mini-batch, in training and in tests",
              "those of all rows of the fitting data, also for test data; basis=\"batch\" repeats theirs"),
    Deviation("pinv", "Cut of the pseudo-inverse", f"{_STITCHING}/init/least_squares.py:123",
              "float32 with PyTorch's default cut, which grows with the number of rows",
              "float64 moments with a cut that rounding asks for (suture.stitching.direct_match)"),
    Deviation("residual", "Residual of the fit", f"{_STITCHING}/init/least_squares.py:83,149; exec_stitch.py:216",
              "\"Normalized PINV difference\" is that of a second pseudo-inverse without a cut; the one on test "
              "batches (exec_stitch.py:217), the paper's structural DM, is that of the installed layer",
              "residuals are always those of the installed layer"),
    Deviation("images", "Images of direct matching", f"{_STITCHING}/init/least_squares.py:69",
              "each cell draws its own 100 training images", "all cells use the first 100",
              "cells of one grid differ by their images too; not measured"),
    Deviation("order", "Order of PWCCA's arguments",
              f"{_STITCHING}/utils/representational_similarity/cca.py:78-82, __init__.py:139-140",
              "correlations are weighted by the first representation, without saying so",
              "pwcca is weighted by the source, pwcca_target by the target, and both have their name"),
    Deviation("positive", "Eigenvalues in CCA",
              f"{_STITCHING}/utils/representational_similarity/cca.py:25-31",
              "float32, and every positive eigenvalue is inverted, rounding errors of a cut representation too",
              "float64 moments, and eigenvalues at rounding level are no directions"),
    Deviation("", "Start of the stitching layer",
              f"{_STITCHING}/stitching_layers/__init__.py:19-22, resized_conv_to_conv.py:64-67",
              "all cells between maps start at random, the layer's own too; the option -i eye is not passed on",
              "random too; init=\"identity\" and \"dm\" are options", "nothing by default; E11 has the others"),
    Deviation("", "Learning rate of fine-tuning detectors", f"{_DETECTOR}:194,243",
              "the rate falls to a tenth after 5 batches, because the schedule is stepped in each batch",
              "after half of the epochs", "detectors are fine-tuned at 1e-4 for all but 5 steps; not measured"),
    Deviation("", "Crops of auxiliary images", "general_utils/datasets/oe.py:10-15, cifar.py:26-30",
              "only out-of-distribution images are flipped and cropped with a black border, which gives them away",
              "both kinds are augmented alike", "a detector can learn the border; not measured"),
    Deviation("", "Images of fine-tuning", f"{_DETECTOR}:179-190",
              "CIFAR-5M as in-distribution images, 32 and 32 images a step",
              "the training images again, 64 and 64", "not measured"),
    Deviation("", "Inputs of detectors", "general_utils/models/article_custom/repr_cls_resnet.py",
              "representations as they are", "channels are standardised by the native mean and deviation",
              "detectors train alike at every scale of a site; not measured"),
)
