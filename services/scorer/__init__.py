"""The process that runs a bundle's cross-encoders, and what starts it, talks to it and replaces it."""
