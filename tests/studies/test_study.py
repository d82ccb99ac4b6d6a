"""Studies: pairs, kept results, what a failure costs, and numbers over networks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import suture
from suture import Study, SutureError
from suture.studies import FinishedPair
from suture.studies.network_study.layers import match_layers, reduce_layers
from suture.studies.population.members import list_members
from suture.studies.population.pairs import list_pairs
from suture.studies.running import tasks
from tests.support import synthetic, tiny
from tests.support.comparisons import of_values

HOW: dict[str, Any] = {"methods": [], "indices": ["cka", "opd"], "device": "cpu", "sites": ["block*"]}
NAMES = ("a", "b", "c")


def make(seed: int) -> nn.Module:
    return tiny.seeded(tiny.Tiny, seed)


def networks() -> dict[str, Any]:
    return {name: make(k) for k, name in enumerate(NAMES)}


def run(folder: Path | None = None, given: Any = None, **more: Any) -> Study:
    return suture.study(networks() if given is None else given, *tiny.data(), folder=folder,
                        **{**HOW, **more})



@pytest.mark.parametrize(("pairs", "expected"), [
    ("all", ["aa", "ab", "ac", "bb", "bc", "cc"]), ("self", ["aa", "bb", "cc"]),
    ("consecutive", ["ab", "bc"]), ("with:b", ["ba", "bb", "bc"]),
    ("directed", ["".join(p) for p in itertools.product("abc", repeat=2)]),
    ([("c", "a"), ("c", "a")], ["ca"]), (lambda a, b: a < b, ["ab", "ac", "bc"])])
def test_pairs(pairs: Any, expected: list[str]) -> None:
    assert ["".join(pair) for pair in list_pairs(NAMES, pairs)] == expected


@pytest.mark.parametrize(("pairs", "named"), [
    ("everything", "everything"), ("with:d", "d"), ([("a", "d")], "d"), ([("a",)], "a"), ([], "none"),
    (5, "pairs='all'"), (None, "pairs='all'"),
    (lambda a, b: False, "none")])
def test_pairs_that_do_not_exist(pairs: Any, named: str) -> None:
    with pytest.raises(SutureError, match=named):
        list_pairs(NAMES, pairs)


@pytest.mark.parametrize(("given", "about", "named"), [
    ({}, {}, "none"), ({"a": 3}, {}, "3"), ({"a": tiny.Tiny}, {}, "Tiny"), ({3: make(0)}, {}, "3"),
    (make(0), {}, "Tiny"), ({"a": make(0)}, {"b": {"seed": 1}}, "'b'"), (["zoo:resnet20"], {"x": {}}, "'x'"),
    ({"a": make(0)}, {"a": {"made": [1]}}, "made"),
    ({"a": make(0)}, {"a": {"network": "x"}}, "source_network")])
def test_networks_that_are_none(given: Any, about: Any, named: str) -> None:
    with pytest.raises(SutureError, match=named):
        list_members(given, about)


def test_without_data_a_study_says_what_a_comparison_says() -> None:
    with pytest.raises(SutureError, match="expected data to compare the networks on"):
        suture.study({"a": make(0)}, **HOW)


def test_a_list_of_networks_gets_names() -> None:
    given = [make(0), make(1), "zoo:resnet_digits", "zoo:resnet20", "zoo:resnet20"]
    assert list(list_members(given, {})) == ["Tiny 0", "Tiny 1", "zoo:resnet_digits", "zoo:resnet20 3",
                                             "zoo:resnet20 4"]


def test_each_pair_is_what_compare_makes(tmp_path: Path) -> None:
    kept, made = run(tmp_path / "study"), run()
    given = networks()
    for a, b in list_pairs(NAMES, "all"):
        alone = suture.compare(given[a], None if a == b else given[b], *tiny.data(), names=(a, b), **HOW)
        for study in (kept, made):
            assert study.comparison(a, b).table.equals(alone.table)
    assert kept.table.equals(made.table)
    assert kept.table.equals(Study.load(tmp_path / "study").table)
    assert len(made.table) == sum(len(made.comparison(*pair).table) for pair in made.pairs)


def test_nothing_is_computed_twice(tmp_path: Path, counted: list[tuple[str, str]]) -> None:
    first = run(tmp_path)
    assert len(counted) == 6
    assert run(tmp_path).table.equals(first.table)
    assert len(counted) == 6
    more = run(tmp_path, networks() | {"d": lambda: make(7)})
    assert counted[6:] == [("a", "d"), ("b", "d"), ("c", "d"), ("d", "d")]
    assert more.table[more.table["target_network"] != "d"].reset_index(drop=True).equals(first.table)


@pytest.mark.parametrize("changed", ["network", "data", "settings"])
def test_what_has_changed_is_computed_beside_the_old(changed: str, tmp_path: Path,
                                                     counted: list[tuple[str, str]]) -> None:
    first = run(tmp_path, pairs="consecutive")
    fit, test = tiny.data()
    given, how = networks(), dict(HOW)
    if changed == "network":
        with torch.no_grad():
            given["c"].head.bias += 1
    elif changed == "data":
        fit = (fit[0] + 0.1, fit[1])
    else:
        how["indices"] = ["cka"]
    suture.study(given, fit, test, folder=tmp_path, pairs="consecutive", **how)
    assert counted[2:] == ([("b", "c")] if changed == "network" else [("a", "b"), ("b", "c")])
    assert run(tmp_path, pairs="consecutive").table.equals(first.table)
    assert len(counted[2:]) == (1 if changed == "network" else 2)


@pytest.mark.parametrize("broken", ["result", "record", "manifest", "missing"])
def test_what_is_damaged_is_computed_again(broken: str, tmp_path: Path,
                                           counted: list[tuple[str, str]]) -> None:
    first = run(tmp_path, pairs="consecutive")
    hit = {"result": next(tmp_path.glob("pairs/a--b-*/comparison.safetensors")),
           "record": next(tmp_path.glob("tasks/a--b-*.json")), "manifest": tmp_path / "study.json",
           "missing": next(tmp_path.glob("pairs/a--b-*/comparison.safetensors"))}[broken]
    if broken == "missing":
        hit.unlink()
    else:
        hit.write_bytes(hit.read_bytes()[:-9] + b"123456789")
    again = run(tmp_path, pairs="consecutive")
    assert again.table.equals(first.table)
    assert counted[2:] == [("a", "b")] * (broken in ("result", "missing", "record"))
    assert bool(list(tmp_path.rglob("*.damaged-*"))) == (broken != "manifest")


def fails() -> nn.Module:
    raise RuntimeError("no such\nweights")


def test_a_network_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    other = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))  # of other inputs
    made = run(tmp_path, networks() | {"unbuilt": fails, "unfit": other})
    assert len(made.pairs) == 6
    assert set(made.failures) == {p for p in list_pairs((*NAMES, "unbuilt", "unfit"), "all")
                                  if {"unbuilt", "unfit"} & set(p)}
    assert "no such" in made.failures["a", "unbuilt"]
    assert all("\n" not in reason for reason in made.failures.values())
    assert Study.load(tmp_path).failures == made.failures
    rows = made.table[made.table["target_network"] == "unbuilt"]
    assert rows["value"].isna().all()
    assert rows["reason"].str.contains("no such").all()
    with pytest.raises(SutureError, match="no such"):
        made.comparison("a", "unbuilt")
    with pytest.raises(SutureError, match="no such"):
        run(given={"unbuilt": fails})


def test_a_failed_pair_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tasks.compare

    def fail_once(*given: Any, **named: Any) -> Any:
        if named["names"] == ("a", "b"):
            raise SutureError("the disk was full")
        return whole(*given, **named)

    monkeypatch.setattr(tasks, "compare", fail_once)
    assert run(tmp_path).failures == {("a", "b"): "the disk was full"}
    monkeypatch.setattr(tasks, "compare", whole)
    assert run(tmp_path).failures == {}


def test_no_engine_is_started_for_what_is_there(tmp_path: Path) -> None:
    class Never:
        def run(self, *given: Any) -> Any:
            raise AssertionError

    first = run(tmp_path, pairs="self")
    assert run(tmp_path, pairs="self", engine=Never()).table.equals(first.table)


def test_what_is_said_of_networks_is_in_the_table(tmp_path: Path) -> None:
    about = {"a": {"seed": np.int64(1), "epoch": 3}, "c": {"seed": 2}}
    made = run(tmp_path, about=about)
    table = Study.load(tmp_path).table
    assert table.equals(made.table)
    row = table[(table["source_network"] == "a") & (table["target_network"] == "c")].iloc[0]
    assert (row["source_seed"], row["source_epoch"], row["target_seed"]) == (1, 3, 2)
    assert np.isnan(row["target_epoch"])


def test_specs_and_preprocessing_are_kept_in_step() -> None:
    given = {"plain": make(0), "larger": lambda: (make(1), tiny.twice_as_large)}
    made = run(given=given, pairs=[("plain", "larger")])
    fit, test = tiny.data()
    alone = suture.compare(make(0), make(1), suture.Prepared(fit, None, tiny.twice_as_large),
                           suture.Prepared(test, None, tiny.twice_as_large), names=("plain", "larger"), **HOW)
    assert made.comparison("plain", "larger").table.equals(alone.table)


def test_results_and_progress_come_pair_by_pair(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []
    stages: list[tuple[str, int, int | None]] = []

    def note(made: FinishedPair) -> None:
        assert sum(1 for _ in tmp_path.glob("tasks/*.json")) == len(seen) + 1
        seen.append((made.source, made.target))

    run(tmp_path, on_result=note, progress=lambda *given: stages.append(given))
    assert seen == list(list_pairs(NAMES, "all"))
    assert [s for s in stages if s[0] == "pairs"] == [("pairs", k, 6) for k in range(1, 7)]
    assert any(stage.startswith("a into b: ") for stage, *_ in stages)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SutureError, match="study"):
        run(tmp_path)
    with pytest.raises(SutureError, match=r"study\.json"):
        Study.load(tmp_path)
    synthetic.comparison(2, 2, examples=20).save(tmp_path / "one")
    with pytest.raises(SutureError, match=r"write suture\.load\('.*one'\)"):
        Study.load(tmp_path / "one")
    with pytest.raises(SutureError, match="names"):
        run(names=("a", "b"))


def test_a_study_in_memory_can_be_saved(tmp_path: Path) -> None:
    made = run()
    made.save(tmp_path / "kept")
    assert Study.load(tmp_path / "kept").table.equals(made.table)


def test_a_matrix_over_networks() -> None:
    made = run(methods=["dm"], ood=None, given=dict(itertools.islice(networks().items(), 2)))
    for measure, symmetric in (("cka", True), ("opd", True), ("dm.accuracy", False)):
        found = made.matrix(measure)
        for a, b in itertools.product(made.networks, made.networks):
            if (a, b) in made.pairs:
                assert found.loc[a, b] == pytest.approx(
                    np.nanmean(np.diag(made.comparison(a, b).matrix(measure))))
            elif symmetric:
                assert found.loc[a, b] == found.loc[b, a]
            else:
                assert np.isnan(found.loc[a, b])
    with pytest.raises(SutureError, match="best"):
        made.matrix("cka", "worst")
    with pytest.raises(SutureError, match="pwcca"):
        made.matrix("pwcca")


def grid(values: np.ndarray, measure: str = "cka") -> suture.Comparison:
    names = [[f"{side}{k}" for k in range(count)] for side, count in zip("st", values.shape, strict=True)]
    return of_values(measure, values.tolist(), sources=names[0], targets=names[1])


def try_all_plans(gain: np.ndarray) -> float:
    """Return the gain of the best map of the deeper side's layers onto all layers of the other."""
    gain = gain if gain.shape[0] <= gain.shape[1] else gain.T
    s, t = gain.shape
    maps = (m for m in itertools.product(range(s), repeat=t) if len(set(m)) == s)
    return max(float(np.mean(gain[list(m), range(t)])) for m in maps)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (2, 3), (6, 1), (1, 1)])
