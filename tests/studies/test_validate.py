"""`suture.validate` on small networks: the example of docs/measures.md, files, bad input, the command."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import suture
from suture import SutureError, zoo
from suture.networks import Recipe, train
from suture.studies import MeasuredCell, Validation, controls, train_groups
from suture.studies.measure_tests import network_statistics
from suture.studies.measure_tests.battery import function_tests, group_tests
from suture.studies.measure_tests.battery.control_tests import CONTROLS
from suture.studies.measure_tests.trained_groups import add_noise, add_shortcut, randomise_labels
from suture.studies.network_study import inference

PAGE = Path(__file__).parents[2] / "docs" / "measures.md"
CIFAR = Path(os.environ.get("CIFAR10", "/work/shared/data/cifar10"))
HOW: dict[str, Any] = {"sites": ["1", "3"], "device": "cpu", "controls": ()}


def draw_few(patch: pytest.MonkeyPatch) -> None:
    for module in (network_statistics, function_tests, group_tests, inference):
        patch.setattr(module, "DRAWS", 100)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_few(monkeypatch)


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    x = torch.rand(90, 12, generator=torch.Generator().manual_seed(0))
    return (x[:60], x[:60, :3].argmax(1)), (x[60:], x[60:, :3].argmax(1))


@pytest.fixture(scope="module")
def networks(data: tuple[Any, Any]) -> dict[str, nn.Module]:
    return {f"seed {k}": make(k, data) for k in range(4)}


def make(seed: int, data: tuple[Any, Any]) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    train(made, *data[0], Recipe(epochs=3, lr=1e-2, seed=seed))
    return made.eval()


def test_the_example_of_the_page_runs_the_whole_battery(tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    ran: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), ran)
    found = ran["found"]
    assert found.measures == ("my_measure",)
    assert found.table["effect"].notna().all()
    assert set(CONTROLS) < set(found.tests)
    assert found.outcome("my_measure", "self").effect == 1
    assert found.outcome("my_measure", "pure noise").effect > 0.8
    page = (tmp_path / "validation.html").read_text()
    assert "my measure" in page
    assert all(test in page for test in found.tests)


def often_nan(x: np.ndarray, y: np.ndarray) -> float:
    return float("nan") if x[0, 0] > y[0, 0] else 1.0


def distance(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.linalg.norm(x - y))


def run(networks: Any, data: Any, folder: Path, seen: list[str]) -> Validation:
    return suture.validate(
        networks, *data, sites=["1", "3"], device="cpu", measures=["cka@pool", often_nan, distance],
        folder=folder, controls="class noise", control_targets=1, sensitivity=True, by="half",
        about={name: {"half": k // 2} for k, name in enumerate(networks)},
        function={name: 0.1 * k for k, name in enumerate(networks)},
        progress=lambda stage, done, total: seen.append(stage),
        on_result=lambda pair: seen.append(f"taken over: {pair.taken_over}"))


@pytest.fixture(scope="module")
def whole(networks: Any, data: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Validation, Path]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        draw_few(patch)
        return run(networks, data, folder, []), folder


def test_a_validation_in_a_folder_is_kept(whole: tuple[Validation, Path], networks: Any, data: Any) -> None:
    (first, folder), seen = whole, list[str]()
    second = run(networks, data, folder, seen)
    assert "testing measures" in seen
    assert "taken over: True" in seen
    assert "taken over: False" not in seen
    assert second.table.equals(first.table)
    loaded = Validation.load(folder)
    assert loaded.table.equals(first.table)
    assert loaded.warnings == first.warnings
    for measure, sentence in zip(first.measures, first.findings, strict=True):
        passed = [o for o in first.outcomes if o.measure == measure and o.passed]
        listed = f"{len(passed)} tests ({', '.join(o.test for o in passed)})" if passed else "no test"
        assert f" passes {listed} and fails " in sentence
    weak = {o.test for o in first.outcomes if o.power < 0.8}
    assert weak
    assert [all(f" {test} 0." in line for test in weak) for line in first.warnings].count(True) == 1
    assert "4 networks" in repr(loaded)
    with pytest.raises(SutureError, match="expected a validation"):
        Validation.load(folder / "population")


def test_a_study_that_is_there_is_tested(whole: tuple[Validation, Path]) -> None:
    first, folder = whole
    again = suture.validate(suture.Study.load(folder / "population"), measures="cka@pool", sensitivity=True)
    assert again.outcome("cka@pool", "specificity").effect == first.outcome("cka@pool", "specificity").effect
    assert any("sensitivity: it needs the networks" in line for line in again.warnings)
    assert again.outcome("cka@pool", "class noise").reason == "it needs several networks and their data"


def test_measures_with_nan_and_distances_by_mistake(whole: tuple[Validation, Path]) -> None:
    found = whole[0]
    assert any("cells have no value" in line for line in found.warnings)
    assert any("distance: it scores a layer itself below" in line for line in found.warnings)
    mine = found.table.query("measure == 'distance'")["test"]
    assert [test for test in mine if not test.startswith("sensitivity")] == ["direction"]


def test_groups_and_functions_that_a_user_gives(whole: tuple[Validation, Path]) -> None:
    found = whole[0]
    assert found.outcome("cka@pool", "half").unit == "AUROC"
    assert not np.isnan(found.outcome("cka@pool", "function").effect)
    assert not any("binomial" in line for line in found.warnings)
    assert any(test.startswith("sensitivity") for test in found.tests)


def test_a_study_of_shuffled_examples_shuffles_them(networks: Any, data: Any) -> None:
    """Passes that pairs share once showed both networks the same examples."""
    shuffled = controls.permuted_examples(data[0])
    how: dict[str, Any] = {"sites": ["3"], "device": "cpu", "methods": (), "indices": "cka", "ood": None}
    study = suture.study(networks, shuffled, pairs="directed", **how)
    alone = suture.compare(networks["seed 0"], networks["seed 1"], shuffled, **how)
    assert study.comparison("seed 0", "seed 1").matrix("cka").iloc[0, 0] == alone.matrix("cka").iloc[0, 0]


def test_one_network_and_two(networks: Any, data: Any) -> None:
    one = suture.validate({"a": networks["seed 0"]}, *data, measures="cka", **HOW)
    assert "needs several networks, got 1" in one.outcome("cka", "correspondence").reason
    assert "Intervals over networks need 3 of them, got 1." in one.warnings
    two = suture.validate(dict(list(networks.items())[:2]), *data, measures="cka", **HOW)
    assert np.isnan(two.table["low"]).all()
    assert "2 networks: an interval needs 3" in two.outcome("cka", "specificity").reason


@pytest.mark.parametrize(("given", "named"), [
    ({"measures": ()}, "at least one measure"), ({"measures": "ckaa"}, "'ckaa'"),
    ({"measures": "dm.natural_distance"}, "natural_distance"), ({"controls": ["ghost"]}, "'ghost'"),
    ({"indices": "cka"}, "measures="), ({"pairs": "self"}, "measures="), ({"by": "width"}, "'width'"),
    ({"function": {"other": 1.0}}, "seed 0"), ({"function": {"seed 0": [1.0]}}, "shape"),
    ({"layers": {"seed 9": ["1"]}}, "'seed 9'")])
def test_bad_input(networks: Any, data: Any, given: dict[str, Any], named: str) -> None:
    with pytest.raises(SutureError, match=named):
        suture.validate({"seed 0": networks["seed 0"]}, *data, **{**HOW, "measures": "cka", **given})


def test_a_measure_of_cells(networks: Any, data: Any) -> None:
    def half(cell: MeasuredCell) -> Any:
        return cell.value("cka") / 2 if cell.source == "seed 0" else "much"

    half_of = suture.studies.of_cell(half, needs=("cka",))
    one = {"seed 0": networks["seed 0"]}
    found = suture.validate(one, *data, measures=["cka", half_of], **HOW)
    assert found.outcome("half", "self").effect == found.outcome("cka", "self").effect == 1
    with pytest.raises(SutureError, match="'much'"):
        suture.validate({"seed 1": networks["seed 1"]}, *data, measures=half_of, **HOW)
    with pytest.raises(SutureError, match="cka"):
        suture.studies.of_cell(lambda cell: 1.0, "cka")


def test_images_of_groups_are_altered_as_they_say() -> None:
    images = zoo.digits("test").subset(100)
    labels = randomise_labels(images, 0.5, 0).labels
    assert 30 < (labels != images.labels).sum() <= 50
    assert labels.bincount().equal(images.labels.bincount())
    for share, least, most in ((1.0, 1, 1), (0.0, 0, 0.3)):
        shown = add_shortcut(images, share, 0).inputs.flatten(1)[:, :10]
        assert (shown.sum(1) == 1).all()
        assert least <= (shown.argmax(1) == images.labels).float().mean() <= most
    noisy = add_noise(images, 0.2, 0)
    assert noisy.inputs[100:].sub(images.inputs).std() == pytest.approx(0.2, rel=0.05)
    made = train_groups("shortcut", data=(images, images), recipe=Recipe(epochs=1), levels=(0.0, 1.0),
                        seeds=1)
    assert [words["shortcut"] for words in made.about.values()] == ["0.0", "1.0"]
    with pytest.raises(SutureError, match="colours"):
        train_groups("colours")


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.exists(), reason=f"no CIFAR-10 in {CIFAR}")
def test_five_seeds_of_a_resnet20_on_cifar10(tmp_path: Path) -> None:
    """The run of docs/measures.py with two epochs on 5,000 images."""
    sys.path.insert(0, str(PAGE.parent))
    from common import read_images

    images = read_images("cifar10", CIFAR, 5000, 500, 500)
    recipe = replace(zoo.RECIPES["cifar10-resnet20"], epochs=2)
    given = {f"seed {k}": zoo.train_and_save("resnet20_strided", tmp_path / f"{k}.safetensors", k, recipe,
                                             (images.base, images.test))[0] for k in range(5)}
    found = suture.validate(given, images.fit, images.held_out, measures=["cka@flatten", "dm.residual"],
                            sites=["layer1.2", "layer2.2", "layer3.2"], device="cpu", folder=tmp_path / "run")
    for measure in found.measures:
        assert found.outcome(measure, "self").passed
        assert found.outcome(measure, "pure noise").passed
        assert found.outcome(measure, "shuffled examples").passed
