"""Everything that `make bench` measures, on the current deployment (RERANKOPS_HOME): make one with `make demo`.

The figures go to docs/benchmarks/results.json, each benchmark's under its own names.
"""

from bench import cascade, early_exits, engines, load, peers


def main() -> None:
    """Run them one after the other."""
    engines.main()
    peers.main()
    early_exits.main()
    cascade.main()
    load.main()


if __name__ == "__main__":
    main()
