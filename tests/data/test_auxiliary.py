"""Auxiliary data: every kind is what it says, within the range of the sample, never one of it, and the seed's
alone."""

from __future__ import annotations

import itertools
import math
from collections import Counter, UserDict, namedtuple
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from suture import SutureError, zoo
from suture._base import count_duplicates
from suture.data import auxiliary_kinds
from suture.data.auxiliary import (
    TRAINING_KINDS,
    UNSEEN_KINDS,
    _find_originals,
    find_input_kind,
    make_auxiliary,
)
from suture.data.auxiliary_kinds import KINDS
from tests.support.inputs import BYTES, CLS, IDS, SEP, draws, photos_of, sentences

Pair = namedtuple("Pair", ["name", "pixels"])


NORMAL = ((photos_of(20) - torch.tensor([0.4, 0.5, 0.6])[:, None, None])
          / torch.tensor([0.1, 0.2, 0.3])[:, None, None])
IMAGES: dict[str, Tensor] = {
    "unit": photos_of(20), "z-scored": NORMAL, "double": NORMAL.double(), "half": NORMAL.half(),
    "bfloat16": NORMAL.bfloat16(), "bytes": BYTES,
    "narrow bytes": BYTES // 16 + 100, "gray": photos_of(20, 1),
    "two channels": photos_of(20, 2), "five channels": photos_of(20, 5), "small": photos_of(20, 3, 2, 3),
    "channels last": photos_of(20).contiguous(memory_format=torch.channels_last),
    "infrared": 1e4 + photos_of(20),
}
STRUCTURES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "alone": (lambda x: x, lambda y: y), "tuple": (lambda x: (x,), lambda y: y[0]),
    "list": (lambda x: [x], lambda y: y[0]),
    "with what is no tensor": (lambda x: (None, [x], 3), lambda y: y[1][0]),
    "mapping": (lambda x: {"pixel_values": x}, lambda y: y["pixel_values"]),
    "user's mapping": (lambda x: UserDict(a=(x,)), lambda y: y["a"][0]),
    "named tuple": (lambda x: Pair("cat", x), lambda y: y.pixels),
}


def list_allowed_kinds(like: Any, among: Sequence[str] | None = None) -> tuple[str, ...]:
    source = _find_originals(like)
    return tuple(k for k in among or KINDS[source.name] if KINDS[source.name][k].suits(source))


def each_kind(like: Any) -> Iterator[tuple[str, Tensor]]:
    for kind in list_allowed_kinds(like):
        yield kind, make_auxiliary(like, 50, kinds=[kind])


# -- names ---------------------------------------------------------------------------------------------------

def test_training_and_unseen_kinds_split_all_kinds() -> None:
    for name, kinds in (("images", KINDS["images"]), ("tokens", KINDS["tokens"])):
        assert sorted(TRAINING_KINDS[name] + UNSEEN_KINDS[name]) == sorted(kinds)
        assert TRAINING_KINDS[name]
        assert UNSEEN_KINDS[name]
    assert TRAINING_KINDS["images"] == ("gaussian", "blobs", "patches", "channels", "mixture")
    assert TRAINING_KINDS["tokens"] == ("random",)


INPUTS: dict[str, tuple[Any, str | None]] = {
    "floats": (photos_of(3), "images"), "bytes": (BYTES, "images"),
    "long": (torch.ones(3, 1, 4, 4).long(), None), "vectors": (torch.rand(3, 4), None),
    "ids": (IDS, "tokens"), "narrow ids": (IDS.to(torch.uint8), "tokens"), "truth values": (IDS > 3, None),
    "a sentence": (IDS[0], None), "volumes": (torch.rand(2, 1, 4, 4, 4), None), "text": ("text", None),
    "nothing": (None, None), "an empty tuple": ((), None), "complex": (torch.rand(2, 3) * 1j, None),
    "two": ((photos_of(3), photos_of(3)), None), "one twice": ((IDS, IDS), None),
    "nested": (([photos_of(3)], "x"), "images"), "mapping": ({"input_ids": IDS}, "tokens"),
    "masked": ({"input_ids": IDS, "attention_mask": IDS > 0}, "tokens"),
    "nested mapping": (({"input_ids": IDS, "attention_mask": IDS > 0},), "tokens"),
    "wide mask": ({"input_ids": IDS, "attention_mask": torch.ones(3, 1, 4, 4)}, None),
    "short mask": ({"input_ids": IDS, "attention_mask": IDS[:, :3]}, None), "tensors below":
    ({"input_ids": IDS, "cache": (IDS,)}, None), "embedded": ({"input_ids": torch.rand(3, 4)}, None),
    "text and images": ({"input_ids": IDS, "pixel_values": photos_of(3)}, None),
    "array": (np.ones((2, 3, 4, 4)), None),
}


