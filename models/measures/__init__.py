"""Retrieval measures, significance, TREC runs, latency summaries."""
