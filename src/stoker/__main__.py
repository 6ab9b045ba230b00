"""``python -m stoker``, and the ``stoker`` command."""

import signal
import sys


def main() -> None:
    """Run the command line and exit with its code. An interrupt ends it with 130 and no traceback."""
    try:
        if sys.argv[1:] in (["--version"], ["-V"]):
            from stoker import __version__  # nothing heavy: a version must be there at once

            print(f"stoker {__version__}")  # noqa: T201
            sys.exit(0)
        from stoker.cli.run import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interpreter's own clearing up is not to be interrupted
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
