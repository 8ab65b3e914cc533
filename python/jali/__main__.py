"""``python -m jali`` is the command ``jali``."""

from ._cli import main

main()
