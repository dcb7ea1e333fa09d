"""Records that change, in one SQL database, and MLflow's registry."""
