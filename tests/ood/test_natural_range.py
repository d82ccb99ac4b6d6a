"""The natural range: shifts, the search on networks with known answers, the radii, cells of a comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import suture
from suture import SutureError
from suture._base import walk_tensors
from suture._base.keeping import checkpoints
from suture.compare import ExampleRows
from suture.data import Batch, MicroBatch
from suture.networks import SitedNetwork, prepare
from suture.numbers import Estimate
from suture.ood import OOD, NaturalRange, RangeSearch, ShiftRange
from suture.ood.natural_range.outcomes import Outcome, compare_outcomes
from suture.ood.natural_range.shifts import DROP, IMAGE_SHIFTS, TOKEN_SHIFTS, apply_shift, list_shifts
from suture.stitching import Task
from tests.support.encoder_decoders import KINDS, draw_texts, pad_pairs, seeded

IMAGES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(5, 50, (12, 9), generator=torch.Generator().manual_seed(0))
IDS[:, 0], IDS[:, -1] = 1, 2  # the same in all texts, as a class token and a separator are
TEXTS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


# -- shifts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGE_SHIFTS)
def test_image_shifts_grow_from_nothing_and_repeat(name):
    shift = list_shifts(IMAGES)[name]
    gaps = [float((apply_shift(shift, name, IMAGES, s, 0, 0) - IMAGES).square().sum())
            for s in (1e-4, 0.25, 0.5, 1.0)]
    assert gaps[0] < 1e-3 * gaps[2]
    assert gaps == sorted(gaps)
    again = apply_shift(shift, name, IMAGES, 0.5, 0, 0)
    assert torch.equal(again, apply_shift(shift, name, IMAGES, 0.5, 0, 0))
    assert (again.shape, again.dtype) == (IMAGES.shape, IMAGES.dtype)


def test_shifts_of_bytes_stay_bytes():
    pixels = (IMAGES * 255).to(torch.uint8)
    for name, shift in list_shifts(pixels).items():
        assert apply_shift(shift, name, (pixels,), 0.5, 0, 0)[0].dtype == torch.uint8


def test_a_blur_keeps_what_is_constant_and_a_translation_moves_by_its_severity():
    flat = torch.full((2, 3, 8, 8), 0.3)
    assert torch.allclose(apply_shift(list_shifts(flat)["blur"], "blur", flat, 0.7, 0, 0), flat, atol=1e-6)
    ramp = torch.arange(16.0).expand(40, 1, 16, 16)
    moved = apply_shift(list_shifts(ramp)["translation"], "translation", ramp, 0.25, 0, 0) - ramp
    inside = moved[:, 0, 4:12, 4:12].mean((1, 2))
    assert float(inside.abs().max()) == pytest.approx(2, abs=0.1)  # a quarter of half a side


@pytest.mark.parametrize("name", TOKEN_SHIFTS)
def test_token_shifts_change_free_tokens_alone(name):
    shift = list_shifts(TEXTS)[name]
    made = apply_shift(shift, name, TEXTS, 0.6, 0, 0)
    changed = made["input_ids"] != IDS
    assert changed.any()
    assert not changed[:, [0, -1]].any()
    assert torch.equal(made["attention_mask"], TEXTS["attention_mask"])
    if name == "token swap":
        assert torch.equal(made["input_ids"].sort(1).values, IDS.sort(1).values)


def test_dropped_tokens_leave_the_mask():
    made = apply_shift(list_shifts(TEXTS)[DROP], DROP, TEXTS, 0.5, 0, 0)
    assert torch.equal(made["input_ids"], IDS)
    assert 0.3 < made["attention_mask"][:, 1:-1].float().mean() < 0.7
    assert made["attention_mask"][:, [0, -1]].all()


@pytest.mark.parametrize(("inputs", "of_tokens", "names"), [
    (IMAGES, False, set(IMAGE_SHIFTS)), ({"pixel_values": IMAGES}, False, set(IMAGE_SHIFTS)),
    (IDS, False, set(TOKEN_SHIFTS)), (TEXTS, False, {*TOKEN_SHIFTS, DROP}), (TEXTS, True, set(TOKEN_SHIFTS)),
    (torch.rand(4, 5), False, {"noise"}), ((torch.rand(4, 5), torch.zeros(4)), False, {"noise"}),
    ({"pixel_values": IMAGES, "pixel_mask": torch.ones(12, 8, 8)}, False, set(IMAGE_SHIFTS)),
    ((IMAGES, IMAGES.flip(0)), False, {"noise"}), (IMAGES[:, None], False, {"noise"}),
    ((IMAGES[:, None] * 255).to(torch.uint8), False, {"noise"}),
    (torch.zeros(4, 2, 3, dtype=torch.int64), False, set())])
def test_which_shifts_suit(inputs, of_tokens, names):
    assert set(list_shifts(inputs, of_tokens)) == names


@pytest.mark.parametrize(("inputs", "changed"), [
    ((torch.rand(12, 5, 3), (torch.rand(12, 5, 5) > 0.5).float()), [True, False]),  # a graph's adjacency
    ({"inputs_embeds": torch.rand(12, 7, 4), "attention_mask": torch.ones(12, 7)}, [True, False]),
    ((torch.rand(12, 5), torch.rand(12, 4)), [True, True]), ((torch.rand(12, 5) > 0.5).float(), [True]),
    ((IDS, torch.rand(12, 4)), [False, True])])
def test_noise_changes_numbers_and_no_masks(inputs, changed):
    made = apply_shift(list_shifts(inputs)["noise"], "noise", inputs, 0.5, 0, 0)
    assert [not torch.equal(a, b) for a, b in zip(*map(walk_tensors, (made, inputs)), strict=True)] == changed


@pytest.mark.parametrize("name", IMAGE_SHIFTS)
@pytest.mark.parametrize("scale", [1, 255])
def test_channels_may_come_last(name, scale):
    first = (IMAGES * scale).to(torch.uint8 if scale > 1 else torch.float32)
    last = first.movedim(1, 3).contiguous()
    if name == "noise":  # drawn in the order of the axes
        return
    made = [apply_shift(list_shifts(x)[name], name, x, 0.5, 0, 0) for x in (first, last)]
    torch.testing.assert_close(made[1].movedim(3, 1), made[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_of_an_encoder_decoder_the_tokens_of_the_encoder_are_shifted(kind):
    make, (names, masks), value, _, decoder = KINDS[kind]
    inputs = pad_pairs(names, masks, draw_texts(9, 0), draw_texts(6, 1), value)
    target = SitedNetwork(seeded(make, 0), inputs, [decoder.format(0)])
    shifts = list_shifts(inputs, True, target.find_text)
    assert set(shifts) == {*TOKEN_SHIFTS, DROP}
    for name, shift in shifts.items():
        made = apply_shift(shift, name, inputs, 0.5, 0, 0)
        assert {k for k in inputs if not torch.equal(made[k], inputs[k])} == {
            masks[0] if name == DROP else names[0]}
        padding = inputs[masks[0]] == 0
        assert (made[names[0]][padding] == value).all()
        assert not made[masks[0]][padding].any()


def test_a_network_that_fails_under_a_built_in_shift_has_no_distance_there():
    class Categories(nn.Module):
        def __init__(self):
            super().__init__()
            self.few, self.many, self.a = nn.Embedding(3, 2), nn.Embedding(40, 2), nn.Identity()
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            return self.head(self.a(self.few(x[:, 0]) + self.many(x[:, 1])))

    generator = torch.Generator().manual_seed(0)
    x = torch.stack([torch.randint(k, (50,), generator=generator) for k in (3, 40)], 1)
    made = RangeSearch(SitedNetwork(Categories(), x, ["a"]), Task.CLASSIFICATION, [Batch(x, x, None)],
                       MicroBatch(64), torch.device("cpu"), 32, 0.8, 0)
    assert "fails under token replacement: IndexError" in made.find({}).find_outer(0)[0].reason


def test_a_shift_of_the_user_that_fails_is_one_line():
    for fails, got in ((lambda x: x[:3], "got 3 of 12"), (lambda x: x[..., 1:], r"\(3, 8, 7\)"),
                       (lambda x: x.half(), "float16"), (lambda x: x.numpy(), "ndarray"),
                       (lambda x: None, "NoneType"), (lambda x: (x, x), "and")):
        with pytest.raises(SutureError, match=f"'fog'.*{got}"):
            apply_shift(lambda x, s, g, fails=fails: fails(x), "fog", IMAGES, 0.5, 0, 0)
    with pytest.raises(SutureError, match="the shift 'fog' fails with ZeroDivisionError"):
        compare(ood=OOD((), shifts={"fog": lambda x, s, g: 1 / 0}))
    for bad in ({"noise": lambda x, s, g: x}, {"fog": 3}, [1], {"": lambda x, s, g: x}):
        with pytest.raises(SutureError):
            OOD(shifts=bad)


def test_a_shift_may_overwrite_its_inputs():
    x, before = [TEXTS], IDS.clone()

    def overwrite(inputs, severity, generator):
        inputs[0]["input_ids"].zero_()
        return inputs

    assert not apply_shift(overwrite, "zero", x, 0.5, 0, 0)[0]["input_ids"].any()
    assert torch.equal(IDS, before)


# -- the search ----------------------------------------------------------------------------------------------


class Steps(nn.Module):
    """A number that is right where it is positive: all inputs are, before a shift."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Identity()
        self.tail = nn.Linear(2, 2)
        with torch.no_grad():
            self.tail.weight.copy_(torch.tensor([[1.0, 0], [-1.0, 0]]))
            self.tail.bias.zero_()

    def forward(self, x):
        return self.tail(self.a(x))


