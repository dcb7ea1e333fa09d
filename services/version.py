"""The version of the software that answers."""

from importlib.metadata import PackageNotFoundError, version


def service_version() -> str:
    """That of the installed package."""
    try:
        return version("rerankops")
    except PackageNotFoundError:
        return "0+checkout"