@pytest.mark.parametrize("measure", ["cka", "opd"])
def test_reductions_against_slow_references(shape: tuple[int, int], measure: str) -> None:
    values = np.random.default_rng(sum(shape)).random(shape)
    made, sign = grid(values, measure), 1 if measure == "cka" else -1
    rows = np.arange(shape[0])
    best = sign * (np.mean([max(sign * values[:, j]) for j in range(shape[1])])
                   + np.mean([max(sign * values[i]) for i in rows])) / 2
    assert reduce_layers(made, measure, "best").value == pytest.approx(best)
    transported = reduce_layers(made, measure, "transport").value
    assert transported == pytest.approx(sign * try_all_plans(sign * values))
    plan = match_layers(made, measure)
    sums = [plan.to_numpy().sum(axis) for axis in ((0, 1) if shape[0] <= shape[1] else (1, 0))]
    assert np.allclose(sums[0], 1 / max(shape))
    assert (sums[1] >= 1 / max(shape) - 1e-9).all()


def list_paths(s: int, t: int) -> list[list[tuple[int, int]]]:
    if (s, t) == (1, 1):
        return [[(0, 0)]]
    steps = [(s - 1, t - 1), (s - 1, t), (s, t - 1)]
    return [[*path, (s - 1, t - 1)] for a, b in steps if a and b for path in list_paths(a, b)]


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (4, 3), (1, 3)])
def test_the_match_in_order_against_all_paths(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(sum(shape)).random(shape)
    plan = match_layers(grid(values), "cka", order=True).to_numpy()
    best = min(list_paths(*shape), key=lambda path: sum(values.max() - values[at] for at in path))
    assert sorted(zip(*np.nonzero(plan), strict=True)) == sorted(best)
    assert np.allclose(plan[plan > 0], 1 / len(best))


def test_missing_and_marked_cells_are_left_out() -> None:
    marked = of_values("dm.r2", [[0.9, 0.1], [0.2, 0.8]], marks=[["few rows: 3", ""], ["", ""]])
    assert reduce_layers(marked, "dm.r2", "diagonal").value == 0.8
    nothing = of_values("dm.r2", [[0.9]], marks=[["few rows: 3"]])
    assert np.isnan(reduce_layers(nothing, "dm.r2", "best").value)
    with pytest.raises(SutureError, match="mark"):
        match_layers(nothing, "dm.r2")


class Deep(nn.Module):
    """Blocks of eight functions, each repeated as often as wanted; a repeated one is nearly the identity."""

    def __init__(self, repeats: list[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for k, count in enumerate(repeats):
            block = tiny.seeded(lambda: nn.Sequential(nn.Linear(24, 24), nn.Tanh()), k)
            self.blocks.append(block)
            self.blocks.extend(nn.Identity() for _ in range(count - 1))
        self.head = tiny.seeded(lambda: nn.Linear(24, 3), 99)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


REPEATS = [1, 2, 3, 2, 1, 2, 2, 1]


@pytest.mark.parametrize("order", [False, True])
def test_transport_finds_repeated_blocks(order: bool) -> None:
    x = torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
    shallow, deep = Deep([1] * 8), Deep(REPEATS)
    made = suture.study({"8": shallow, "14": deep}, x, methods=(), indices="cka", pairs=[("8", "14")],
                        sites="blocks.*", device="cpu")
    plan = made.layers("8", "14", "cka", order=order)
    assert plan.shape == (8, 14)
    truth = np.repeat(np.arange(8), REPEATS)
    assert (plan.to_numpy().argmax(0) == truth).mean() >= 0.95
    assert made.matrix("cka", "transport", order=order).loc["8", "14"] > 0.9


def test_a_study_says_what_it_holds() -> None:
    made = synthetic.comparison()
    study = Study.make({"networks": {"A": {}}, "tasks": [], "failed": {}}, {("A", "A"): made},
                       {("A", "B"): "no"})
    assert repr(study) == "Study(1 networks, 1 pairs, 1 failed)"
    with pytest.raises(SutureError, match="'X'"):
        study.comparison("A", "X")


def test_networks_that_are_built_need_not_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    monkeypatch.setattr(tasks, "_KEPT", 2)
    many = {f"n{k}": (lambda k=k: (built.append(k), make(k))[1]) for k in range(4)}
    made = run(given=many, pairs="consecutive")
    assert len(made.pairs) == 3
    assert len(built) >= 4
