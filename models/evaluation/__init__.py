"""Offline evaluation: systems, slices, gains, page and plots."""
