"""``python -m lucency`` is ``lucency``."""

from lucency.cli import main

main()