def lower(x, severity, generator):
    return x - severity * torch.tensor([1.0, 0.0])


def search(works=0.8, n=400, network=None, task=Task.CLASSIFICATION):
    x = torch.stack([torch.linspace(0.001, 0.999, n), torch.linspace(-1, 1, n).roll(7)], 1)
    batches = [Batch(part, part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(150)]
    network = SitedNetwork(prepare(network or Steps(), x[:4], torch.device("cpu"), "target"), x[:4], ["a"])
    return x, RangeSearch(network, task, batches, MicroBatch(64), torch.device("cpu"), 32,
                          works, 0)


def test_a_shift_with_a_known_answer():
    x, made = search()
    found = made.find({"lower": lower})
    (own,) = found.own
    assert own.breaks
    assert own.severity.value == pytest.approx(0.2, abs=0.005)  # a fifth of the numbers turn negative
    assert own.severity.low < own.severity.value < own.severity.high
    variance = float(x.double().var(0, correction=0).sum())
    assert own.distances[0].value == pytest.approx(own.severity.value**2 / variance, rel=1e-6)
    assert own.distances[0].low < own.distances[0].value < own.distances[0].high
    assert [kind.name for kind in found.kinds] == ["noise"]  # the range of built-in shifts is another one
    assert found.examples == 400


def test_a_shift_that_never_breaks_is_open_ended():
    _, made = search()
    tried = []
    found = made.find({"raise": lambda x, s, g: (tried.append(s), x + s)[1]}).choose_own()
    assert tried == [1.0]
    assert not found.kinds[0].breaks
    assert found.is_open(0)
    assert "no shift breaks" in found.find_inner(0)[0].reason
    assert found.find_outer(0)[0].value > 0


@pytest.mark.parametrize(("task", "limit", "breaks", "last"), [
    (Task.CLASSIFICATION, 1.6, 0.8, 1 / 2), (Task.NONE, 1.09, 1 / 16, 1 / 16)])
def test_a_network_that_is_not_finite_under_a_shift_does_not_work_there(task, limit, breaks, last):
    """The distance is that at the largest severity tried at which all is finite."""
    class Overflowing(Steps):
        def forward(self, x):
            return super().forward(torch.where(x[:, :1] > limit, torch.inf, x))

    x, made = search(network=Overflowing(), task=task)
    own = made.find({"raise": lambda x, s, g: x + s}).own[0]
    assert own.breaks
    assert own.severity.value == pytest.approx(breaks, abs=0.01)
    variance = float(x.double().var(0, correction=0).sum())
    assert own.distances[0].value == pytest.approx(2 * last**2 / variance, rel=1e-4)


def test_too_few_examples_have_no_range():
    for n in (1, 9):
        _, made = search(n=n)
        found = made.find({"lower": lower})
        assert (found.kinds, found.own) == ((), ())
        assert f"{n} test examples are too few" in found.find_outer(0)[0].reason
        assert f"{n} test examples are too few" in made.measure(0, made.natives[0]).reason
    assert search(n=10)[1].find({}).kinds


def test_a_network_that_works_on_no_shift_has_no_outer_radius():
    _, made = search()
    found = made.find({"jump": lambda x, s, g: x - torch.tensor([2.0, 0])}).choose_own()
    assert "works under no shift" in found.find_outer(0)[0].reason
    assert found.find_inner(0)[1] == "jump"


# -- the radii -----------------------------------------------------------------------------------------------


def planted():
    def kind(name, value, breaks=True, severity=0.5):
        e = Estimate(value, value / 2, value * 2)
        return ShiftRange(name, Estimate(severity, severity, severity), breaks, (e,))

    return NaturalRange("shifts/1", 200, 0.8, 32, (kind("noise", 0.03), kind("contrast up", 0.5),
                                                   kind("blur", 0.2, breaks=False),
                                                   kind("mixing", 9.0, severity=0.01)))


def test_radii_are_the_extremes_of_the_kinds():
    found = planted()
    assert (found.find_inner(0)[0].value, found.find_inner(0)[1]) == (0.03, "noise")
    # Mixing breaks the network at once, so nothing works at its distance.
    assert (found.find_outer(0)[0].value, found.find_outer(0)[1]) == (0.5, "contrast up")
    assert not found.is_open(0)
    less = found.leave_out("contrast up")
    assert (less.find_outer(0)[0].value, less.is_open(0)) == (0.2, True)
    assert NaturalRange.from_record(found.as_record()) == found


def test_outcomes_compare_hits_texts_and_outputs():
    def of(classes=None, counts=None, labels=None, output=None):
        return Outcome(*(None if x is None else torch.tensor(x) for x in (classes, counts, labels, output)))

    labels = [0, 1, 0, 1]
    native = of([0, 1, 0, 0], labels=labels)
    assert compare_outcomes(of([0, 1, 1, 1], labels=labels), native).value == 1
    assert compare_outcomes(of([1, 1, 1, 0], labels=labels), native).value == pytest.approx(1 / 3)
    assert compare_outcomes(of([0, 1, 1, 0]), of([0, 1, 0, 0])).value == 0.75
    texts = of([0, 1, 0, 1], [3, 1], labels)
    assert compare_outcomes(of([0, 0, 0, 1], [3, 1], labels), texts).value == 0.75
    outputs = compare_outcomes(of(output=[[3.0, 0], [0, 4.0]]), of(output=[[3.0, 0], [0, 3.0]]))
    assert outputs.value == pytest.approx(1 - 1 / math.sqrt(18))


def test_outputs_of_texts_count_without_padding():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.a = nn.Embedding(50, 3), nn.Identity()

        def forward(self, input_ids, attention_mask=None):
            return self.a(self.words(input_ids))

    lengths = torch.tensor([5, 9] * 6)
    mask = (torch.arange(9) < lengths[:, None]).long()
    padded = {"input_ids": IDS * mask, "attention_mask": mask}
    alone = [{"input_ids": IDS[lengths == n, :n]} for n in (5, 9)]
    network = seeded(Words, 0)
    found = [RangeSearch(SitedNetwork(network, parts[0], ["a"]), Task.NONE,
                         [Batch(x, x, None) for x in parts], MicroBatch(64), torch.device("cpu"), 32, 0.8, 0,
                         )._native.output for parts in ([padded], alone)]
    torch.testing.assert_close(found[0][[*range(0, 12, 2), *range(1, 12, 2)]], found[1])


# -- of a comparison -----------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))


def compare(labels=True, **options):
    x = torch.randn(240, 6, generator=torch.Generator().manual_seed(0))
    network = Small().eval()
    with torch.no_grad():
        y = network(x).argmax(1)
    data = (x, y) if labels else [x[:120], x[120:]]
    how = {"methods": ["dm"], "indices": (), "sites": ["a", "b"], **options}
    return suture.compare(network, None, data, data, **how)


def test_cells_have_distances_and_residuals_of_paired_examples():
    made = compare()
    distance, residual = (made.matrix(f"dm.{m}") for m in ("natural_distance", "informational_residual"))
    assert np.allclose(np.diag(distance), 0, atol=1e-6)
    assert np.allclose(np.diag(residual), 0, atol=1e-6)
    assert distance.loc["a", "b"] > 0
    assert 0 < residual.loc["a", "b"] < 1
    assert (made.arrays["dm.residual_p"] < 1e-3).all()
    assert (np.diag(made.cells()) == "similar").all()
    table = made.natural_range()
    assert list(table["site"]) == ["a", "b"]  # one kind of shift, so none is left out in turn
    assert made.meta["ood"]["classes"] == "labels"
    assert made.arrays["dm.distance"][0, 1, 0] / table["outer"][1] == pytest.approx(distance.loc["a", "b"])


def test_a_network_that_is_stitched_to_itself_passes_the_examples_once(monkeypatch):
    wanted = compare().matrix("dm.natural_distance")
    monkeypatch.setattr(ExampleRows, "_run_source", None)
    assert compare().matrix("dm.natural_distance").equals(wanted)


def test_the_users_own_shifts_make_a_range_of_their_own():
    plain, own = compare(), compare(ood=OOD(shifts={"double": lambda x, s, g: x * (1 + s)}))
    assert plain.matrix("dm.natural_distance").equals(own.matrix("dm.natural_distance"))
    assert set(own.natural_range()["range"]) == {"built-in shifts", "your shifts"}


def test_without_labels_the_predictions_make_the_classes():
    made = compare(labels=False)
    assert made.meta["ood"]["classes"] == "predictions"
    assert np.allclose(np.diag(made.matrix("dm.informational_residual")), 0, atol=1e-6)


def test_no_range_without_scores_and_fewer_examples_as_asked():
    assert compare(ood=None).natural_range().empty
    few = compare(ood=OOD(range_examples=50)).matrix("dm.natural_distance", "n")
    assert (few == 50).all(axis=None)


def test_classes_of_too_few_examples_have_no_residual():
    x = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    made = suture.compare(Small().eval(), None, (x, torch.tensor([0, 0, 1, 1, 2, 2])), sites=["a", "b"],
                          methods=["dm"], indices=(), ood=OOD(()))
    for measure, reason in (("informational_residual", "no class has 3"), ("natural_distance", "too few")):
        found = made.matrix(f"dm.{measure}", "reason").to_numpy().ravel()
        assert all(reason in one for one in found)


def test_a_search_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    shifts = {"lower": lower, "raise": lambda x, s, g: x + s, "jump": lambda x, s, g: x - 2 * s}
    whole = search()[1].find(shifts)
    monkeypatch.setattr(checkpoints, "INTERVAL", 0)
    monkeypatch.setattr(checkpoints, "_SHARE", 0)
    _, made = search()
    found = made._find_kind

    def stop(name, shift):
        if name == "jump":
            raise KeyboardInterrupt
        return found(name, shift)

    monkeypatch.setattr(made, "_find_kind", stop)
    with pytest.raises(KeyboardInterrupt):
        made.find(shifts, keeper=checkpoints.Keeper(tmp_path, "key"))
    tried = []
    _, again = search()
    found = again._find_kind
    monkeypatch.setattr(again, "_find_kind", lambda name, shift: (tried.append(name), found(name, shift))[1])
    assert again.find(shifts, keeper=checkpoints.Keeper(tmp_path, "key")) == whole
    assert tried == ["jump"]
