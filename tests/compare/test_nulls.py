"""Nulls in comparisons: whole examples are permuted, results keep them, maps show them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import SutureError
from suture.numbers import Exchange
from suture.results.inference.nulls import adjust_holm

N = 60
CLASSES = np.arange(N) % 4


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


MAPS = {"map": _draw(N, 3, 4, 4, seed=0), "vector": _draw(N, 5, seed=1)}
OTHERS = {"small": MAPS["map"][:, :2, ::2, ::2] + 0.5 * _draw(N, 2, 2, 2, seed=2),
          "noise": _draw(N, 6, seed=3)}


def _compare(names: Any, **options: Any) -> suture.Comparison:
    found = suture.compare_arrays(MAPS, OTHERS, names, **{"labels": CLASSES, **options})
    assert isinstance(found, suture.Comparison)
    return found


@pytest.fixture(scope="module")
def result() -> suture.Comparison:
    return _compare(["cka", "r2", "jaccard:3", "cka_debiased@pool", "opd@pool", "r2@within", "cka@flatten"],
                    nulls=19)


def test_whole_examples_are_permuted_with_all_their_positions(result: suture.Comparison) -> None:
    found = result.null("cka").set_index(["source", "target"]).loc[("map", "small")]
    x = torch.nn.functional.interpolate(MAPS["map"], (2, 2), mode="bilinear").double().permute(0, 2, 3, 1)
    y = OTHERS["small"].double().permute(0, 2, 3, 1)
    values = []
    for order in [np.arange(N), *Exchange.of(np.arange(N), np.zeros(N, int)).draw(19, 0)]:
        rows = x.reshape(-1, 3), y[order].reshape(-1, 2)
        values.append(suture.indices.of_matrices(*rows, "cka")["cka"].value)
    assert found["value"] == pytest.approx(values[0], abs=1e-6)
    assert found["n"] == 4 * N
    assert found["null_mean"] == pytest.approx(np.mean(values[1:]), abs=1e-6)
    assert found["null_std"] == pytest.approx(np.std(values[1:]), rel=1e-4)
    assert "examples" in found["method"]


def test_the_tested_value_is_that_of_the_table_where_all_examples_are_kept(result: suture.Comparison) -> None:
    for measure in result.measures:
        null = result.null(measure)
        known = null["reason"] == ""
        assert null["value"][known].to_numpy() == pytest.approx(
            result.matrix(measure).to_numpy().ravel()[known], abs=1e-6), measure
        assert known.any() == null["p"].notna().any()


def test_closed_forms_hold_where_an_example_is_a_row(result: suture.Comparison) -> None:
    free = _compare(["cka", "cka_debiased@pool", "r2@pool"])
    assert (free.null("cka_debiased@pool")["method"] == "closed form").all()
    assert free.null("cka")["method"].tolist() == ["", "closed form", "", "closed form"]
    assert free.null("cka")["reason"].str.contains("positions").tolist() == [True, False, True, False]
    assert free.null("r2@pool")["reason"].str.contains("nulls=200").all()
    assert free.null("r2@pool")["p"].isna().all()
    one, other = (of.null("cka_debiased@pool")["p"] for of in (free, result))
    assert one.tolist() == pytest.approx(other.tolist())


def test_p_values_are_adjusted_for_all_cells(result: suture.Comparison) -> None:
    null = result.null("opd@pool")
    assert null["p_holm"].to_numpy() == pytest.approx(adjust_holm(null["p"].to_numpy()))
    assert (null["p_max"] >= null["p"] - 1e-12).all()
    related = (null["source"] == "map") & (null["target"] == "small")
    assert null["p_max"][related].item() == 0.05
    assert (null["p_max"][~related] > 0.05).all()
    assert adjust_holm(np.array([0.01, np.nan, 0.04, 0.03])) == pytest.approx([0.03, np.nan, 0.06, 0.06],
                                                                             nan_ok=True)


def test_a_saved_result_has_the_same_nulls(result: suture.Comparison, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    loaded = suture.load(tmp_path / "out")
    assert loaded.equals(result)
    assert loaded.null("r2").equals(result.null("r2"))


def test_a_result_without_nulls_says_so() -> None:
    old = suture.load(Path(__file__).parents[1] / "results" / "version_1")
    with pytest.raises(SutureError, match="null"):
        old.null(old.measures[0])
    with pytest.raises(SutureError, match="measure"):
        old.null("nothing")


def test_maps_mark_what_is_not_above_chance(result: suture.Comparison, tmp_path: Path) -> None:
    ax = result.plot("opd@pool")
    ax.figure.canvas.draw()  # which fits the texts to their cells
    assert sum("°" in text.get_text() for text in ax.texts) == 3
    page = result.report(tmp_path / "page.html").read_text()
    assert "not above chance" in page


def test_groups_are_permuted_whole() -> None:
    found = _compare(["cka@pool", "r2"], groups=np.arange(N) // 3, nulls=9)
    for measure in found.measures:
        assert found.null(measure)["method"].str.endswith("of groups").all()
    few = _compare("cka@pool", groups=np.arange(N) // 30, nulls=9)
    assert few.null("cka@pool")["reason"].str.contains("2 ways").all()
    one = _compare("cka", groups=np.zeros(N, int), nulls=9)
    assert one.null("cka")["reason"].str.contains("0 groups can change places, because no two").all()


@pytest.mark.parametrize(("options", "reason"), [
    ({"labels": None}, "no class"), ({"labels": np.zeros(N, int)}, "one class"),
    ({"labels": np.arange(N) // 2}, "fewer than two classes"),
])
def test_within_needs_classes(options: Any, reason: str) -> None:
    found = _compare("r2@within", **options)
    assert found.matrix("r2@within", "reason").map(lambda text: reason in text).all(axis=None)
    assert found.null("r2@within")["reason"].str.contains(reason).all()


def _make_network(width: int) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 4)).eval()


def test_networks_take_labels_of_the_data_or_given_ones() -> None:
    data = MAPS["map"], torch.from_numpy(CLASSES)
    how: Any = {"sites": ["1", "3"], "methods": (), "indices": ["cka@within", "r2"]}
    one, two = (suture.compare(_make_network(4), _make_network(6), data, **how, **more)
                for more in ({}, {"within": CLASSES.astype(str)}))
    assert one.matrix("cka@within").equals(two.matrix("cka@within"))
    drawn = suture.compare(_make_network(4), _make_network(6), data, nulls=9, **how)
    assert drawn.null("r2")["p"].notna().all()


@pytest.mark.parametrize("option", ["groups", "within"])
@pytest.mark.parametrize("given", ["short", "shuffled"])
def test_labels_that_cannot_be_those_of_the_examples_are_refused(option: str, given: str) -> None:
    data = torch.utils.data.TensorDataset(MAPS["map"], torch.from_numpy(CLASSES))
    loader = torch.utils.data.DataLoader(data, 16, shuffle=given == "shuffled")
    labels = CLASSES[:-1] if given == "short" else CLASSES
    with pytest.raises(SutureError, match=option) as error:
        suture.compare(_make_network(4), _make_network(6), loader, sites=["1"], methods=(),
                       indices="cka@within", **{option: labels})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


class Stream:
    """Batches of unknown number."""

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(MAPS["map"].split(16), torch.from_numpy(CLASSES).split(16), strict=True))


@pytest.mark.parametrize("option", ["groups", "within"])
@pytest.mark.parametrize("count", [N - 1, N + 1])
def test_labels_are_as_many_as_the_examples_of_a_stream_and_of_arrays(option: str, count: int) -> None:
    given: Any = {option: np.arange(count) % 4, "indices": ["cka@within", "cka@pool"]}
    with pytest.raises(SutureError, match=rf"{option} with one label .*, got {count}"):
        suture.compare(_make_network(4), _make_network(6), Stream(), sites=["1"], methods=(), **given)
    with pytest.raises(SutureError, match=f"{option} with one label for each of {N} examples, got {count}"):
        suture.compare_arrays(MAPS, OTHERS, **given)


def test_of_labels_for_all_data_the_first_examples_have_the_first_ones() -> None:
    first, groups = 20, np.arange(N) // 2
    how: Any = {"sites": ["1", "3"], "methods": (), "indices": ["cka@within", "cka@pool"], "nulls": 9,
                "sample": 12}
    labels = torch.from_numpy(CLASSES)
    cut = suture.compare(_make_network(4), _make_network(6), (MAPS["map"], labels), examples=first,
                         groups=groups, within=CLASSES, **how)
    alone = suture.compare(_make_network(4), _make_network(6), (MAPS["map"][:first], labels[:first]),
                           groups=groups[:first], within=CLASSES[:first], **how)
    assert (alone.matrix("cka@within", "n") == 12).all(axis=None)
    assert cut.table.equals(alone.table)
    assert cut.null("cka@pool").equals(alone.null("cka@pool"))
