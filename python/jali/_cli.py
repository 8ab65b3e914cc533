"""The command ``jali``."""

import signal
import sys


def main() -> None:
    """Runs the command with the arguments of this process, and ends it with the command's exit code."""
    from ._jali import command

    # The command has no use for KeyboardInterrupt: Ctrl-C ends it, or stops what it serves.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdout.flush()
    sys.exit(command(["jali", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
