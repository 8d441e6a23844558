"""``python -m ktrdr_cli``: the same as ``ktrdr``."""

from __future__ import annotations

import sys

from ktrdr_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
