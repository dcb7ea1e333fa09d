"""Alembic's environment: runs on the connection that `Database.migrate` hands over.

A new script is written from the tables, against a database at the last revision, and then read by a person:

    alembic -c models/records/migrations/alembic.ini -x url=sqlite:///var/rerankops.db revision --autogenerate -m "what
    changes"
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from models.errors import SettingsError
from models.records.database import VERSION_TABLE
from models.records.tables import Base


def _ours(_object: object, name: str | None, kind: str, reflected: bool, _compare_to: object) -> bool:
    """Leave the tables of MLflow and Dagster alone where they share the database."""
    return not (kind == "table" and reflected and name not in Base.metadata.tables)


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        include_object=_ours,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_from_command_line() -> None:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not isinstance(url, str):
        raise SettingsError("no database URL", "Give one: alembic -x url=sqlite:///var/rerankops.db ...")
    engine = create_engine(url)
    with engine.begin() as connection:
        _run(connection)
    engine.dispose()


if "connection" in context.config.attributes:
    _run(context.config.attributes["connection"])
else:
    _run_from_command_line()
