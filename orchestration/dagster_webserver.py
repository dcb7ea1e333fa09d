"""Dagster's web server behind `WebGuard`: `python -m orchestration.dagster_webserver`, with its own options."""

from __future__ import annotations

from typing import Any

from dagster_webserver import cli

from orchestration.web_guard import WebGuard, token_of_environment


def main() -> None:
    """Serve until stopped."""
    create_app = cli.create_app_from_workspace_process_context  # pyright: ignore[reportPrivateImportUsage]

    def guarded(*arguments: Any, **options: Any) -> WebGuard:
        return WebGuard(create_app(*arguments, **options), token_of_environment())

    cli.create_app_from_workspace_process_context = guarded  # type: ignore[assignment]  # it offers no other place
    cli.main()


if __name__ == "__main__":
    main()
