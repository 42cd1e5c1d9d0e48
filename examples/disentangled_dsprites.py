"""Disentangling objectives on pictures with known factors, in one command.

With no options it renders its own pictures and needs no download; see ``--help``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from disentangled.main import main

if __name__ == "__main__":
    sys.exit(main())
