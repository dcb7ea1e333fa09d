"""Settings: what wins, what is refused, and that a refusal names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from models.errors import SettingsError
from models.settings import (
    RESERVED_ENV,
    SETTINGS_FILE,
    Settings,
    as_environment,
    load_settings,
    setting_keys,
    values_of,
)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(
        """
        preset = "small"
        [training]
        seed = 1
        max_queries = 10
        [corpus.files.columns]
        text = "body"
        [presets.small.training]
        seed = 2
        [presets.other.training]
        seed = 3
        """
    )
    return path


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.touch()
    assert load_settings(file=path, environ={}) == Settings()


def test_each_layer_wins_over_the_one_before(toml: Path) -> None:
    def seed(overrides: list[str], environ: dict[str, str]) -> int:
        return load_settings(overrides, file=toml, environ=environ).training.seed

    variable = {"RERANKOPS_TRAINING__SEED": "4"}
    assert Settings().training.seed == 0
    assert seed([], {}) == 2, "the preset wins over the table of the file"
    assert seed([], variable) == 4, "the environment wins over the preset"
    assert seed(["training.seed=5"], variable) == 5, "--set wins over the environment"
    assert load_settings(file=toml, environ={}).training.max_queries == 10, "the file wins over the default"


def test_the_preset_itself_follows_the_same_order(toml: Path) -> None:
    assert load_settings(file=toml, environ={"RERANKOPS_PRESET": "other"}).training.seed == 3
    chosen = load_settings(["preset=small"], file=toml, environ={"RERANKOPS_PRESET": "other"})
    assert (chosen.preset, chosen.training.seed) == ("small", 2)


def test_a_file_of_its_own_needs_no_table_for_the_default_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[presets.mine.training]\nseed = 7\n")
    assert load_settings(file=path, environ={}).training.seed == 0
    assert load_settings(["preset=mine"], file=path, environ={}).training.seed == 7


def test_a_table_as_a_value_is_kept_whole(toml: Path) -> None:
    assert load_settings(file=toml, environ={}).corpus.files.columns == {"text": "body"}
    replaced = load_settings(["corpus.files.columns={ title = 'name' }"], file=toml, environ={})
    assert replaced.corpus.files.columns == {"title": "name"}


def test_a_table_as_a_value_of_a_preset_replaces_the_one_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        "[corpus.files]\ncolumns = { text = 'body' }\n[presets.mine.corpus.files.columns]\ntitle = 'name'\n"
    )
    assert load_settings(["preset=mine"], file=path, environ={}).corpus.files.columns == {"title": "name"}


@pytest.mark.parametrize(
    ("override", "named", "hint"),
    [
        ("training.sed=1", "training.sed", "training.seed"),
        ("trainig.seed=1", "trainig.seed", "training.seed"),
        ("training=1", "training", "training"),
        ("training.seed.deep=1", "training.seed.deep", "training.seed"),
        ("zzz=1", "zzz", "corpus"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_meant(override: str, named: str, hint: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings([override], environ={})
    assert refused.value.message == f"{named}: no such setting"
    assert hint in refused.value.hint


def test_an_unknown_key_in_the_file_or_the_environment_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[gate]\nmin_gian = 0.1\n")
    with pytest.raises(SettingsError, match=r"gate\.min_gian: no such setting"):
        load_settings(file=path, environ={})
    path.write_text("[presets.demo.gate]\nmin_gian = 0.1\n")
    with pytest.raises(SettingsError, match=r"gate\.min_gian: no such setting"):
        load_settings(file=path, environ={})
    with pytest.raises(SettingsError, match=r"gate\.min_gian: no such setting"):
        load_settings(environ={"RERANKOPS_GATE__MIN_GIAN": "0.1"})
    with pytest.raises(SettingsError, match=r"gaet\.min_gain: no such setting"):
        load_settings(environ={"RERANKOPS_GAET__MIN_GAIN": "0.1"})
    path.write_text("[gaet]\nmin_gain = 0.1\n")
    with pytest.raises(SettingsError, match="gaet: no such setting"):
        load_settings(file=path, environ={})


def test_loading_leaves_the_environment_out_of_the_settings_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANKOPS_TRAINING__SEED", "4")
    monkeypatch.setenv("TRAINING__SEED", "5")
    monkeypatch.setenv("PRESET", "full")
    assert Settings().training.seed == 0
    assert Settings.model_validate({"training": {"draws": 2}}).training.seed == 0
    loaded = load_settings()
    assert (type(loaded), loaded.training.seed, loaded.preset) == (Settings, 4, "demo")


@pytest.mark.parametrize(
    "text", ["storage = 'postgresql://reader:hunter2@host/db'", "[storage]\ndatabase_url = { user = 'hunter2' }"]
)
def test_a_secret_in_the_wrong_place_is_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"^storage") as refused:
        load_settings(file=path, environ={})
    assert "hunter2" not in str(refused.value)


def test_variables_with_a_meaning_of_their_own_are_not_settings() -> None:
    assert load_settings(environ=dict.fromkeys(RESERVED_ENV, "anything")) == load_settings(environ={})


@pytest.mark.parametrize(
    "override",
    [
        "corpus.dev_share=1.5",
        "corpus.source=csv",
        "encoder.batch_size=0",
        "evaluation.resamples=10",
        "gate.min_gain=nan",
        "gate.min_gain=inf",
        "gate.allow_rolled_back=perhaps",
        "schedules.retrain=daily",
        "schedules.timezone=Mars/Olympus",
        "schedules.timezone=../../etc",
        "serving.port=70000",
        "training.compact_layers=all",
        "training.seed=",
    ],
)
def test_a_value_that_is_not_allowed_is_refused_under_its_key(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(SettingsError) as refused:
        load_settings([override], environ={})
    assert refused.value.message.startswith(f"{key}")
    assert refused.value.hint


@pytest.mark.parametrize("root", ["s3://key:hunter2@bucket/folder", "s3://bucket/folder?secret=hunter2"])
def test_credentials_in_the_artifact_root_are_refused_and_not_shown(root: str) -> None:
    with pytest.raises(SettingsError, match=r"^storage\.artifacts: .*environment") as refused:
        load_settings([f"storage.artifacts={root}"], environ={})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["corpus.overlap_tokens=192"], "corpus.overlap_tokens"),
        (["corpus.dev_share=0.5", "corpus.test_share=0.5"], "corpus.dev_share"),
        (["corpus.source=beir"], "corpus.path"),
        (["tiers.reserve_ms=1500"], "tiers.reserve_ms"),
        (["training.logged_queries=5"], "training.logged_queries"),
        (['tiers.models=["compact"]'], "tiers.models"),
        (['tiers.models=["large", "compact"]'], "tiers.models"),
    ],
)
def test_values_that_do_not_go_together_are_refused(overrides: list[str], key: str) -> None:
    with pytest.raises(SettingsError, match=f"^{key}:"):
        load_settings(overrides, environ={})


def test_several_wrong_values_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(["serving.port=0", "training.device=tpu"], environ={})
    assert len(refused.value.message.splitlines()) == 2


def test_an_override_needs_a_value() -> None:
    with pytest.raises(SettingsError, match="has no value"):
        load_settings(["training.seed"], environ={})


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no settings file at .*none\.toml"):
        load_settings(file=tmp_path / "none.toml", environ={})
    broken = tmp_path / "broken.toml"
    broken.write_text("[corpus\n")
    with pytest.raises(SettingsError, match=r"broken\.toml is not valid TOML"):
        load_settings(file=broken, environ={})


def test_an_unknown_preset_lists_the_known_ones(toml: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(["preset=large"], file=toml, environ={})
    assert "small, other" in refused.value.hint


@pytest.mark.parametrize(
    "text", ["2024", "2024-01-01", "true", "a b", "postgresql://host/db?x=1", 'quoted "name"', "a # b"]
)
def test_a_string_setting_takes_text_as_it_stands(text: str) -> None:
    assert load_settings([f"storage.model_name={text}"], environ={}).storage.model_name == text


def test_a_string_may_be_quoted_as_in_toml() -> None:
    assert load_settings(["storage.model_name='2024'"], environ={}).storage.model_name == "2024"


@hypothesis_settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    share=st.floats(0, 0.4),
    name=st.from_regex(r"[a-z][a-z0-9 _./:-]{0,20}[a-z]", fullmatch=True),
)
def test_child_processes_read_what_the_command_line_said(seed: int, share: float, name: str) -> None:
    overrides = [f"training.seed={seed}", f"corpus.dev_share={share!r}", f"storage.model_name={name}"]
    assert load_settings(environ=as_environment(overrides)) == load_settings(overrides, environ={})


def test_settings_cannot_be_changed_after_loading() -> None:
    settings = load_settings(environ={})
    with pytest.raises(ValueError, match="frozen"):
        settings.training.seed = 3


def test_every_key_has_a_description_ending_in_a_stop() -> None:
    assert [key for key, field in setting_keys() if not (field.description or "").endswith(".")] == []


def test_places_follow_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RERANKOPS_HOME", str(tmp_path))
    settings = load_settings(environ={})
    assert settings.artifact_root == str(tmp_path / "artifacts")
    assert settings.database_url == f"sqlite:///{tmp_path}/rerankops.db"
    assert settings.mlflow_uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    elsewhere = load_settings(["storage.artifacts=s3://bucket/rerank"], environ={})
    assert elsewhere.artifact_root == "s3://bucket/rerank"


def test_a_relative_corpus_path_starts_at_the_settings_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[corpus]\nsource = "beir"\npath = "scifact"\n')
    monkeypatch.setenv("RERANKOPS_SETTINGS", str(path))
    assert load_settings(environ={}).corpus_path == tmp_path / "scifact"
    assert path != SETTINGS_FILE


def test_typed_values_win_over_everything_and_are_validated(toml: Path) -> None:
    variable = {"RERANKOPS_TRAINING__SEED": "4"}
    settings = load_settings(["training.seed=5"], values={"training.seed": 6}, file=toml, environ=variable)
    assert settings.training.seed == 6
    with pytest.raises(SettingsError, match=r"training\.sed: no such setting"):
        load_settings(values={"training.sed": 6}, file=toml, environ={})
    with pytest.raises(SettingsError, match=r"training\.dropout: "):
        load_settings(values={"training.dropout": 2.0}, file=toml, environ={})


def test_the_values_of_keys_and_sections_by_dotted_key() -> None:
    settings = Settings()
    assert values_of(settings, "encoder.max_tokens") == {"encoder.max_tokens": settings.encoder.max_tokens}
    assert values_of(settings, "corpus.files", without={"corpus.files.columns"}) == {
        "corpus.files.documents": "documents.parquet",
        "corpus.files.queries": "queries.parquet",
        "corpus.files.judgments": "judgments.parquet",
    }
    gate = values_of(settings, "gate", "objectives.p95_ms")
    assert gate == {f"gate.{key}": value for key, value in settings.gate} | {"objectives.p95_ms": 1500}


@pytest.mark.parametrize(("names", "without"), [(("encoder.max_token",), ()), (("gate",), ("gate.min_gian",))])
def test_a_misspelt_name_is_not_passed_over(names: tuple[str, ...], without: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="no such setting"):
        values_of(Settings(), *names, without=without)


def test_databases_are_in_the_home_whatever_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a?b", "a%20b", "a b", "a#b", "ü", "a::b", "a+b&c"):
        monkeypatch.setenv("RERANKOPS_HOME", str(tmp_path / name))
        settings = load_settings()
        assert make_url(settings.database_url).database == str(tmp_path / name / "rerankops.db")
        assert make_url(settings.mlflow_uri).database == str(tmp_path / name / "mlflow" / "mlflow.db")


def test_relative_places_start_at_the_settings_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not at the working directory, which is another one for the processes of Dagster."""
    (tmp_path / "own.toml").write_text("")
    monkeypatch.setenv("RERANKOPS_SETTINGS", str(tmp_path / "own.toml"))
    storage = {"artifacts": "store", "database_url": "sqlite:///a%20b.db", "mlflow_uri": "sqlite:///runs/m.db"}
    settings = load_settings(values={f"storage.{key}": value for key, value in storage.items()})
    assert settings.artifact_root == str(tmp_path / "store")
    assert make_url(settings.database_url).database == str(tmp_path / "a b.db")
    assert make_url(settings.mlflow_uri).database == str(tmp_path / "runs" / "m.db")
    for url in ("postgresql+psycopg://u:p%40@h/d", "sqlite:////absolute.db", "sqlite://", "sqlite:///:memory:"):
        assert load_settings(values={"storage.database_url": url}).database_url == url
    assert load_settings(values={"storage.artifacts": "s3://b/f"}).artifact_root == "s3://b/f"
