#!/usr/bin/env bash
# The preset `full` on every corpus, three seeds: trains, evaluates, writes docs/benchmarks/quality.json. For a machine
# with a GPU. Homes go below RERANKOPS_HOME (default var/full); a call after one that was killed goes on from there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
make --no-print-directory setup
export RERANKOPS_PRESET=full RERANKOPS_HOME="${RERANKOPS_HOME:-$PWD/var/full}"
exec .venv/bin/python -m bench.quality --seeds 0,1,2 "$@"
