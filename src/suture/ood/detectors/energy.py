"""The trained detector of Balogh and Jelasity (2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

from torch import Tensor

from suture.data import Batches
from suture.ood.detector import Detector, NativeData, NativeSite
from suture.ood.detectors.energy_classifier import EnergyClassifier
from suture.ood.detectors.energy_training import train_classifiers
from suture.ood.energy_recipe import EnergyRecipe
from suture.ood.features import SiteFeatures


class Energy(Detector):
    """Minus the energy of a classifier that is trained on the representations of a site.

    `recipe` defaults to that of `suture.OOD`.
    """

    about = ("Minus the energy of a classifier that is trained on the representations of the site, with an "
             "energy margin between native and auxiliary ones (Liu et al. 2020; Balogh and Jelasity 2025).")
    needs_labels = needs_logits = needs_auxiliary = two_sided = True
    classifier: EnergyClassifier

    def __init__(self, recipe: EnergyRecipe | None = None) -> None:
        self.recipe = recipe

    def fit(self, native: NativeSite) -> Self:
        return self.fit_sites([native])[0]

    def fit_sites(self, natives: Sequence[NativeSite]) -> list[Self]:
        data, recipe = _get_data(natives[0]), self._choose_recipe(natives[0])
        stream = Batches(data.data, size=recipe.batch_size, shuffle=True, seed=recipe.seed)
        made = train_classifiers(data, stream, recipe, [n.index for n in natives])
        return [self.copy_with(classifier=made[n.index]) for n in natives]

    def score(self, seen: SiteFeatures) -> Tensor:
        return self.classifier.score(seen)

    def describe_training(self, native: NativeSite) -> dict[str, Any]:
        return {"recipe": asdict(self._choose_recipe(native)), "classes": _get_data(native).classes}

    def get_state(self) -> dict[str, Tensor]:
        return dict(self.classifier.state_dict())

    def restore(self, native: NativeSite, state: Mapping[str, Tensor]) -> Self:
        data = _get_data(native)
        made = EnergyClassifier(native.shape, data.classes, self._choose_recipe(native), data.image_size,
                                native.name)
        made.load_state_dict(dict(state))
        return self.copy_with(classifier=made.eval().requires_grad_(False))

    def _choose_recipe(self, native: NativeSite) -> EnergyRecipe:
        return self.recipe or _get_data(native).recipe


def _get_data(native: NativeSite) -> NativeData:
    assert native.data is not None
    return native.data
