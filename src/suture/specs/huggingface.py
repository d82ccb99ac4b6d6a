"""Networks of transformers, from a folder in the Hugging Face layout or a name on the hub."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from suture._base import (
    SutureError,
    expect,
    import_optional,
    make_unknown_error,
    report_errors,
    summarise_error,
)
from suture.data import Preprocessing, TextPreprocessing
from suture.networks import abbreviate, name_kind
from suture.specs.image_processors import read_image_preprocessing
from suture.specs.network_spec import LoadedNetwork, ParsedSpec, build_quietly
from suture.zoo import fit_weights, read_weights

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model*.bin*", "tf_model*.h5*", "flax_model*.msgpack*", "model.ckpt*")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model")
_FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")
"""Files to download from the hub: no pickles, no code."""
_LOCAL = {"trust_remote_code": False, "local_files_only": True}


def build_huggingface(parsed: ParsedSpec) -> LoadedNetwork:
    """Build the network of ``hf:ORG/NAME`` or ``hf:FOLDER``, in float32.

    Its class is the first of `architectures` in config.json, else `AutoModel`. No code from the folder is
    run, and no pickle is read. Without weights in the folder they are random.
    """
    library = import_optional("transformers", "hf", parsed.spec)
    with _silence(library):
        folder = _find_folder(parsed)
        stored = _read_json(folder / "config.json")
        config = _load_config(library, folder, stored)
        kind = _find_class(library, folder, stored)
        notes = parsed.notes
        with build_quietly(parsed):
            if parsed.weights is not None:
                made, notes = _build_with_weights(kind, config, parsed.weights)
            elif _has_weights(folder):
                made, notes = _load_stored(kind, folder, parsed)
            else:
                made = _build_random(kind, config)
        preprocessing, more = _find_preprocessing(library, folder, made)
    return LoadedNetwork(made, preprocessing, parsed.spec, notes + more)


@contextmanager
def _silence(library: Any) -> Iterator[None]:
    log, hub = library.utils.logging, import_optional("huggingface_hub.utils", "hf", "transformers")
    level, bars, downloads = (log.get_verbosity(), log.is_progress_bar_enabled(),
                              not hub.are_progress_bars_disabled())
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    hub.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
        if downloads:
            hub.enable_progress_bars()


def _find_folder(parsed: ParsedSpec) -> Path:
    """Return the folder of that name, else the one of the hub or its cache."""
    folder, name = Path(parsed.name).expanduser(), parsed.name
    if not folder.is_dir():
        if folder.exists() or name.count("/") > 1 or name.startswith((".", "~", "/")):
            raise SutureError(f"expected a folder with config.json, or ORG/NAME of the hub, got {name}")
        hub = import_optional("huggingface_hub", "hf", parsed.spec)
        with report_errors(f"cannot get {name!r} from the Hugging Face hub or its cache", "write hf:FOLDER "
                           f"for a folder made by: hf download {name} --local-dir FOLDER"):
            folder = Path(hub.snapshot_download(name, allow_patterns=list(_FILES), ignore_patterns=["*/*"]))
    expect((folder / "config.json").is_file(), f"config.json in {folder}", "none",
           "write it with model.save_pretrained")
    return folder


def _read_json(path: Path) -> dict[str, Any]:
    with report_errors(f"cannot read {path}", "expected JSON"):
        content = json.loads(path.read_text(encoding="utf-8"))
    expect(isinstance(content, dict), f"a JSON object in {path}", content)
    return content  # type: ignore[no-any-return]


def _load_config(library: Any, folder: Path, stored: dict[str, Any]) -> Any:
    if stored.get("model_type") not in library.CONFIG_MAPPING:
        raise _make_unknown_part_error(library, folder, stored, "model_type", str(stored.get("model_type")),
                                       library.CONFIG_MAPPING.keys())
    with report_errors(f"cannot read {folder / 'config.json'}"):
        return library.AutoConfig.from_pretrained(folder, **_LOCAL)


def _find_class(library: Any, folder: Path, stored: dict[str, Any]) -> Any:
    named = stored.get("architectures") or ()
    if not named:
        return library.AutoModel
    found = getattr(library, str(named[0]), None)
    if inspect.isclass(found) and issubclass(found, library.PreTrainedModel):
        return found
    raise _make_unknown_part_error(library, folder, stored, "architecture", str(named[0]),
                                   [n for n in dir(library) if n[:1].isupper()])


def _make_unknown_part_error(library: Any, folder: Path, stored: dict[str, Any], part: str, name: str,
                             known: Iterable[str]) -> SutureError:
    if "auto_map" in stored:
        return SutureError(f"{name} in {folder} is code kept beside the weights, which suture does not run; "
                           "write a function that builds the network, and give mypackage.models:build")
    return make_unknown_error(f"{part} of transformers {library.__version__} in {folder / 'config.json'}:",
                              name, known)


def _has_weights(folder: Path) -> bool:
    """Return True for a folder with readable weights, False without weights; raise for other weights."""
    if any((folder / name).is_file() for name in _WEIGHTS):
        return True
    if pickled := sorted(p.name for pattern in _PICKLED for p in folder.glob(pattern)):
        raise SutureError(f"{folder / pickled[0]} is no safetensors file; write "
                          f"model.save_pretrained({str(folder)!r}), or give a pytorch_model.bin as weights")
    if other := sorted(p.name for p in folder.glob("*.safetensors")):
        raise SutureError(f"expected model.safetensors in {folder}, got {other[0]}; give it as weights")
    return False


def _build_random(kind: Any, config: Any) -> nn.Module:
    made: nn.Module = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    return made.float()


def _build_with_weights(kind: Any, config: Any, path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a network with the weights of a file, named as in the network or as transformers saves them."""
    made = _build_random(kind, config)
    try:
        return made, fit_weights(made, path).notes
    except SutureError as unfit:
        file = read_weights(path)
        try:
            again, report = kind.from_pretrained(None, config=config, state_dict=file.tensors,
                                                 dtype=torch.float32, output_loading_info=True)
        except Exception:
            raise unfit from None
        if any(report.values()):
            raise
    _check_values(again, {name: (t.dtype, t.shape) for name, t in file.tensors.items()}, str(path))
    return again, file.notes


