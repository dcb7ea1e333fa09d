"""How a release is served: HTTP over `models`, never over Dagster."""
