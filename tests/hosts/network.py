"""Hosts of their own on one machine: network namespaces with addresses, joined by a bridge, and what can happen to their cables.

Needs root on Linux, `ip` and, for lost packets, `nft`. Faults are those of the wire, not of a process: a peer that is cut off sees
neither FIN nor RST, and TCP stays up over a host that is frozen.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.house import PATIENCE, Daemon

DELAY_LINE = Path(__file__).with_name("delay_line.py")
COMMAND_S = 400.0
NEEDED = ("ip", "nft")


def missing() -> str:
    """Why there can be no such network here; empty if there can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [tool for tool in NEEDED if shutil.which(tool) is None]
    if absent:
        return f"needs {' and '.join(absent)}"
    name = f"kz{os.getpid() % 10_000}-probe"
    try:
        _run("ip", "netns", "add", name)
        _run("ip", "netns", "exec", name, "nft", "add", "table", "bridge", "probe")
    except subprocess.CalledProcessError as error:
        return f"needs network namespaces and nftables: {str(error.stderr).strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Network:
    """Hosts behind one switch.

    Parameters
    ----------
    hosts : mapping of str to str
        Names and IPv4 addresses, all of one /24.
    far : mapping of str to (float, float)
        Hosts that lie behind a long line: its delay in each direction and its jitter, in milliseconds.
    """

    def __init__(self, hosts: Mapping[str, str], far: Mapping[str, tuple[float, float]] | None = None) -> None:
        self.hosts = dict(hosts)
        self._far = dict(far or {})
        self._prefix = f"kz{os.getpid() % 10_000}"
        self._hub = f"{self._prefix}-hub"
        self._lines: list[subprocess.Popen[bytes]] = []
        self._daemons: list[Daemon] = []

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.down()

    def _build(self) -> None:
        for name in (self._hub, *map(self._space, self.hosts)):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        self._bridge("br0")
        for host, address in self.hosts.items():
            space, port = self._space(host), self._port(host)
            self._in_hub("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            self._in_hub("link", "set", port, "master", self._long_line(host) if host in self._far else "br0", "up")
            _run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            _run("ip", "-n", space, "link", "set", "eth0", "up")
        self._nft("add table bridge faults", "add chain bridge faults wire { type filter hook forward priority 0; }")

    def _bridge(self, name: str) -> str:
        self._in_hub("link", "add", name, "type", "bridge")
        self._in_hub("link", "set", name, "up")
        return name

    def _long_line(self, host: str) -> str:
        """A bridge of the host's own, joined to the switch by a line that takes its time."""
        own = self._bridge(f"far{self._number(host)}")
        near, away = f"{own}n", f"{own}a"
        delay, jitter = self._far[host]
        argv = ["ip", "netns", "exec", self._hub, sys.executable, str(DELAY_LINE), near, away, str(delay), str(jitter)]
        line = subprocess.Popen(argv, stdout=subprocess.PIPE)
        self._lines.append(line)
        assert line.stdout is not None
        assert line.stdout.readline() == b"up\n"
        self._in_hub("link", "set", near, "master", "br0", "up")
        self._in_hub("link", "set", away, "master", own, "up")
        return own

    def down(self) -> None:
        """End every process on the hosts, and take the network away."""
        for host in self.hosts:
            self._signal(host, signal.SIGKILL)
        self._reap()
        for line in self._lines:
            line.kill()
            line.wait()
            assert line.stdout is not None
            line.stdout.close()
        for name in (self._hub, *map(self._space, self.hosts)):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    # ------------------------------------------------------------ what happens on a host

    def on(self, host: str, *argv: str) -> list[str]:
        """The command line that runs another one on a host."""
        return ["ip", "netns", "exec", self._space(host), *argv]

    def start(self, host: str, argv: list[str], env: dict[str, str], log: Path) -> Daemon:
        """Start a daemon of this project on a host, and wait until it is ready."""
        daemon = Daemon(host, self.on(host, sys.executable, *argv), env, log)
        self._daemons.append(daemon)
        daemon.ready()
        return daemon

    def run(self, host: str, argv: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a Python command on a host to its end."""
        return subprocess.run(self.on(host, sys.executable, *argv), env=env, capture_output=True, text=True, timeout=COMMAND_S, check=False)

    def freeze(self, host: str) -> None:
        """Stop everything on a host; its connections stay up."""
        self._signal(host, signal.SIGSTOP)

    def thaw(self, host: str) -> None:
        """Let it go on."""
        self._signal(host, signal.SIGCONT)

    def power_cut(self, host: str) -> None:
        """End everything on a host without a word to anybody; `plug` gives it its network back."""
        self.unplug(host)
        self._signal(host, signal.SIGKILL)
        self._reap(host)

    def _reap(self, host: str = "") -> None:
        """Wait for the end of what was killed on a host, or everywhere."""
        for daemon in self._daemons:
            if not host or daemon.name == host:
                daemon.process.wait(PATIENCE)

    # ------------------------------------------------------------ what happens to a cable

    def unplug(self, host: str) -> None:
        """Pull a host's cable."""
        self._in_hub("link", "set", self._port(host), "down")

    def plug(self, host: str) -> None:
        """Put it back."""
        self._in_hub("link", "set", self._port(host), "up")

    def deafen(self, host: str) -> None:
        """Drop what goes to a host; what it says still arrives."""
        self._nft(f'add rule bridge faults wire oifname "{self._port(host)}" drop')

    def silence(self, host: str) -> None:
        """Drop what a host says; it still hears."""
        self._nft(f'add rule bridge faults wire iifname "{self._port(host)}" drop')

    def lose(self, host: str, percent: int) -> None:
        """Drop so many packets in a hundred, both ways."""
        for way in ("iifname", "oifname"):
            self._nft(f'add rule bridge faults wire {way} "{self._port(host)}" numgen random mod 100 < {percent} drop')

    def mend(self, host: str) -> None:
        """Whatever happened to a host or its cable is over, but a power cut."""
        self.heal()
        self.plug(host)
        self.thaw(host)

    def heal(self) -> None:
        """No more packets are dropped."""
        self._nft("flush chain bridge faults wire")

    # ------------------------------------------------------------ names

    def _number(self, host: str) -> int:
        return list(self.hosts).index(host)

    def _port(self, host: str) -> str:
        return f"p{self._number(host)}"

    def _space(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def _in_hub(self, *words: str) -> None:
        _run("ip", "-n", self._hub, *words)

    def _nft(self, *rules: str) -> None:
        _run("ip", "netns", "exec", self._hub, "nft", ";".join(rules))

    def _processes(self, host: str) -> list[int]:
        found = subprocess.run(["ip", "netns", "pids", self._space(host)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def _signal(self, host: str, number: int) -> None:
        for pid in self._processes(host):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
