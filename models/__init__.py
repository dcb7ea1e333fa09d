"""How it is done: plain typed Python for every stage. No Dagster, no HTTP."""