@pytest.mark.parametrize("name", INPUTS)
def test_what_inputs_are_and_that_all_else_is_refused_in_one_line(name: str) -> None:
    like, kind = INPUTS[name]
    assert find_input_kind(like) == kind
    if kind is None:
        with pytest.raises(SutureError,
                           match=r"^expected images \(N, C, H, W\) or token ids \(N, T\) to make auxiliary "
                                 "data from, got .+; pass auxiliary=your own data$"):
            make_auxiliary(like, 4)


def test_a_refusal_says_what_came() -> None:
    with pytest.raises(SutureError, match=r"got float32 of shape \(3, 4\); pass"):
        make_auxiliary(torch.rand(3, 4), 2)
    with pytest.raises(SutureError,
                       match=r"got int64 of shape \(3, 4\) and int64 .* and int64 .* and more; pass"):
        make_auxiliary([IDS] * 5, 2)
    with pytest.raises(SutureError, match=r"got str; pass"):
        make_auxiliary("images", 2)


# -- what comes out ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("x", [NORMAL, BYTES, IDS], ids=["floats", "bytes", "ids"])
def test_structure_and_dtype_and_shape_are_kept(structure: str, x: Tensor) -> None:
    wrap, unwrap = STRUCTURES[structure]
    like = wrap(x)
    made = make_auxiliary(like, 17)
    assert isinstance(made, type(like))
    out = unwrap(made)
    assert (out.shape, out.dtype, out.device) == ((17, *x.shape[1:]), x.dtype, x.device)
    assert torch.equal(out, make_auxiliary(x, 17))
    if structure == "with what is no tensor":
        assert (made[0], made[2]) == (None, 3)


@pytest.mark.parametrize("name", IMAGES)
def test_images_stay_in_the_range_of_the_sample_and_are_none_of_it(name: str) -> None:
    x = IMAGES[name]
    before = x.clone()
    for kind, y in each_kind(x):
        assert y.dtype == x.dtype
        assert y.shape == (50, *x.shape[1:])
        assert y.isfinite().all()
        over = () if kind == "channels" else (1,)
        moved, own = (t.double().movedim(1, 0).flatten(len(over)) for t in (y, x))
        assert (moved.amin(-1) >= own.amin(-1)).all(), kind
        assert (moved.amax(-1) <= own.amax(-1)).all(), kind
        assert count_duplicates([y], [x]) == 0, kind
    assert torch.equal(x, before)
    assert set(KINDS["images"]) - set(list_allowed_kinds(x)) == ({"channels"} if x.shape[1] == 1 else set())


def test_no_digit_comes_out_of_the_digits() -> None:
    x = zoo.digits("train").inputs
    for kind, y in ((kind, make_auxiliary(x, 1000, kinds=[kind])) for kind in list_allowed_kinds(x)):
        assert count_duplicates([y], [x]) == 0, kind
        assert y.min() >= 0, kind
        assert y.max() <= 1, kind
        assert len(set(map(bytes, y.numpy()))) > 990, kind


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("like", [NORMAL, BYTES, sentences()["input_ids"]], ids=["floats", "bytes", "ids"])
def test_the_device_is_kept_and_changes_nothing(like: Tensor) -> None:
    made = make_auxiliary(like.cuda(), 40)
    assert made.is_cuda
    assert torch.allclose(made.cpu().double(), make_auxiliary(like, 40).double(), atol=1e-5)


def test_another_default_device_or_dtype_changes_nothing() -> None:
    expected = make_auxiliary(NORMAL, 40), make_auxiliary(IDS, 20)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        found = make_auxiliary(NORMAL, 40), make_auxiliary(IDS, 20)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_inputs_that_need_gradients_give_data_that_do_not() -> None:
    assert not make_auxiliary(photos_of(4).requires_grad_(), 16).requires_grad


