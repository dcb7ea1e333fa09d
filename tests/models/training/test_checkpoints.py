"""A training that was killed goes on from its checkpoint to the weights that it would have had."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from models.cross_encoder.pairwise import Progress
from models.training.fine_tuning import train_large
from tests.commands import forking
from tests.patience import PATIENCE_S
from tests.tiny_cross_encoder import PICKLES, examples, tiny_settings, weights_of, write_base

pytestmark = pytest.mark.heavy


def train(base: Path, folder: Path, progress: Progress | None = None) -> None:
    """Train with dropout, so that the random state counts, on one thread, with a checkpoint at every step."""
    settings = tiny_settings(
        base, dropout=0.5, checkpoint_minutes=1e-9, early_stopping=20, evaluations=4, large_pairs=300
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_large(
            examples(100),
            settings,
            folder / "model",
            progress,
            development=examples(6),
            checkpoints=folder / "kept",
        )
    finally:
        torch.set_num_threads(threads)


def train_and_be_killed(base: Path, folder: Path) -> None:
    """Train in a process that is killed when 16 steps are done."""

    def kill(done: int, total: int) -> None:
        if done == 16:
            os.kill(os.getpid(), signal.SIGKILL)

    train(base, folder, kill)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def test_a_killed_training_goes_on_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "undisturbed", tmp_path / "killed"
    killed = forking.Process(target=train_and_be_killed, args=(base, stopped))
    killed.start()
    killed.join(PATIENCE_S)
    assert killed.exitcode == -signal.SIGKILL
    (kept,) = (stopped / "kept").iterdir()
    assert kept.name == "step-000000015"
    assert {path.name for path in kept.iterdir()} == {"state.safetensors", "trainer_state.json", "checkpoint.json"}
    steps: list[int] = []
    train(base, stopped, lambda done, _: steps.append(done))
    assert steps == list(range(16, 26))
    assert not (stopped / "kept").exists()
    train(base, whole)
    first, other = weights_of(whole / "model"), weights_of(stopped / "model")
    assert first.keys() == other.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, other[name]), name
    reports = [json.loads((folder / "model" / "training.json").read_text()) for folder in (whole, stopped)]
    assert reports[0] == reports[1]
    assert len(reports[0]["development"]) == 4


def test_a_damaged_checkpoint_is_passed_over(base: Path, tmp_path: Path) -> None:
    settings = tiny_settings(base, checkpoint_minutes=1e-9)
    kept = tmp_path / "kept"

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_large(examples(), settings, tmp_path / "part", stop, checkpoints=kept)
    (location,) = kept.iterdir()
    assert location.name == "step-000000003"
    assert not [path for path in location.rglob("*") if path.suffix in PICKLES]
    data = bytearray((location / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (location / "state.safetensors").write_bytes(data)
    told: list[int] = []
    report = train_large(examples(), settings, tmp_path / "model", lambda done, _: told.append(done), checkpoints=kept)
    assert told == list(range(1, 9))
    assert report == train_large(examples(), settings, tmp_path / "other")
    assert not kept.exists()


def test_without_minutes_no_checkpoint_is_kept(base: Path, tmp_path: Path) -> None:
    def look(done: int, total: int) -> None:
        assert not (tmp_path / "kept").exists()

    settings = tiny_settings(base, checkpoint_minutes=0)
    train_large(examples(8), settings, tmp_path / "model", look, checkpoints=tmp_path / "kept")
