"""``python -m vidcls`` is the same as the command ``vidcls``."""

from vidcls.cli.app import main

main()