def _load_stored(kind: Any, folder: Path, parsed: ParsedSpec) -> tuple[nn.Module, tuple[str, ...]]:
    made, report = kind.from_pretrained(folder, use_safetensors=True, dtype=torch.float32,
                                        output_loading_info=True, **_LOCAL)
    _check_values(made, _list_stored(folder), str(folder))
    notes = []
    for keys, what in (("missing_keys", "weights are not in the files of {} and are random (seed {})"),
                       ("unexpected_keys", "weights in the files of {} are not in the network")):
        if names := sorted(report[keys]):
            notes.append(f"{len(names)} {what.format(parsed.spec, parsed.seed)}: {abbreviate(names)}")
    return made, tuple(notes)


Stored = Mapping[str, tuple[torch.dtype, torch.Size]]


def _list_stored(folder: Path) -> Stored:
    """Return dtype and shape of every tensor in the files of a folder, without their values."""
    found = {}
    index = folder / _WEIGHTS[1]
    files = ({folder / str(f) for f in _read_json(index)["weight_map"].values()}
             if index.is_file() and not (folder / _WEIGHTS[0]).is_file() else {folder / _WEIGHTS[0]})
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                empty = part[:0] if part.get_shape() else file.get_tensor(name)
                found[name] = empty.dtype, torch.Size(part.get_shape())
    return found


def _check_values(made: nn.Module, stored: Stored, where: str) -> None:
    """Refuse weights that transformers casts to another kind of number, and those that are not finite.

    It renames weights, so those of another kind are known by their shapes: a float weight of the network has
    it, and no other tensor.
    """
    shapes: dict[str, set[torch.Size]] = {}
    for t in made.state_dict().values():
        shapes.setdefault(name_kind(t.dtype), set()).add(t.shape)
    other = [f"{name} ({str(dtype).removeprefix('torch.')})" for name, (dtype, shape) in stored.items()
             if (kind := name_kind(dtype)) != "float" and shape in shapes.get("float", ())
             and shape not in shapes.get(kind, ()) and not name.endswith("num_batches_tracked")]
    expect(not other, f"weights of float numbers in {where}", abbreviate(other), "save them as float32")
    bad = [name for name, t in made.named_parameters() if not bool(torch.isfinite(t).all())]
    expect(not bad, f"finite weights in {where}", f"NaN or inf in {abbreviate(bad)}", "train them again")


def _find_preprocessing(library: Any, folder: Path,
                        made: nn.Module) -> tuple[Preprocessing | None, tuple[str, ...]]:
    kind = getattr(made, "main_input_name", "")
    if kind == "pixel_values":
        alone, among = folder / "preprocessor_config.json", folder / "processor_config.json"
        processor = (_read_json(alone) if alone.is_file() else
                     _read_json(among).get("image_processor") if among.is_file() else None)
        return read_image_preprocessing(processor, made.config)
    if kind == "input_ids" and any(any(folder.glob(pattern)) for pattern in _TOKENIZER):
        return _make_text_preprocessing(library, folder, made)
    return None, ()


def _make_text_preprocessing(library: Any, folder: Path,
                             made: Any) -> tuple[Preprocessing | None, tuple[str, ...]]:
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(folder, **_LOCAL)
    except Exception as e:
        return None, (f"the tokenizer in {folder} does not load ({type(e).__name__}: {summarise_error(e)}); "
                      "give token ids as data",)
    # For example, BERT's tokenizer makes token types, and DistilBERT does not accept them.
    known = inspect.signature(made.forward).parameters
    tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n in known]
    embeddings = made.get_input_embeddings()
    vocab = embeddings.num_embeddings if isinstance(embeddings, nn.Embedding) else None
    return TextPreprocessing(tokenizer, most=_count_positions(made), vocab=vocab), ()


def _count_positions(made: Any) -> int | None:
    """Return the largest number of tokens of a text; None if there is no limit."""
    most = getattr(made.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    # RoBERTa and similar networks number positions from after the padding index.
    first = next((m.padding_idx + 1 for name, m in made.named_modules() if name.endswith(
        "position_embeddings") and isinstance(m, nn.Embedding) and m.padding_idx is not None), 0)
    return most - first
