"""The serving bundle, the gate, releases and rollback."""
