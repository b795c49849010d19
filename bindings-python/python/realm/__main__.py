"""`python -m realm`: the `realm` command."""

from __future__ import annotations

import signal
import sys

from realm._realm import _command


def main() -> int:
    """Runs the command with the arguments of this process and returns its exit status."""
    # Python would handle Ctrl-C only after the command; the command handles it itself.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdout.flush()
    return _command(["realm", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
