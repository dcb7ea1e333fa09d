"""Tiers: calibration, early exit, the walk from the first stage to the large model."""