# -- seeds and shares ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("like", [NORMAL, BYTES, sentences()["input_ids"]], ids=["floats", "bytes", "ids"])
def test_the_same_seed_gives_the_same_and_another_seed_gives_others_of_every_kind(like: Tensor) -> None:
    for kind in list_allowed_kinds(like):
        first, again, other = (make_auxiliary(like, 30, kinds=[kind], seed=s) for s in (5, 5, -6))
        assert torch.equal(first, again)
        assert not torch.equal(first, other), kind
    assert not torch.equal(make_auxiliary(like, 1), make_auxiliary(like, 1, seed=1))


def test_the_global_random_state_is_neither_moved_nor_read() -> None:
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state(), repr(np.random.mtrand._rand.get_state())
        made.append((make_auxiliary(NORMAL, 40), make_auxiliary(IDS, 20)))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert repr(np.random.mtrand._rand.get_state()) == before[1]
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 50])
def test_kinds_take_turns(n: int) -> None:
    """Example i is of kind i modulo 8, and is what its kind alone gives: no kind depends on those beside
    it."""
    made = make_auxiliary(NORMAL, n)
    for k, kind in enumerate(tuple(KINDS["images"])[:n]):
        mine = made[k::8]
        assert len(mine) in {n // 8, n // 8 + 1}
        assert torch.equal(mine, make_auxiliary(NORMAL, len(mine), kinds=[kind]))
    two = make_auxiliary(NORMAL, n, kinds=("inversion", "uniform"))
    assert torch.equal(two[::2], make_auxiliary(NORMAL, len(two[::2]), kinds="inversion"))


def test_kinds_that_inputs_do_not_allow_are_left_out_unless_asked_for() -> None:
    gray, rgb = photos_of(9, 1), photos_of(9, 1).expand(9, 3, 12, 10)
    for x in (gray, rgb):
        assert list_allowed_kinds(x) == tuple(k for k in KINDS["images"] if k != "channels")
        assert list_allowed_kinds(x, TRAINING_KINDS["images"]) == ("gaussian", "blobs", "patches", "mixture")
        assert torch.equal(make_auxiliary(x, 21), make_auxiliary(x, 21, kinds=list_allowed_kinds(x)))
    assert list_allowed_kinds(photos_of(1, 1)) == ("gaussian", "uniform", "blobs", "patches", "inversion",
                                                   "photographs")
    assert list_allowed_kinds(photos_of(5, 1, 1, 1)) == ("gaussian", "uniform", "inversion", "mixture",
                                                         "photographs")
    assert list_allowed_kinds(photos_of(5, 1, 1, 9))[2] == "blobs"
    assert list_allowed_kinds(IDS, ["random"]) == ("random",)


def test_examples_are_used_up_before_one_is_used_again() -> None:
    x = torch.arange(7.0)[:, None, None, None] * torch.ones(1, 1, 2, 2)
    x[:, :, 0, 0] = 6.5
    for n in (5, 7, 20):
        times = Counter(make_auxiliary(x, n, kinds="inversion")[:, 0, 1, 1].tolist())
        assert len(times) == min(n, 7)
        assert max(times.values()) == math.ceil(n / 7)
    # Of images among which there are gray ones, only the others have channels to permute.
    some = photos_of(6)
    some[:3] = some[:3, :1]
    once = make_auxiliary(some, 3, kinds="channels").sort(1).values
    assert count_duplicates([some[3:].sort(1).values], [once]) == 3
    two = photos_of(30, 2)
    assert count_duplicates([two.sort(1).values],
                            [make_auxiliary(two, 30, kinds="channels").sort(1).values]) == 30


def test_kinds_start_from_examples_of_their_own() -> None:
    x = photos_of(30)
    turned, cut = (make_auxiliary(x, 30, kinds=[kind]).mean((2, 3)) for kind in ("inversion", "patches"))
    ends = x.amin((0, 2, 3)) + x.amax((0, 2, 3))
    orders = [torch.cdist(means, x.mean((2, 3))).argmin(1) for means in (ends - turned, cut)]
    assert all(len(set(order.tolist())) == 30 for order in orders)
    assert float((orders[0] == orders[1]).float().mean()) < 0.2


# -- kinds of images -----------------------------------------------------------------------------------------

def test_gaussian_noise_has_the_mean_and_deviation_of_each_channel() -> None:
    # Four standard deviations of room on either side, so that the range cuts off nearly nothing.
    x = torch.randn(64, 3, 32, 32, generator=draws()) * torch.tensor([0.5, 1, 20])[:, None, None] + 3
    y = make_auxiliary(x, 64, kinds="gaussian")
    assert torch.allclose(y.mean((0, 2, 3)), x.mean((0, 2, 3)), atol=0.3)
    assert torch.allclose(y.std((0, 2, 3)) / x.std((0, 2, 3)), torch.ones(3), atol=0.02)
    assert abs(float(torch.corrcoef(y.movedim(1, 0).flatten(1))[0, 1])) < 0.02


def test_uniform_noise_fills_the_range_of_each_channel_evenly() -> None:
    y = make_auxiliary(NORMAL, 400, kinds="uniform")
    for c in range(3):
        low, high = NORMAL[:, c].min(), NORMAL[:, c].max()
        share = torch.histc(y[:, c], 10, float(low), float(high)) / y[:, c].numel()
        assert torch.allclose(share, torch.full((10,), 0.1), atol=0.01)
    counts = torch.bincount(make_auxiliary(IMAGES["narrow bytes"], 400, kinds="uniform").flatten().long())
    assert counts[:100].sum() == 0
    assert torch.allclose(counts[100:] / counts.sum(), torch.full((16,), 1 / 16), atol=0.005)


def test_blobs_are_smooth_and_reach_both_ends_of_the_range() -> None:
    x = photos_of(10, 3, 32, 32)
    low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
    y = make_auxiliary(x, 30, kinds="blobs")
    assert torch.allclose(y.amin((2, 3)), low.expand(30, 3))
    assert torch.allclose(y.amax((2, 3)), high.expand(30, 3))
    assert (y.diff(dim=3).abs().mean() < make_auxiliary(x, 30, kinds="uniform").diff(dim=3).abs().mean()
            / 3).all()
    assert 0.1 < float((y > low[:, None, None]).float().mean()) < 0.8
    # Spots are shared by the channels, but not all of them.
    among = torch.corrcoef(y.movedim(1, 0).flatten(1))
    assert 0.2 < float(among[0, 1]) < 0.8


@pytest.mark.parametrize(("h", "w", "down", "across"), [
    (8, 8, 4, 4), (12, 10, 4, 4), (2, 3, 2, 3), (6, 7, 3, 3), (11, 5, 3, 4), (2, 2, 2, 2), (13, 9, 4, 4)])
def test_patches_are_those_of_an_image_and_what_is_left_over_stays(h: int, w: int, down: int,
                                                                   across: int) -> None:
    x = photos_of(6, 2, h, w)
    high, wide = h // down, w // across

    def patches(image: Tensor) -> list[bytes]:
        return [image[:, i * high:(i + 1) * high, j * wide:(j + 1) * wide].contiguous().numpy().tobytes()
                for i, j in itertools.product(range(down), range(across))]

    originals = {tuple(sorted(patches(image))): image for image in x}
    orders = set()
    for image in make_auxiliary(x, 60, kinds="patches"):
        original = originals[tuple(sorted(patches(image)))]
        assert torch.equal(image[:, down * high:], original[:, down * high:])
        assert torch.equal(image[:, :, across * wide:], original[:, :, across * wide:])
        orders.add(tuple(patches(original).index(p) for p in patches(image)))
    # Of four patches there are 23 other orders.
    assert len(orders) > (15 if down * across == 4 else 50)


@pytest.mark.parametrize("c", [2, 3, 5])
def test_channels_are_those_of_an_image_in_another_order(c: int) -> None:
    x = photos_of(6, c)
    originals = {frozenset(map(bytes, image.numpy())): image.numpy() for image in x}
    orders = Counter()
    for image in make_auxiliary(x, 300, kinds="channels").numpy():
        own = [bytes(channel) for channel in originals[frozenset(map(bytes, image))]]
        orders[tuple(own.index(bytes(channel)) for channel in image)] += 1
    assert tuple(range(c)) not in orders
    assert len(orders) >= min(math.factorial(c) - 1, 80)
    assert max(orders.values()) < 2 * 300 / (math.factorial(c) - 1) + 10


@pytest.mark.parametrize("name", ["unit", "z-scored", "double", "bytes", "narrow bytes", "gray"])
def test_inversion_undoes_itself(name: str) -> None:
    x = IMAGES[name]
    once = make_auxiliary(x, 20, kinds="inversion")
    low, high = (m(x, (0, 2, 3)).double()[:, None, None] for m in (torch.amin, torch.amax))
    # Each image once, in an order of the seed: the mirror image of some image each.
    back = (low + high - once.double())[:, None]
    gaps = (back - x.double()).abs().flatten(2).amax(2)
    assert gaps.amin(1).max() < 1e-6
    assert sorted(gaps.argmin(1).tolist()) == list(range(20))
    twice = make_auxiliary(once, 20, kinds="inversion", seed=3)
    assert torch.allclose(twice.double().sort(0).values, x.double().sort(0).values, atol=1e-5)


@pytest.mark.parametrize("name", ["unit", "double", "bytes"])
def test_mixtures_are_means_of_two_different_images(name: str) -> None:
    x = IMAGES[name]
    wide = x.double().flatten(1)
    means = {pair: wide[list(pair)].mean(0) for pair in itertools.combinations(range(len(x)), 2)}
    table, names = torch.stack(list(means.values())), list(means)
    gaps = torch.cdist(make_auxiliary(x, 100, kinds="mixture").double().flatten(1), table, p=float("inf"))
    assert gaps.amin(1).max() <= (0.5 if name == "bytes" else 1e-6)
    assert len({names[i] for i in gaps.argmin(1)}) > 50


def test_two_images_have_one_mixture() -> None:
    x = photos_of(2)
    assert torch.allclose(make_auxiliary(x, 5, kinds="mixture"), x.mean(0).expand(5, 3, 12, 10))


@pytest.mark.parametrize("name", ["unit", "bytes", "gray", "two channels", "five channels", "small"])
def test_photographs_differ_and_are_not_constant(name: str) -> None:
    x = IMAGES[name]
    y = make_auxiliary(x, 60, kinds="photographs")
    assert len(set(map(bytes, y.numpy()))) == 60
    spread = y.double().flatten(1).std(1) / (x.double().max() - x.double().min())
    assert spread.min() > 0.01
    if x.shape[1] == 5:
        assert torch.allclose(y[:, 3:], y[:, :2], atol=0.02)


def test_photographs_are_those_of_scikit_learn_and_gray_is_their_luma() -> None:
    from sklearn.datasets import load_sample_images

    photos = auxiliary_kinds._load_photographs()
    assert np.array_equal((photos * 255).round().byte().permute(0, 2, 3, 1).numpy(),
                          load_sample_images().images)
    x = torch.tensor([0.0, 1.0])[:, None, None, None]
    gray, colours = (make_auxiliary(x.repeat(1, c, 9, 9), 30, kinds="photographs") for c in (1, 3))
    luma = (colours * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    assert torch.allclose(gray, luma, atol=1e-5)


@pytest.mark.parametrize(("h", "w"), [(16, 16), (12, 30), (40, 9), (7, 60)])
def test_photographs_are_crops_in_proportion_from_everywhere_in_many_sizes_and_flipped(
        h: int, w: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs whose pixels say where they are: red the row, green the column, blue which photograph."""
    rows, columns = torch.arange(427.0) / 427, torch.arange(640.0) / 640
    where = torch.stack([torch.stack([rows[:, None].expand(427, 640), columns.expand(427, 640),
                                      torch.full((427, 640), float(i))]) for i in range(2)])
    monkeypatch.setattr(auxiliary_kinds, "_load_photographs", lambda: where)
    x = torch.tensor([0.0, 1.0])[:, None, None, None].repeat(1, 3, h, w)
    made = make_auxiliary(x, 300, kinds="photographs")
    row, column, which = made.unbind(1)
    assert torch.allclose(row, row[:, :, :1].expand_as(row), atol=1e-5)
    assert torch.allclose(column, column[:, :1].expand_as(column), atol=1e-5)
    assert torch.allclose(which, which[:, :1, :1].round().expand_as(which), atol=1e-5)
    assert 100 < float(which[:, 0, 0].sum()) < 200
    # Antialiasing bends the ramps at their ends, hence the steps in the middle.
    down = (row[:, h // 2, 0] - row[:, h // 2 - 1, 0]) * 427
    across = (column[:, 0, w // 2] - column[:, 0, w // 2 - 1]) * 640
    assert 100 < int((across < 0).sum()) < 200
    largest = min(427 / h, 640 / w)
    assert torch.allclose(down, across.abs(), rtol=0.07)
    assert 0.3 * largest < float(across.abs().min()) < 0.4 * largest
    assert 0.9 * largest < float(across.abs().max()) < 1.05 * largest
    top, left = row[:, 0, 0], column[:, 0, :].amin(1)
    room = (1 - h * down / 427, 1 - w * across.abs() / 640)
    for start, free in zip((top, left), room, strict=True):
        share = (start / free)[free > 0.2]
        assert share.min() < 0.15
        assert share.max() > 0.85


# -- kinds of tokens -----------------------------------------------------------------------------------------

def matched(like: dict[str, Any], made: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(ids before, ids after, mask) of each example; the entry of types says which example it was."""
    for i in range(len(made["input_ids"])):
        row = int(made["token_type_ids"][i, 0]) // like["input_ids"].shape[1]
        for key in ("attention_mask", "token_type_ids"):
            assert torch.equal(made[key][i], like[key][row])
        yield like["input_ids"][row], made["input_ids"][i], like["attention_mask"][row].bool()


@pytest.mark.parametrize("kind", KINDS["tokens"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_ids_keep_what_does_not_count_and_what_all_hold(kind: str, side: str) -> None:
    like = sentences()
    if side == "left":
        like = {k: v.flip(1) if isinstance(v, Tensor) else v for k, v in like.items()}
        like["token_type_ids"] = like["token_type_ids"].flip(1)
    made = make_auxiliary(like, 70, kinds=[kind])
    assert list(made) == list(like)
    assert made["return_dict"] is True
    words = set(like["input_ids"][like["attention_mask"] == 1].tolist()) - {CLS, SEP}
    changed = 0
    for before, after, mask in matched(like, made):
        assert torch.equal(before[~mask], after[~mask])
        ends = mask.nonzero()[[0, -1], 0]
        assert torch.equal(before[ends], after[ends])
        assert set(before[ends].tolist()) == {CLS, SEP}
        inner = mask.clone()
        inner[ends] = False
        changed += int((before != after).sum())
        assert not torch.equal(before, after)
        if kind == "shuffled":
            assert sorted(before[inner].tolist()) == sorted(after[inner].tolist())
        else:
            assert set(after[inner].tolist()) <= words
    assert changed > 200


def test_random_ids_are_drawn_evenly_from_those_seen() -> None:
    ids = torch.tensor([5, 5, 5, 5, 5, 5, 7, 9]).repeat(40, 6)[:, torch.randperm(48, generator=draws())]
    ids = torch.stack([row[torch.randperm(48, generator=draws(i))] for i, row in enumerate(ids)])
    seen = Counter(make_auxiliary(ids, 200, kinds=["random"]).flatten().tolist())
    assert set(seen) == {5, 7, 9}
    assert all(abs(count / 9600 - 1 / 3) < 0.02 for count in seen.values())


def test_shuffles_are_of_all_orders() -> None:
    """Two examples of three ids: all but their own orders come, each about as often."""
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    orders = Counter(tuple(r) for r in make_auxiliary(ids, 1000, kinds=["shuffled"]).tolist())
    own = {(1, 2, 3), (4, 5, 6)}
    assert set(orders) == {order for ids in own for order in itertools.permutations(ids)} - own
    assert max(orders.values()) < 2 * min(orders.values())


def test_a_fixed_prompt_stays_and_one_example_alone_has_none() -> None:
    ids = torch.randint(10, 99, (8, 9), generator=draws())
    ids[:, 2:5] = torch.tensor([1, 2, 3])
    made = make_auxiliary(ids, 40)
    assert (made[:, 2:5] == torch.tensor([1, 2, 3])).all()
    assert not set(made[:, [0, 1, 5, 6, 7, 8]].flatten().tolist()) & {1, 2, 3}
    alone = make_auxiliary(ids[:1], 40, kinds=["shuffled"])
    assert (alone[:, 2:5] != torch.tensor([1, 2, 3])).any(0).all()
    assert (alone.sort(1).values == ids[0].sort().values).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_ids_keep_their_dtype(dtype: torch.dtype) -> None:
    like = {"input_ids": torch.randint(0, 99, (9, 7), generator=draws()).to(dtype),
            "attention_mask": torch.ones(9, 7)}
    made = make_auxiliary(like, 20)
    assert made["input_ids"].dtype == dtype
    assert made["attention_mask"].dtype == torch.float32
    assert count_duplicates([made["input_ids"]], [like["input_ids"]]) == 0


# -- what is refused -----------------------------------------------------------------------------------------

def with_one(value: float) -> Tensor:
    x = photos_of(3).clone()
    x[1, 2, 3, 4] = value
    return x


REFUSED: dict[str, tuple[Any, int, Any, str]] = {
    "no examples wanted": (photos_of(3), 0, None,
                           "at least 1 auxiliary example, got n=0; leave auxiliary data out"),
    "fewer than none": (IDS, -3, None, "got n=-3"),
    "no images": (photos_of(3)[:0], 4, None,
                  "at least one example .*, got images of shape \\(0, 3, 12, 10\\); pass"),
    "no ids": ({"input_ids": IDS[:, :0]}, 4, None, "at least one example .*, got tokens of shape \\(3, 0\\)"),
    "nan": (with_one(float("nan")), 4, None, "NaN or inf in the images"),
    "infinity": ((with_one(-math.inf),), 4, ["uniform"], "NaN or inf in the images"),
    "unknown kind": (photos_of(3), 4, ["gausian"],
                     "unknown kind of auxiliary images 'gausian'; nearest: gaussian"),
    "kind of tokens": (photos_of(3), 4, ["random"], "unknown kind of auxiliary images 'random'"),
    "kind of images": (IDS, 4, ["uniform"],
                       "unknown kind of auxiliary tokens 'uniform'; nearest: shuffled, random"),
    "no kinds": (photos_of(3), 4, [], "got none; leave kinds out for all"),
    "a kind twice": (photos_of(3), 4, ["blobs", "blobs"], "different kinds .*, got blobs, blobs"),
    "one channel": (photos_of(3, 1), 4, ["blobs", "channels"],
                    "kind 'channels' need channels that differ; leave"),
    "equal channels": (photos_of(3, 1).repeat(1, 3, 1, 1), 4, ["channels"],
                       "channels that differ"),
    "low": (photos_of(3, 3, 1, 8), 4, ["patches"],
            "kind 'patches' need at least 2 x 2 pixels that differ; leave it out"),
    "flat": (photos_of(3, 3, 1, 1).expand(3, 3, 8, 8), 4, ["patches"],
             "pixels that differ"),
    "a pixel": (photos_of(3, 3, 1, 1), 4, ["blobs"], "'blobs' need at least 2 pixels"),
    "one image": (photos_of(1), 4, ["mixture"],
                  "'mixture' need at least 2 different images; leave it out"),
    "one image thrice": (photos_of(1).repeat(3, 1, 1, 1), 4, ["mixture"],
                         "2 different images"),
    "nothing but black": (torch.zeros(3, 1, 4, 4), 4, None,
                          "are all copies of the 3 originals"),
    "its own negative": (torch.tensor([[[[0.0, 1]]], [[[1.0, 0]]]]), 4, ["inversion"],
                         "kind 'inversion' are all copies"),
    "one text thrice": (IDS[:1].repeat(3, 1), 4, None, "2 different ids where the examples differ"),
    "a word each": (torch.tensor([[1, 5], [1, 7]]), 4, ["shuffled"], "an example with 2 different ids where"),
    "nothing counts": ({"input_ids": IDS, "attention_mask": IDS * 0}, 4, None, "2 different ids where"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_made_is_refused_in_one_line(name: str) -> None:
    like, n, kinds, message = REFUSED[name]
    with pytest.raises(SutureError, match=message) as caught:
        make_auxiliary(like, n, kinds=kinds)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)
