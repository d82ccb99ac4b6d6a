"""Label-preserving shifts of a network's inputs, each with one severity from 0 (no change) to 1."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import (
    SutureError,
    convert_tensors,
    count_examples,
    expect,
    find_only_input,
    replace_input,
    run_foreign,
    walk_tensors,
)
from suture.data import Tokens, find_input_kind
from suture.networks import Text
from suture.ood.auxiliary import describe_form, format_form
from suture.representations import read_mask

VERSION = "shifts/1"
"""Name of this set of shifts; another set gets another name, because distances are in its units."""
_COLUMNS = 128
"""Tokens of each text for which numbers are drawn at once."""
Shift = Callable[[Any, float, torch.Generator], Any]
"""Function from a batch of inputs, a severity in (0, 1] and a generator on the CPU to shifted inputs."""
_CHANNELS = 1, 3, 4
"""Numbers of channels of images that may have them on the last axis."""
_NOISE, _BRIGHTNESS, _CONTRAST, _MIXING = 4.0, 4.0, 10.0, 0.6
"""Standard deviations of noise and brightness, factor of contrast, share of another image, at severity 1."""


def _add_noise(x: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
    return torch.add(x, _compute_spread(x) * drawn, alpha=_NOISE * severity**2)


def _lower_contrast(x: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    return torch.lerp(x, x.mean((2, 3), keepdim=True), severity)


def _raise_contrast(x: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return torch.add(mean, x - mean, alpha=_CONTRAST**severity)


def _brighten(x: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    return x + _BRIGHTNESS * severity**2 * _compute_spread(x)


def _darken(x: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    return x - _BRIGHTNESS * severity**2 * _compute_spread(x)


def _blur(x: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Blur by a Gaussian of up to a quarter of the image's side, the border repeated."""
    for axis in (2, 3):
        size = x.shape[axis]
        sigma = max(severity**2 * size / 4, 1e-3)
        places = torch.arange(size, dtype=x.dtype, device=x.device)
        reach = torch.arange(-size, size + 1, dtype=x.dtype, device=x.device)
        weights = torch.softmax(-reach.square() / (2 * sigma**2), 0)
        hit = (places[:, None] + reach).clamp(0, size - 1).long()
        matrix = x.new_zeros(size, size).scatter_add_(1, hit, weights.expand(size, -1))
        x = (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return x


def _translate(x: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Move each image in a direction of its own by up to half a side, the border repeated."""
    angle = 2 * math.pi * torch.rand(len(x), generator=generator, dtype=torch.float32).to(x)
    theta = torch.eye(2, 3, dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
    theta[:, :, 2] = severity * torch.stack([angle.cos(), angle.sin()], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _mix(x: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    others = (torch.arange(len(x)) + int(torch.randint(1, max(2, len(x)), (), generator=generator))) % len(x)
    return torch.lerp(x, x[others.to(x.device)], _MIXING * severity)


def _compute_spread(x: Tensor) -> Tensor:
    """Return the standard deviation of all values of the batch."""
    return x.std(correction=0)


def _replace_tokens(tokens: Tokens, severity: float, generator: torch.Generator) -> Tensor:
    chosen, ids = _choose_tokens(tokens, severity, generator), tokens.ids
    known = tokens.vocabulary
    drawn = (_draw_uniform(tokens, generator) * len(known)).long()
    return torch.where(chosen, known[drawn.clamp(max=len(known) - 1)], ids) if len(known) else ids


def _swap_tokens(tokens: Tokens, severity: float, generator: torch.Generator) -> Tensor:
    """Exchange neighbouring tokens; each takes part in at most one exchange."""
    chosen, ids = _choose_tokens(tokens, severity, generator), tokens.ids.clone()
    for t in range(ids.shape[1] - 1):
        pair = chosen[:, t] & tokens.free[:, t + 1]
        ids[pair, t], ids[pair, t + 1] = ids[pair, t + 1], ids[pair, t]
        chosen[:, t + 1] &= ~pair
    return ids


def _choose_tokens(tokens: Tokens, severity: float, generator: torch.Generator) -> Tensor:
    return (_draw_uniform(tokens, generator) < severity) & tokens.free


def _draw_uniform(tokens: Tokens, generator: torch.Generator) -> Tensor:
    """Draw numbers in [0, 1) of the shape of the ids, of each token the same whatever texts are padded to."""
    n, length = tokens.ids.shape
    drawn = [torch.rand(n, _COLUMNS, generator=generator, dtype=torch.float32)
             for _ in range(-(-length // _COLUMNS))]
    return torch.cat(drawn, 1)[:, :length]


IMAGE_SHIFTS: Mapping[str, Callable[[Tensor, float, torch.Generator], Tensor]] = MappingProxyType({
    "noise": _add_noise, "contrast down": _lower_contrast, "contrast up": _raise_contrast,
    "brightness up": _brighten, "brightness down": _darken, "blur": _blur, "translation": _translate,
    "mixing": _mix})
"""Shifts of images (N, C, H, W), computed in floating point."""
TOKEN_SHIFTS: Mapping[str, Callable[[Tokens, float, torch.Generator], Tensor]] = MappingProxyType({
    "token replacement": _replace_tokens, "token swap": _swap_tokens})
"""Shifts of token ids; "token drop" hides them in the attention mask."""
DROP = "token drop"


def list_shifts(inputs: Any, of_tokens: bool = False,
                find_text: Callable[[Any], Text | None] = lambda inputs: None) -> dict[str, Shift]:
    """Return the built-in shifts that suit a batch of inputs; none for inputs without a tensor to shift.

    Token ids get the shifts of texts, a single image the shifts of images, and any other tensor of numbers
    noise. All else stays as it is: a decoder's token ids, masks, and tensors of two values beside others.

    Args:
        inputs: of the target network.
        of_tokens: every token has a label of its own, so that dropping one would leave its label behind.
        find_text: finds token ids that a network takes beside other inputs.
    """
    def find(given: Any) -> Text | None:
        return find_text(given) or _find_only_text(given)

    shifts: dict[str, Shift] = {}
    text = find(inputs)
    numbers = _find_numbers(inputs, text)
    if len(numbers) == 1 and numbers[0].ndim == 4:
        shifts |= {name: _shift_numbers(change, find) for name, change in IMAGE_SHIFTS.items()}
    elif numbers:
        shifts["noise"] = _shift_numbers(_add_noise, find)
    if text is not None:
        shifts |= {name: _shift_tokens(change, find) for name, change in TOKEN_SHIFTS.items()}
        masked = text.mask is not None and text.mask.ndim == 2 and bool((text.mask >= 0).all())
        if masked and not (of_tokens and text.followed):
            shifts[DROP] = _drop_tokens(find)
    return shifts


def apply_shift(shift: Shift, name: str, inputs: Any, severity: float, seed: int, batch: int) -> Any:
    """Return shifted inputs; random draws depend on name, seed and batch alone, not on the severity.

    The shift gets a copy of the inputs, which it may overwrite.

    Raises:
        SutureError: the shift fails, or returns other examples, shapes or types.
    """
    digest = hashlib.sha256(f"{seed} {name} {batch}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little"))
    with run_foreign(f"the shift {name!r}"), torch.no_grad():
        made = shift(convert_tensors(inputs, Tensor.clone), severity, generator)
    there = next(walk_tensors(made), None) is not None
    expect(there and count_examples(made) == count_examples(inputs),
           f"as many examples from the shift {name!r}",
           f"{count_examples(made)} of {count_examples(inputs)}" if there else type(made).__name__,
           "return the inputs in the same order")
    wanted, got = describe_form(inputs), describe_form(made)
    expect(got == wanted, f"inputs of the same form from the shift {name!r}, per example "
           f"{format_form(wanted)}", format_form(got), "keep shapes and types")
    return made


def _shift_numbers(change: Callable[[Tensor, float, torch.Generator], Tensor],
                   find: Callable[[Any], Text | None]) -> Shift:
    def shift(inputs: Any, severity: float, generator: torch.Generator) -> Any:
        chosen = {id(t) for t in _find_numbers(inputs, find(inputs))}
        return convert_tensors(inputs, lambda t: _compute_in_floats(t, change, severity, generator)
                               if id(t) in chosen else t)

    return shift


def _compute_in_floats(own: Tensor, change: Callable[[Tensor, float, torch.Generator], Tensor],
                       severity: float, generator: torch.Generator) -> Tensor:
    last = own.ndim == 4 and own.shape[3] in _CHANNELS and min(own.shape[1:3]) > max(_CHANNELS)
    x = own.movedim(3, 1) if last else own
    made = change(x if x.dtype == torch.float64 else x.float(), severity, generator)
    made = made.movedim(1, 3) if last else made
    return (made if own.is_floating_point() else made.round().clamp(0, 255)).to(own.dtype)


def _shift_tokens(change: Callable[[Tokens, float, torch.Generator], Tensor],
                  find: Callable[[Any], Text | None]) -> Shift:
    def shift(inputs: Any, severity: float, generator: torch.Generator) -> Any:
        text = find(inputs)
        assert text is not None
        return replace_input(inputs, text.ids, change(_read_tokens(text), severity, generator).to(text.ids))

    return shift


def _drop_tokens(find: Callable[[Any], Text | None]) -> Shift:
    def shift(inputs: Any, severity: float, generator: torch.Generator) -> Any:
        text = find(inputs)
        assert text is not None
        assert text.mask is not None
        kept = ~_choose_tokens(_read_tokens(text), severity, generator).to(text.mask.device)
        # Without its first token, a text would seem to be padded on the left, which moves all positions.
        first = (text.mask != 0).int().argmax(1)
        kept[torch.arange(len(kept), device=kept.device), first] = True
        return replace_input(inputs, text.mask, text.mask * kept)

    return shift


def _find_only_text(inputs: Any) -> Text | None:
    """Return the token ids of inputs that are nothing else; None for other inputs."""
    if find_input_kind(inputs) != "tokens":
        return None
    given = find_only_input(inputs)
    return Text(given, None, True) if isinstance(given, Tensor) else Text(
        given["input_ids"], given.get("attention_mask"), True)


def _read_tokens(text: Text) -> Tokens:
    mask = None if text.mask is None else read_mask(text.mask)
    return Tokens.of(text.ids, torch.ones_like(text.ids, dtype=torch.bool) if mask is None else mask)


def _find_numbers(inputs: Any, text: Text | None) -> list[Tensor]:
    """Return the tensors of floating point numbers, and of bytes as images are, without masks and the like.

    Beside a text or other numbers, tensors of one or two values are no content: a mask, an adjacency.
    """
    found = [t for t in walk_tensors(inputs) if t.ndim > 1 and (text is None or t is not text.mask)
             and (t.is_floating_point() or (t.dtype == torch.uint8 and t.ndim > 2))]
    return [t for t in found if not _has_two_values(t)] if len(found) > (text is None) else found


def _has_two_values(t: Tensor) -> bool:
    return not t.numel() or bool(((t == t.amin()) | (t == t.amax())).all())


def check_shifts(given: Any) -> Mapping[str, Shift]:
    """Return a user's own shifts by name.

    Raises:
        SutureError: no mapping of functions, or the name of a built-in one.
    """
    expect(isinstance(given, Mapping), "shifts as a mapping from names to functions", given,
           "write shifts={'fog': function}")
    for name, shift in given.items():
        expect(isinstance(name, str) and bool(name), "names of shifts", repr(name))
        if name in IMAGE_SHIFTS or name in TOKEN_SHIFTS or name == DROP:
            raise SutureError(f"expected a name of its own for your shift, got {name!r}, a built-in one; "
                              "choose another")
        expect(callable(shift), f"a function (inputs, severity, generator) as the shift {name!r}", shift)
    return given  # type: ignore[no-any-return]
