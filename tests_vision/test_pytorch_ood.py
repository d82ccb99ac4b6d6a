"""suture's detectors and measures against pytorch-ood 0.4.0 (Kirchheim et al. 2022), where the two mean the
same.

What differs in convention, and how it is undone here:

- Scores: pytorch-ood's are outlier scores, larger = more out-of-distribution. suture's are larger = more
  native.
- Labels: below 0 is out-of-distribution. In AUROC, AUPR-OUT and FPR95TPR these are the positive class; in
  suture the natives are. AUROC is the same either way. suture's `fpr95` is the share of others beyond the
  threshold that 95 % of the natives pass; pytorch-ood's is the share of natives beyond the threshold that 95
  % of the others pass. It becomes suture's when natives are labelled as out-of-distribution and scores keep
  suture's sign.
- AUPR is the area under the precision-recall curve by trapezoids; suture's average precision is the sum over
  steps, as scikit-learn has it. The two differ by the triangles between them, which without ties are of the
  order of 1 / N.
- Mahalanobis: half the squared distance under the *sum* of the scatter of the classes, plus 1e-6 on the
  diagonal; in suture the whole of it under their mean, with shrunken correlations. Without shrinkage suture's
  is 2 N times larger.
- Energy-regularised loss: the same, each mean over its own side (since 0.4.0).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_ood.detector import EnergyBased
from pytorch_ood.detector import Mahalanobis as PeerMahalanobis
from pytorch_ood.loss import EnergyRegularizedLoss
from pytorch_ood.metrics import OODMetrics
from sklearn.metrics import auc, precision_recall_curve

from suture.numbers import ShiftedSums
from suture.numbers.roc import auroc, estimate_separation
from suture.ood import EnergyRecipe, NativeSite, SiteFeatures
from suture.ood.distances import Mahalanobis, fit_gaussians
from suture.ood.energy_classifier import compute_energy, compute_energy_loss
from suture.representations.shapes import Kind, Shape

CLASSES, WIDTH = 5, 12


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def peer_measures(scores: np.ndarray, outlying: np.ndarray) -> dict[str, float]:
    """By name, of outlier scores; `outlying` marks the out-of-distribution ones."""
    labels = torch.where(torch.as_tensor(outlying), -1, 0)
    return {k: float(v) for k, v in OODMetrics().update(torch.as_tensor(scores), labels).compute().items()}


# -- energy --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_energies_are_equal(scale: float) -> None:
    logits = scale * normal(50, CLASSES)
    assert torch.equal(compute_energy(logits), EnergyBased.score(logits))


@pytest.mark.parametrize(("inside", "outside"), [(8, 8), (8, 3), (3, 8), (64, 1)])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("recipe", [
    EnergyRecipe(), EnergyRecipe(weight=0.0), EnergyRecipe(weight=2.0, inside=-5.0, outside=-1.0),
], ids=["paper", "no penalty", "other margins"])
def test_losses_and_their_gradients_are_equal(recipe: EnergyRecipe, scale: float, inside: int,
                                              outside: int) -> None:
    logits = (scale * normal(inside + outside, CLASSES).double()).requires_grad_()
    labels = torch.arange(inside) % CLASSES
    mine = compute_energy_loss(logits[:inside], logits[inside:], labels, recipe)
    peer = EnergyRegularizedLoss(recipe.weight, recipe.inside, recipe.outside)
    theirs = peer(logits, torch.cat([labels, torch.full((outside,), -1)]))
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-12)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (mine, theirs)]
    assert torch.allclose(*gradients, rtol=1e-10, atol=1e-14)


def test_the_papers_recipe_has_the_peers_defaults() -> None:
    recipe, peer = EnergyRecipe.paper(), EnergyRegularizedLoss()
    assert (recipe.weight, recipe.inside, recipe.outside) == (peer.alpha, peer.m_in, peer.m_out)


# -- Mahalanobis ---------------------------------------------------------------------------------------------

def sample(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, WIDTH) correlated features of classes around different means, and their labels."""
    labels = torch.arange(n) % CLASSES
    mix = torch.eye(WIDTH) + 0.3 * normal(WIDTH, WIDTH, seed=90)
    return normal(n, WIDTH, seed=seed) @ mix + 3 * normal(CLASSES, WIDTH, seed=91)[labels], labels


