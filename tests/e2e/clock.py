"""A wall clock that a test can set while processes run: libfaketime, loaded into them. The monotonic clock stays the real one."""

from __future__ import annotations

from pathlib import Path

LIBRARIES = ("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1")
MISSING = "needs libfaketime (Debian package libfaketime)"


class FakeClock:
    """The clock of every process that is started with `env`; without libfaketime it is the real one, and `set` changes nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file
        library = next((path for path in LIBRARIES if Path(path).exists()), "")
        self.works = bool(library)
        self.env: dict[str, str] = {}
        if library:
            self.set(0)
            self.env = {
                "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DISABLE_SHM": "1", "FAKETIME_DONT_RESET": "1",
            }  # fmt: skip

    def set(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead of the real one, or behind it."""
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{seconds:+d}\n")
        temporary.replace(self._file)
