"""Networks of transformers, from a folder in the Hugging Face layout or a name on the hub."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from suture._base import SutureError, import_optional, make_unknown_error, seed_torch, summarise_error
from suture.cli.specs import image_processors as processors
from suture.cli.specs.network_spec import LoadedNetwork, ParsedSpec, report_build_errors
from suture.data import Preprocessing, TextPreprocessing
from suture.zoo import load_weights, read_weights

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model*.bin*", "tf_model*.h5*", "flax_model*.msgpack*", "model.ckpt*")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model")
_FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")
"""Files of a repository on the hub to download: no pickles, no code."""


def build_huggingface(parsed: ParsedSpec) -> LoadedNetwork:
    """Build the network of ``hf:ORG/NAME`` or ``hf:FOLDER``, in float32.

    Its class is the one that config.json names under `architectures`, else `AutoModel`. No code beside the
    weights is run, and no pickle is read. A folder without weights gives random ones.

    Raises:
        SutureError: no such folder or name, a config or class that transformers does not know, weights that
            are pickled or unreadable.
    """
    library = import_optional("transformers", "hf", parsed.spec)
    with _silence(library):
        folder = _find_folder(parsed)
        stored = _read_json(folder / "config.json")
        config = _load_config(library, folder, stored)
        kind = _find_class(library, folder, stored)
        notes: tuple[str, ...] = ()
        with report_build_errors(parsed.spec), seed_torch(parsed.seed):
            if parsed.weights is not None:
                made = _build_with_weights(kind, config, parsed.weights)
            elif _has_weights(folder):
                made, notes = _load_stored(kind, folder, parsed)
            else:
                made, notes = _build_random(kind, config), parsed.notes
        preprocessing, more = _find_preprocessing(library, folder, made)
    return LoadedNetwork(made, preprocessing, parsed.spec, notes + more)


@contextmanager
def _silence(library: Any) -> Iterator[None]:
    """Turn off warnings and progress bars of transformers and the hub; restore them afterwards."""
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
    path = Path(parsed.name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise SutureError(f"expected config.json in {path}, as model.save_pretrained writes "
                              "it; there is none")
        return path
    if path.exists() or parsed.name.count("/") > 1 or parsed.name.startswith((".", "~", "/")):
        raise SutureError(f"expected a folder with config.json, or ORG/NAME of the hub, got {parsed.name}")
    hub = import_optional("huggingface_hub", "hf", parsed.spec)
    try:
        found = Path(hub.snapshot_download(parsed.name, allow_patterns=list(_FILES), ignore_patterns=["*/*"]))
    except Exception as e:
        raise SutureError(
            f"cannot get {parsed.name!r} from the Hugging Face hub or its cache: {summarise_error(e)}; write "
            f"hf:FOLDER for a folder on disk, made by: hf download {parsed.name} --local-dir FOLDER") from e
    if not (found / "config.json").is_file():
        raise SutureError(f"expected config.json in {parsed.name!r} of the Hugging Face hub or its cache; "
                          "there is none")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise SutureError(f"cannot read {path}: {summarise_error(e)}; expected JSON") from e
    if not isinstance(content, dict):
        raise SutureError(f"cannot read {path}: expected a JSON object, got {type(content).__name__}")
    return content


def _load_config(library: Any, folder: Path, stored: dict[str, Any]) -> Any:
    known = library.CONFIG_MAPPING
    if stored.get("model_type") not in known:
        if "auto_map" in stored:
            raise _make_remote_code_error(folder, str(stored.get("model_type")))
        raise make_unknown_error(f"model_type of transformers {library.__version__} in "
                                 f"{folder / 'config.json'}:", str(stored.get("model_type")), known.keys())
    try:
        return library.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as e:
        raise SutureError(f"cannot read {folder / 'config.json'}: {type(e).__name__}: "
                          f"{summarise_error(e)}") from e


def _find_class(library: Any, folder: Path, stored: dict[str, Any]) -> Any:
    named = stored.get("architectures") or ()
    if not named:
        return library.AutoModel
    found = getattr(library, str(named[0]), None)
    if inspect.isclass(found) and issubclass(found, library.PreTrainedModel):
        return found
    if "auto_map" in stored:
        raise _make_remote_code_error(folder, str(named[0]))
    raise make_unknown_error(f"architecture of transformers {library.__version__} in "
                             f"{folder / 'config.json'}:", str(named[0]),
                             [n for n in dir(library) if n[:1].isupper()])


def _make_remote_code_error(folder: Path, name: str) -> SutureError:
    return SutureError(f"{name} in {folder} is code kept beside the weights, which suture does not run; "
                       "write a function that builds the network with it, and give mypackage.models:build")


def _has_weights(folder: Path) -> bool:
    """Check that a folder holds weights, and return False if it holds none at all.

    Raises:
        SutureError: the weights have another format or name.
    """
    if any((folder / name).is_file() for name in _WEIGHTS):
        return True
    if pickled := sorted(p.name for pattern in _PICKLED for p in folder.glob(pattern)):
        raise SutureError(
            f"{folder / pickled[0]} is no safetensors file, and pickles would run code to load; write "
            f"model.save_pretrained({str(folder)!r}) where the model was made, or give a pytorch_model.bin "
            "as weights, of which only tensors are read")
    if other := sorted(p.name for p in folder.glob("*.safetensors")):
        raise SutureError(f"expected model.safetensors in {folder}, got {other[0]}; give it as weights")
    return False


def _build_random(kind: Any, config: Any) -> nn.Module:
    made: nn.Module = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    return made.float()


def _build_with_weights(kind: Any, config: Any, path: Path) -> nn.Module:
    """Build a network with the weights of a file.

    The names in the file are those of the modules, or those under which transformers saves.
    """
    made = _build_random(kind, config)
    try:
        load_weights(made, path)
    except SutureError as unfit:
        stored, _ = read_weights(path)
        try:
            again, report = kind.from_pretrained(None, config=config, state_dict=stored, dtype=torch.float32,
                                                 output_loading_info=True)
        except Exception:
            raise unfit from None
        if any(report.values()):
            raise
        return again  # type: ignore[no-any-return]
    return made


def _load_stored(kind: Any, folder: Path, parsed: ParsedSpec) -> tuple[nn.Module, tuple[str, ...]]:
    made, report = kind.from_pretrained(folder, use_safetensors=True, trust_remote_code=False,
                                        local_files_only=True, dtype=torch.float32, output_loading_info=True)
    absent = sorted(report["missing_keys"])
    if not absent:
        return made, ()
    return made, (f"{len(absent)} weights are not in the files of {parsed.spec} and are random (seed "
                  f"{parsed.seed}): {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}",)


def _find_preprocessing(library: Any, folder: Path,
                        made: nn.Module) -> tuple[Preprocessing | None, tuple[str, ...]]:
    takes = getattr(made, "main_input_name", "")
    if takes == "pixel_values":
        return processors.read_image_preprocessing(_read_processor(folder), made.config)
    if takes == "input_ids":
        return _make_text_preprocessing(library, folder, made)
    return None, ()


def _read_processor(folder: Path) -> dict[str, Any] | None:
    if (folder / "preprocessor_config.json").is_file():
        return _read_json(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        return _read_json(folder / "processor_config.json").get("image_processor")
    return None


def _make_text_preprocessing(library: Any, folder: Path,
                             made: Any) -> tuple[Preprocessing | None, tuple[str, ...]]:
    if not any(any(folder.glob(pattern)) for pattern in _TOKENIZER):
        return None, ()
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(folder, trust_remote_code=False,
                                                          local_files_only=True)
    except Exception as e:
        return None, (f"the tokenizer in {folder} does not load ({type(e).__name__}: {summarise_error(e)}); "
                      "give token ids as data",)
    # For example, BERT's tokenizer makes token types, and DistilBERT does not accept them.
    takes = inspect.signature(made.forward).parameters
    tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n in takes]
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