@pytest.mark.parametrize("n", [50, 1000])
@pytest.mark.parametrize("batch", [7, 1000])
def test_distances_without_shrinkage_are_the_peers_times_2n(n: int, batch: int) -> None:
    features, labels = sample(n)
    sums = ShiftedSums()
    for x, y in zip(features.split(batch), labels.split(batch), strict=True):
        sums.update(x, y)
    # The shrinkage falls with the number of examples: with so many there is none.
    mine, shrinkage = fit_gaussians(*sums.compute_within(), 10**15)
    assert shrinkage < 1e-12
    new = torch.cat([sample(40, seed=1)[0], 4 * normal(40, WIDTH, seed=2)])
    peer = PeerMahalanobis(None).fit_features(features, labels).predict_features(new)
    assert mine.square_distances(new).amin(1).numpy() == pytest.approx(2 * n * peer.numpy(), rel=2e-3)


@pytest.mark.parametrize("others", [
    normal(300, WIDTH, seed=3), 6 * normal(300, WIDTH, seed=3), sample(300, seed=4)[0] / 2,
], ids=["unlike", "wide", "shrunken"])
def test_the_detector_as_it_is_ranks_as_the_peer_does(others: torch.Tensor) -> None:
    features, labels = sample(2000)
    shape, sums = Shape(Kind.VECTOR, WIDTH), ShiftedSums()
    sums.update(features, labels)
    mine = Mahalanobis().fit(NativeSite("here", shape, statistics=sums))
    peer = PeerMahalanobis(None).fit_features(features, labels)
    native = sample(300, seed=5)[0]
    ours = [mine.score(SiteFeatures(x, shape)).numpy() for x in (native, others)]
    theirs = [-peer.predict_features(x).numpy() for x in (native, others)]
    assert np.corrcoef(np.argsort(np.argsort(np.concatenate(ours))),
                       np.argsort(np.argsort(np.concatenate(theirs))))[0, 1] > 0.995
    wanted = peer_measures(-np.concatenate(theirs), np.arange(600) >= 300)["AUROC"]
    assert auroc(*ours) == pytest.approx(wanted, abs=0.003)


# -- measures ------------------------------------------------------------------------------------------------

SAMPLES = {
    "overlapping": (normal(300) + 1, normal(300, seed=1)),
    "apart": (normal(300) + 20, normal(300, seed=1)),
    "the wrong way": (normal(300) - 1, normal(300, seed=1)),
    "few": (normal(21) + 1, normal(21, seed=1)),
    "tied": ((2 * normal(300) + 1).round(), (2 * normal(300, seed=1)).round()),
    "unbounded": (torch.exp(30 * normal(300).double()), torch.exp(30 * normal(300, seed=1).double() - 5)),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_measures_are_equal(case: str) -> None:
    native, other = (x.double().numpy() for x in SAMPLES[case])
    mine, scores = estimate_separation(native, other), np.concatenate([native, other])
    is_other = np.arange(len(scores)) >= len(native)
    theirs = peer_measures(-scores, is_other)
    assert mine.auroc.value == pytest.approx(theirs["AUROC"], abs=1e-12)
    precision, recall, _ = precision_recall_curve(~is_other, scores)
    assert theirs["AUPR-IN"] == pytest.approx(auc(recall, precision), abs=1e-12)
    # Recall falls from 1 to 0 along the curve; a step has the precision at its larger recall, a trapezoid the
    # mean.
    triangles = (np.diff(precision) * -np.diff(recall)).sum() / 2
    assert theirs["AUPR-IN"] == pytest.approx(mine.average_precision.value + triangles, abs=1e-12)
    if case != "tied":
        assert abs(triangles) < 1.5 / len(native)
    exchanged = peer_measures(scores, ~is_other)
    assert mine.fpr95.value == pytest.approx(exchanged["FPR95TPR"], abs=1e-12)
    assert exchanged["AUPR-OUT"] == pytest.approx(theirs["AUPR-IN"], abs=1e-12)


def test_the_peers_own_fpr95_answers_another_question() -> None:
    """A tenth of the others is below all natives, the rest above: to find those, every native has to be given
    up."""
    native = np.linspace(0, 1, 1000)
    other = np.concatenate([np.full(100, -1.0), np.full(900, 2.0)])
    scores, is_other = np.concatenate([native, other]), np.arange(2000) >= 1000
    assert estimate_separation(native, other).fpr95.value == 0.9
    assert peer_measures(-scores, is_other)["FPR95TPR"] == 1.0
