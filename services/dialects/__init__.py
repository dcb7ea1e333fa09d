"""The interfaces of rerank clients, one module each: what a request means in `services.ranking`, and how its answer
reads. None of them decides anything about a ranking."""
