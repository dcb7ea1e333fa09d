"""`dagster dev` with the guarded web server: `python -m orchestration.dagster_dev`, with its own options."""

from __future__ import annotations

from typing import Any

from dagster._cli import dev

_WEBSERVER = ["-m", "dagster_webserver"]


def main() -> None:
    """Run web server and daemon until stopped. Raises `RuntimeError` rather than start a web server without guard."""
    open_process = dev.open_ipc_subprocess  # pyright: ignore[reportPrivateImportUsage]  # it offers no other place
    guarded = False

    def open_guarded(program: list[str], **options: Any) -> Any:
        nonlocal guarded
        if program[1:3] == _WEBSERVER:
            guarded = True
            program = [program[0], "-m", "orchestration.dagster_webserver", *program[3:]]
        elif not guarded:
            raise RuntimeError("this version of dagster starts its web server in another way, and it would be open")
        return open_process(program, **options)

    dev.open_ipc_subprocess = open_guarded  # pyright: ignore[reportPrivateImportUsage]
    dev.dev_command()


if __name__ == "__main__":
    main()
