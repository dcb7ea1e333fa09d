"""From a source to passages, queries and judgments under contracts."""
