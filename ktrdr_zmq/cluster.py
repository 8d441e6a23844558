"""`LocalCluster`: a broker and workers as child processes on loopback, for notebooks, tests, the demo and `ktrdr up`.

They are the real daemons, started as anyone would start them. `stop` ends them in good order; if this process dies without having called
it, the kernel ends them (on Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from ktrdr_zmq.config import Endpoint
from ktrdr_zmq.errors import EXIT_FAILED, EXIT_REFUSED, ConfigError, KtrdrError

READY_TIMEOUT: Final = 90.0
RETRY_S: Final = 10.0
"""A process that fails is not started more often than that."""
STOP_TIMEOUT: Final = 20.0
_PR_SET_PDEATHSIG: Final = 1


class ClusterError(KtrdrError):
    """A process of the local cluster did not start."""

    code = "CLUSTER"
    exit_code = EXIT_REFUSED


class Process:
    """One daemon of the cluster.

    Attributes
    ----------
    name : str
        ``broker`` or the worker's id.
    log : Path
        What it writes.
    ready : dict
        What it said when it was ready.
    fate : str
        How it ended the last time, if it was started again since.
    """

    def __init__(self, name: str, module: str, options: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.fate = ""
        self._command = (module, tuple(options), folder, dict(env))
        self.start()

    def start(self, *, again: bool = False) -> None:
        """Start it. One that is started ``again`` says nothing when it is ready: nobody waits for it."""
        module, options, folder, env = self._command
        self.ready: dict[str, Any] = {}
        if again:
            self.fate = "was killed" if (self.exit_code or 0) < 0 else "has failed"
        self._began = time.monotonic()
        reader, writer = os.pipe()
        words = () if again else ("--ready-fd", str(writer))
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module, *options, *words],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, pass_fds=() if again else (writer,), cwd=folder,
                    preexec_fn=_die_with_parent(os.getpid()),  # noqa: PLW1509 (only async-signal-safe work: one prctl, one getppid)
                    start_new_session=True,
                )  # fmt: skip
        finally:
            os.close(writer)
        if again:
            os.close(reader)
        else:
            self._reader = reader

    def replace_option(self, name: str, value: str) -> None:
        """Let it be started with another value the next time."""
        module, options, folder, env = self._command
        place = options.index(name) + 1
        self._command = (module, (*options[:place], value, *options[place + 1 :]), folder, env)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    @property
    def fallen(self) -> bool:
        """Whether it ended by a signal, or by a failure of its own code, and is to be started again."""
        code = self.exit_code or 0
        return code < 0 or (code == EXIT_FAILED and time.monotonic() > self._began + RETRY_S)

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Wait until it says that it is ready.

        Raises
        ------
        ClusterError
            With the process's own words when it says that it cannot, ends, or takes too long.
        """
        end = time.monotonic() + timeout
        said = b""
        try:
            while b"\n" not in said:
                readable, _, _ = select.select([self._reader], [], [], max(end - time.monotonic(), 0.0))
                piece = os.read(self._reader, 65_536) if readable else b""
                if not piece:
                    raise ClusterError(f"{self.name} did not get ready.", hint=self._last_words())
                said += piece
        finally:
            os.close(self._reader)
        self.ready = json.loads(said.split(b"\n", 1)[0])
        if not self.ready.get("ready"):
            raise ClusterError(f"{self.name}: {self.ready.get('error', 'did not get ready')}", hint=str(self.ready.get("hint", "")))

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return self.log.read_text("utf-8", errors="replace")[-2000:].strip()
        return ""

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        if self.alive:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once (SIGKILL) and wait for that."""
        if self.alive:
            self._process.kill()
        self._process.wait()

    def wait(self, timeout: float) -> int | None:
        """Wait for its end; None if it still runs after so many seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """On Linux: let the kernel send SIGTERM to the child when this process is gone."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


class LocalCluster:
    """A broker and workers on this machine.

    Parameters
    ----------
    workers : int or list of dict
        How many workers, or options for each: ``id``, ``kinds`` (list), ``slots`` (``"cpu=2"``), ``simulate_gpu`` (bool), ``handlers``
        (list of ``kind=module:attribute``), ``options`` (further command-line options).
    data_dir : Path, optional
        Folder to keep; a temporary one by default, removed at the end.
    base_port : int
        The broker's first port; 0 takes free ones.
    broker_options : sequence of str
        Further options of the broker.

    Raises
    ------
    ClusterError
        When a process does not start; nothing is left running then.

    Examples
    --------
    >>> with LocalCluster(workers=2) as cluster, cluster.client() as client:  # doctest: +SKIP
    ...     client.train("neuro_mean_reversion", symbol="EURUSD", timeframe="1d").result()
    """

    def __init__(
        self,
        workers: int | Sequence[Mapping[str, Any]] = 1,
        data_dir: str | Path | None = None,
        *,
        base_port: int = 0,
        broker_options: Sequence[str] = (),
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="ktrdr-") if data_dir is None else None
        self.folder = Path(self._temporary.name if self._temporary is not None else data_dir or ".").absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes: list[Process] = []
        self.endpoint = Endpoint("127.0.0.1", base_port)
        specs = [{"id": f"worker-{n + 1}"} for n in range(workers)] if isinstance(workers, int) else list(workers)
        try:
            self._start_broker(base_port, broker_options)
            for number, spec in enumerate(specs):
                self._begin_worker(spec, number)
            for process in self.processes[1:]:
                process.wait_ready()
        except BaseException:
            self.stop(timeout=0.0)
            raise

    def _start_broker(self, base_port: int, options: Sequence[str]) -> None:
        fixed = ["--bind", "127.0.0.1", "--base-port", str(base_port), "--data-dir", str(self.folder / "broker")]
        broker = Process("broker", "ktrdr_broker", [*fixed, *options], self.folder, _environment())
        self.processes.append(broker)
        broker.wait_ready()
        self.endpoint = Endpoint("127.0.0.1", int(broker.ready["port"]))
        broker.replace_option("--base-port", str(self.endpoint.port))  # started again, it is to be found where it was

    def _begin_worker(self, spec: Mapping[str, Any], number: int) -> Process:
        known = {"id", "kinds", "slots", "simulate_gpu", "handlers", "options"}
        if not spec.keys() <= known:
            raise ConfigError(f"A worker has no option {', '.join(spec.keys() - known)}; known: {', '.join(sorted(known))}.")
        name = str(spec.get("id") or f"worker-{number + 1}")
        options = ["--broker", str(self.endpoint), "--id", name, "--state-dir", str(self.folder / name)]
        if spec.get("kinds"):
            options += ["--kinds", ",".join(spec["kinds"])]
        if spec.get("slots"):
            options += ["--slots", str(spec["slots"])]
        if spec.get("simulate_gpu"):
            options.append("--simulate-gpu")
        for handler in spec.get("handlers", ()):
            options += ["--handlers", handler]
        process = Process(name, "ktrdr_worker", [*options, *spec.get("options", ())], self.folder, _environment())
        self.processes.append(process)
        return process

    def start_worker(self, **spec: Any) -> Process:
        """Start one more worker and wait until it is ready."""
        process = self._begin_worker(spec, len(self.processes) - 1)
        process.wait_ready()
        return process

    def revive(self) -> list[Process]:
        """Start again what has fallen; what ended with an exit code that says why stays as it is.

        Returns
        -------
        list of Process
            What was started; none of it need be ready yet.
        """
        fallen = [process for process in self.processes if process.fallen]
        for process in fallen:
            process.start(again=True)
        return fallen

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def broker(self) -> str:
        """The broker's address, as `Client` takes it."""
        return str(self.endpoint)

    def client(self, **options: Any) -> Any:
        """A `Client` connected to this cluster."""
        from ktrdr_zmq.blocking import Client

        return Client(self.broker, **options)

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End the workers, then the broker, in good order; kill what has not ended after ``timeout`` seconds."""
        broker, workers = self.processes[:1], self.processes[1:]
        for group in (workers, broker):
            end = time.monotonic() + timeout
            for process in group:
                process.terminate()
            for process in group:
                if process.wait(max(end - time.monotonic(), 0.0)) is None:
                    process.kill()
        self.processes.clear()
        if self._temporary is not None:
            self._temporary.cleanup()


def _environment() -> dict[str, str]:
    """The environment without settings that would turn a local cluster into something else."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KTRDR_") or name in ("KTRDR_STRATEGIES", "KTRDR_LOG_LEVEL")
    }
