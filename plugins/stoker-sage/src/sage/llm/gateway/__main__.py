"""``python -m sage.llm.gateway [--host HOST] [--port PORT]``: the gateway in the foreground, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys

from stoker.__main__ import main as stoker
from stoker_sage.translation import DEFAULT_HOST, DEFAULT_PORT, address


def main() -> None:
    """Run the gateway, and exit with its exit code."""
    parser = argparse.ArgumentParser(prog="python -m sage.llm.gateway", description="Run the gateway, until Ctrl-C.")
    parser.add_argument("--host", help=f"the address to listen on (default: {DEFAULT_HOST})")
    parser.add_argument("--port", "-p", type=int, help=f"the port to listen on (default: {DEFAULT_PORT})")
    wanted = parser.parse_args()
    os.environ.setdefault("STOKER_INVOKED_AS", "stoker")  # what messages tell people to type
    sys.argv[1:] = ["up", *address(wanted.host, wanted.port)]
    stoker()


if __name__ == "__main__":
    main()
