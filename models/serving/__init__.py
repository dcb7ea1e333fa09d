"""A bundle loaded for serving: tiers under a latency budget."""
