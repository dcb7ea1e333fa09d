"""Data contracts: rows, tables (pandera) and messages (pydantic)."""
