"""Every setting of a deployment, typed: defaults here, one TOML file, presets, environment, `--set`.

Later wins: default, section of the file, the chosen `[presets.<name>]` table of the file, `RERANKOPS_<SECTION>__<KEY>`
in the environment, `--set section.key=value`, the configuration of a Dagster run. A key that does not exist or a value
that is not allowed is a `SettingsError` that names the key and what is allowed.
"""

from models.settings.loading import RESERVED_ENV, as_environment, load_settings, setting_keys, values_of
from models.settings.paths import ROOT, SETTINGS_FILE, settings_file
from models.settings.sections import (
    CacheSettings,
    EncoderSettings,
    EngineSettings,
    EvaluationSettings,
    GateSettings,
    GeneratorSettings,
    IndexSettings,
    MonitoringSettings,
    ObjectivesSettings,
    PretrainingSettings,
    QueryWriterSettings,
    RetentionSettings,
    SchedulesSettings,
    SearchSettings,
    ServingSettings,
    Settings,
    StorageSettings,
    Student,
    TiersSettings,
    TrainingSettings,
)
from models.settings.sources import (
    CorpusSettings,
    FilesSettings,
    FolderSettings,
    HuggingFaceSettings,
    HuggingFaceTable,
    IrDatasetsSettings,
    ManPagesSettings,
    PythonDocsSettings,
    SqlSettings,
)
from models.settings.types import AUTO, MAX_DECOMPRESSED_BYTES, SEARCHABLE, Section, chosen

__all__ = [
    "AUTO", "MAX_DECOMPRESSED_BYTES", "RESERVED_ENV", "ROOT", "SEARCHABLE", "SETTINGS_FILE",
    "CacheSettings", "CorpusSettings", "EncoderSettings", "EngineSettings", "EvaluationSettings", "FilesSettings",
    "FolderSettings", "GateSettings", "GeneratorSettings", "HuggingFaceSettings", "HuggingFaceTable", "IndexSettings",
    "IrDatasetsSettings", "ManPagesSettings", "MonitoringSettings", "ObjectivesSettings", "PretrainingSettings",
    "PythonDocsSettings", "QueryWriterSettings", "RetentionSettings", "SchedulesSettings", "SearchSettings",
    "Section", "ServingSettings", "Settings", "SqlSettings", "StorageSettings", "Student", "TiersSettings",
    "TrainingSettings",
    "as_environment", "chosen", "load_settings", "setting_keys", "settings_file", "values_of",
]  # fmt: skip
