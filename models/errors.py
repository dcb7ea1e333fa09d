"""What can go wrong, said so that the person knows what to do next.

RerankOpsError
├── SettingsError        a key is unknown or a value is not allowed
├── SourceError          the corpus cannot be read
├── ContractError        rows break a data contract
├── ArtifactError        an artifact is missing or its digest differs
├── ModelFileError       model files are missing, changed or of a forbidden kind
├── ExportError          a model cannot be written as a graph
├── ReleaseError         nothing to release, roll back to or serve
├── GateRefused          the gate does not let a candidate be released
└── ScorerLost           the process that runs the models ended or hangs
"""

from __future__ import annotations


class RerankOpsError(Exception):
    """Base of all expected failures. `hint` says what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class SettingsError(RerankOpsError):
    """A settings key is unknown or its value is not allowed."""


class SourceError(RerankOpsError):
    """The corpus source cannot be read."""


class ContractError(RerankOpsError):
    """A table breaks its data contract."""


class ArtifactError(RerankOpsError):
    """An artifact is missing, incomplete or altered."""


class ModelFileError(RerankOpsError):
    """Model files are missing, altered or of a kind that is never loaded."""


class ExportError(RerankOpsError):
    """A model cannot be written as a graph of ONNX."""


class ReleaseError(RerankOpsError):
    """There is no release to act on."""


class GateRefused(RerankOpsError):
    """The gate does not let a candidate be released; the hint has its reasons, one a line."""


class ScorerLost(RerankOpsError):
    """The process that runs the models ended or hangs; it is replaced."""
