"""What this machine has and what it can do, found out in child processes with a time limit, never in the agent.

``python -m ktrdr_worker.capabilities devices`` and ``... kinds KIND=MODULE:ATTR ...`` are the children; each prints one JSON object. They
import handlers and, where there is a GPU, torch; whatever that does (takes long, prints, crashes) stays there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ktrdr_worker import processes
from ktrdr_zmq.messages import Device
from ktrdr_zmq.version import __version__

DEVICES_TIMEOUT: Final = 60.0
KINDS_TIMEOUT: Final = 300.0
_SOFTWARE: Final = ("torch", "numpy", "pandas", "numba", "TA-Lib", "pyzmq", "msgspec")
_NUMERIC: Final = ("torch", "numpy", "numba", "TA-Lib")
_NVIDIA_SMI: Final = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")


class ProbeError(Exception):
    """A probe did not answer; the text says why."""


class Kind(NamedTuple):
    """What a handler says of itself, or why it cannot be had."""

    name: str
    versions: tuple[int, int] = (0, 0)
    error: str = ""
    missing: str = ""
    """The module whose absence is the whole trouble; an installation without an extra, most of the time."""


# ---------------------------------------------------------------- in the agent


def cpu_count() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Octets of memory of this machine, or of the container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def host_id() -> str:
    """The same for all processes of a machine, and for no other machine; tells nothing about it."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            text = Path(path).read_text("ascii").strip()
            if text:
                return hashlib.sha256(b"ktrdr-zmq" + text.encode()).hexdigest()[:16]
    return socket.gethostname()


def software() -> dict[str, str]:
    """Versions of what computes here; nothing is imported for it."""
    versions = {"python": platform.python_version(), "ktrdr-zmq": __version__, "platform": f"{platform.system()} {platform.machine()}"}
    for name in _SOFTWARE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def numeric_fingerprint(versions: Mapping[str, str], kernels: str = "") -> str:
    """Equal where the same job may be expected to give the same numbers."""
    parts = [platform.machine(), kernels, *(f"{name} {versions.get(name, '-')}" for name in _NUMERIC)]
    return hashlib.sha256("; ".join(parts).encode()).hexdigest()[:8]


def kernels() -> str:
    """What torch chooses its kernels by: the environment, else the processor's instruction sets (Linux; empty elsewhere)."""
    asked = os.environ.get("ATEN_CPU_CAPABILITY", "")
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines():
            if line.startswith("flags"):
                flags = set(line.split())
                return " ".join(
                    [asked, *(name for name in ("avx2", "fma", "avx512f", "avx512vl", "avx512bw", "avx512dq") if name in flags)]
                )
    return asked


async def probe_devices() -> list[Device]:
    """The accelerators that work here.

    Raises
    ------
    ProbeError
    """
    document = await _probe(["devices"], DEVICES_TIMEOUT)
    return [Device(**entry) for entry in document["devices"]]


async def probe_kinds(handlers: Mapping[str, str], environment: Mapping[str, str]) -> list[Kind]:
    """Import handlers, let them warm up, and ask for their versions; one that cannot be had says why."""
    try:
        document = await _probe(["kinds", *(f"{kind}={value}" for kind, value in handlers.items())], KINDS_TIMEOUT, environment)
    except ProbeError as error:
        return [Kind(kind, error=str(error)) for kind in handlers]
    return [Kind(entry["name"], tuple(entry["versions"]), entry["error"], entry["missing"]) for entry in document["kinds"]]


async def _probe(arguments: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "ktrdr_worker.capabilities", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, **(environment or {}), "KTRDR_AGENT_PID": str(os.getpid())},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        raise ProbeError(f"it took longer than {timeout:.0f} s") from None
    finally:
        if process.returncode is None:
            processes.kill_tree(process.pid)
            await process.wait()
    try:
        document: dict[str, Any] = json.loads(out)
    except ValueError:
        tail = err.decode(errors="replace").strip().splitlines()[-3:]
        code = process.returncode or 0
        how = f"was killed by {processes.signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        raise ProbeError(f"the process {how}: {' / '.join(tail)}") from None
    return document


# ---------------------------------------------------------------- in the child


def _find_devices() -> dict[str, Any]:
    devices = _cuda_devices()
    if devices and importlib.util.find_spec("torch") is not None and not _torch_says(lambda torch: torch.cuda.is_available()):
        return {"devices": [], "note": "There is an NVIDIA GPU, but PyTorch here cannot use it."}
    if not devices and sys.platform == "darwin" and _torch_says(lambda torch: torch.backends.mps.is_available()):
        devices = [{"index": 0, "name": platform.processor() or "Apple", "memory": memory(), "type": "MPS"}]
    return {"devices": devices}


def _cuda_devices() -> list[dict[str, Any]]:
    try:
        done = subprocess.run(_NVIDIA_SMI, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    devices = []
    for line in done.stdout.splitlines():
        index, uuid, name, mebibytes = (part.strip() for part in line.split(",", 3))
        octets = int(mebibytes) << 20 if mebibytes.isdigit() else 0
        devices.append({"index": int(index), "uuid": uuid, "name": name, "memory": octets, "type": "CUDA"})
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return devices
    wanted = [part.strip() for part in visible.split(",") if part.strip()]
    return [device for device in devices if str(device["index"]) in wanted or device["uuid"] in wanted]


def _torch_says(question: Callable[[Any], bool]) -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(question(torch))


def _ask_kinds(entries: Sequence[str]) -> dict[str, Any]:
    from ktrdr_worker.loading import load_handler

    answers = []
    for entry in entries:
        kind, _, value = entry.partition("=")
        answer = Kind(kind)
        try:
            handler = load_handler(kind, value)
            warm_up = getattr(handler, "warm_up", None)
            if callable(warm_up):
                warm_up()
            answer = answer._replace(versions=handler.versions)
        except ModuleNotFoundError as error:
            answer = answer._replace(error=str(error), missing=error.name or "")
        except Exception as error:  # noqa: BLE001  # importing a stranger's module may raise anything; it becomes an answer
            answer = answer._replace(error=f"{type(error).__name__}: {error}")
        answers.append(answer._asdict())
    return {"kinds": answers}


def main(argv: list[str]) -> int:
    """Answer one question on the real stdout; what imports print goes to stderr."""
    parent = os.environ.get("KTRDR_AGENT_PID", "")
    if parent.isdigit():
        processes.die_with_parent(int(parent))
    os.chdir("/")  # as the processes of jobs do
    out = os.dup(1)
    os.dup2(2, 1)
    document = _find_devices() if argv[0] == "devices" else _ask_kinds(argv[1:])
    with os.fdopen(out, "w") as file:
        json.dump(document, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
