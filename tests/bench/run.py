"""The one command: ``python3 tests/bench/run.py --help``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    from tests.bench.command import main

    sys.exit(main(sys.argv[1:]))
