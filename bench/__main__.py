"""Everything that `make bench` measures, on the current deployment (RERANKOPS_HOME): make one with `make demo`.

The figures go to docs/benchmarks/results.json, each benchmark's under its own names.
"""

from bench import cascade, engines, load, peers, stopping


def main() -> None:
    """Run them one after the other."""
    engines.main()
    peers.main()
    stopping.main()
    cascade.main()
    load.main()


if __name__ == "__main__":
    main()
