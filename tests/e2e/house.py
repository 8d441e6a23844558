"""Real processes for the end-to-end tests: a broker, workers and the command line, each started as a user would, each killed by pid."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATIENCE = 60.0


class Daemon:
    """A child process that says on a descriptor of its own when it is ready."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], log: Path) -> None:
        reader, writer = os.pipe()
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*argv, "--ready-fd", str(writer)], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=(writer,)
            )
        os.close(writer)
        self._reader = reader

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> dict[str, Any]:
        """Wait for the ready line."""
        chunks = b""
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in chunks:
            readable, _, _ = select.select([self._reader], [], [], max(deadline - time.monotonic(), 0))
            piece = os.read(self._reader, 65536) if readable else b""
            if not piece:
                raise AssertionError(f"{self.name} did not get ready; its log:\n{self.log.read_text()[-4000:]}")
            chunks += piece
        self._close_reader()
        return dict(json.loads(chunks.split(b"\n", 1)[0]))

    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Send a signal, and wait for the end if it is a deadly one."""
        self.process.send_signal(sig)
        if sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            self.process.wait(PATIENCE)
            self._close_reader()

    def _close_reader(self) -> None:
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    def children(self) -> list[int]:
        """Its child processes' pids; none when it has ended."""
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [int(pid) for pid in text.split()]
        return []


class House:
    """A broker and workers on loopback, with everything they write in one temporary folder.

    Attributes
    ----------
    env : dict of str to str
        What every process gets.
    argv_before : list of str
        A command that runs the daemons, for example one that limits them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.argv_before: list[str] = []
        self._daemons: list[Daemon] = []
        home = folder / "home"
        home.mkdir()
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("KTRDR_", "XDG_"))}
        self.env = keep | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(folder),
            "PYTHONPATH": str(HERE),
            "NO_COLOR": "1",
            "COLUMNS": "100",
        }

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def broker(self, *options: str, env: dict[str, str] | None = None) -> Daemon:
        """Start the broker: on a free port at first, on the same one after that. ``env``: for this process alone."""
        argv = [sys.executable, "-m", "ktrdr_broker", "--base-port", str(self.port), "--data-dir", str(self.folder / "broker"), *options]
        daemon = self.start("broker", argv, env)
        self.port = int(daemon.ready()["port"])
        self.env["KTRDR_BROKER"] = self.address
        return daemon

    def worker(self, name: str, *options: str, wait: bool = True, kinds: str = "rogue,echo,noop") -> Daemon:
        """Start a worker; it also knows the handler ``rogue`` (rogue.py)."""
        argv = [sys.executable, "-m", "ktrdr_worker", "--broker", self.address, "--id", name, "--state-dir", str(self.folder / name)]
        argv += ["--kinds", kinds, *options]
        if "rogue" in kinds:
            argv += ["--handlers", "rogue=rogue:handler"]
        daemon = self.start(name, argv)
        if wait:
            daemon.ready()
        return daemon

    def kill_broker(self) -> None:
        """SIGKILL for the broker that was started last."""
        [daemon for daemon in self._daemons if daemon.name == "broker"][-1].kill()

    def start(self, name: str, argv: list[str], env: dict[str, str] | None = None) -> Daemon:
        """Start any process that knows --ready-fd; it ends with the test."""
        daemon = Daemon(name, [*self.argv_before, *argv], self.env | (env or {}), self.folder / f"{name}.log")
        self._daemons.append(daemon)
        return daemon

    def cli(self, *args: str, timeout: float = 120.0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `ktrdr` and wait for it."""
        return subprocess.run(
            self.argv(*args), env=self.env | env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )

    def cli_json(self, *args: str, exit_code: int = 0) -> Any:
        """Run `ktrdr ... --json`, and return what it printed."""
        done = self.cli(*args, "--json")
        assert done.returncode == exit_code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return json.loads(done.stdout)

    def start_cli(self, *args: str) -> subprocess.Popen[str]:
        """Run `ktrdr` beside the test."""
        return subprocess.Popen(
            self.argv(*args), env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def start_python(self, script: str, *args: str) -> subprocess.Popen[str]:
        """Run a script of a person's beside the test."""
        argv = [sys.executable, "-c", script, *args]
        return subprocess.Popen(argv, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "ktrdr_cli", *args]

    def logs(self) -> str:
        """What the daemons wrote, for a failing test's message."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        """End everything that still runs."""
        for daemon in reversed(self._daemons):
            if daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGCONT)
                daemon.process.kill()
                daemon.process.wait(PATIENCE)
            daemon._close_reader()


def eventually(what: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Ask again and again until the answer is true, and return it."""
    deadline = time.monotonic() + patience
    while True:
        answer = what()
        if answer or time.monotonic() > deadline:
            assert answer, f"not within {patience:.0f} s"
            return answer
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second one if it goes between open and read
        return False
