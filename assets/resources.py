"""Resource types and the IO manager. Instances are bound in `orchestration.definitions`."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import ConfigDict, PrivateAttr

from assets.config import (
    CorpusConfig,
    EncoderConfig,
    EngineConfig,
    EvaluationConfig,
    GateConfig,
    IndexConfig,
    MonitoringConfig,
    ObjectivesConfig,
    QueryWriterConfig,
    ServingConfig,
    TiersConfig,
    TrainingConfig,
    edits,
)
from assets.keys import artifact_name
from assets.policies import no_retries_of_what_is_certain
from models.settings import Settings, load_settings
from models.store.artifacts import Artifact, ArtifactStore

if TYPE_CHECKING:
    from models.records.database import Database


class Deployment(dg.ConfigurableResource):
    """Where this deployment keeps things, and the settings that a run works with: edit them here in the launchpad.

    The settings are read once, when a run starts, from the file and the environment of its process; what the run's
    configuration changes is laid over them, for every asset and check of the run alike.
    """

    # Without it a misspelt section is dropped in silence.
    model_config = ConfigDict(extra="forbid")

    corpus: CorpusConfig = CorpusConfig()
    encoder: EncoderConfig = EncoderConfig()
    index: IndexConfig = IndexConfig()
    training: TrainingConfig = TrainingConfig()
    query_writer: QueryWriterConfig = QueryWriterConfig()
    engine: EngineConfig = EngineConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: GateConfig = GateConfig()
    tiers: TiersConfig = TiersConfig()
    objectives: ObjectivesConfig = ObjectivesConfig()
    serving: ServingConfig = ServingConfig()
    monitoring: MonitoringConfig = MonitoringConfig()

    _of_run: Settings | None = PrivateAttr(default=None)
    _backfill: str = PrivateAttr(default="")
    """Id of a run on a past version of the corpus: what it makes becomes current when all of it is made."""
    _database: "Database | None" = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Read the settings of a run; a value that is not allowed is refused before the first step."""
        self._of_run = load_settings(values=edits(self))
        self._backfill = context.run.run_id if self._of_run.corpus.version and context.run else ""

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the database. Of a run on a past version of the corpus, move the pointers of the deployment if all of
        it succeeded."""
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._backfill:
            store = self.store()
            if _all_steps_succeeded(context):
                store.promote()
            else:
                store.forget_run()

    def settings(self) -> Settings:
        """The validated settings: those of the run, outside a run those in force now. Raises `SettingsError`."""
        return self._of_run or load_settings(values=edits(self))

    def settings_for(self, corpus_defaults: Artifact) -> Settings:
        """`settings` with the numbers that were chosen for the corpus in place of `auto`."""
        from models.training.corpus_defaults import with_defaults

        return with_defaults(self.settings(), corpus_defaults)

    def store(self) -> ArtifactStore:
        """The artifact store."""
        return ArtifactStore.of(self.settings(), self._backfill)

    def database(self) -> "Database":
        """The records database, migrated to the newest schema: opened once in a run, and closed when the run ends.

        Outside a run nothing closes it: sensors use `models.records.database.open_database`.
        """
        from models.records.database import Database

        if self._database is None:
            self._database = Database(self.settings().database_url)
            self._database.migrate()
        return self._database


class ArtifactIOManager(dg.ConfigurableIOManager):
    """Passes artifacts between assets by pointing at them in the store; the files themselves are never copied.

    An artifact is refused as an input when one of its tables breaks its data contract, so that no selection of assets
    in the UI goes around the blocking checks.
    """

    deployment: dg.ResourceDependency[Deployment]

    def handle_output(self, context: dg.OutputContext, obj: Artifact) -> None:
        """Make the artifact the current one of its asset (and partition)."""
        self.deployment.store().point(obj, _partition(context))

    def load_input(self, context: dg.InputContext) -> Artifact:
        """Open the current artifact of the upstream asset, after its contracts held."""
        from models.expectations.contract_results import require_contracts

        store = self.deployment.store()
        with no_retries_of_what_is_certain():
            artifact = store.require(artifact_name(context.asset_key), _partition(context))
            store.use(artifact)
            require_contracts(store, artifact)
        return artifact


def _partition(context: dg.OutputContext | dg.InputContext) -> str | None:
    return context.asset_partition_key if context.has_asset_partitions else None


def _all_steps_succeeded(context: dg.InitResourceContext) -> bool:
    run, instance = context.run, context.instance
    if run is None or instance is None or run.execution_plan_snapshot_id is None:
        return False
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    stats = instance.get_run_step_stats(run.run_id)
    succeeded = {step.step_key for step in stats if step.status and step.status.value == "SUCCESS"}
    return succeeded >= set(plan.step_keys_to_execute)
