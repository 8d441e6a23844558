"""A disk that does what a test says: refuses writes, or takes its time. Made of faulty_disk.c and a C compiler."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("faulty_disk.c")
WHY_NOT = "" if sys.platform == "linux" and shutil.which("cc") else "needs Linux and a C compiler (cc)"


class FaultyDisk:
    """The disk of every process that is started with `env`, as far as it writes below ``below``."""

    def __init__(self, folder: Path, below: Path) -> None:
        library = folder / "faulty_disk.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
        self._orders = folder / "orders"
        self.be("none")
        self.env = {"LD_PRELOAD": str(library), "FAULTY_FOLDER": str(below), "FAULTY_ORDERS": str(self._orders)}

    def be(self, order: str) -> None:
        """``none``, ``erofs``, ``enospc``, ``eio``, or ``slow`` and milliseconds."""
        temporary = self._orders.with_suffix(".new")
        temporary.write_text(order)
        temporary.replace(self._orders)
