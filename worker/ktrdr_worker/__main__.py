"""``ktrdr-worker``, ``python -m ktrdr_worker`` and ``ktrdr worker run``: options, signals, and words for systemd."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from typing import Final

from ktrdr_worker import capabilities
from ktrdr_worker.core import WorkerConfig
from ktrdr_worker.executor import ExecutorConfig
from ktrdr_worker.loading import find_handlers
from ktrdr_worker.server import Agent, AgentSettings, child_environment
from ktrdr_worker.state import StateFolder, open_state
from ktrdr_zmq.config import Endpoint, Settings, find_broker, folders, load_settings, replaced_variables
from ktrdr_zmq.errors import ConfigError, KtrdrError
from ktrdr_zmq.jobs import TAG_CPU, TAG_GPU
from ktrdr_zmq.logs import set_up_logging
from ktrdr_zmq.messages import MAJOR, Device, WorkerInfo
from ktrdr_zmq.notify import ReadyLine, notify, watchdog_interval
from ktrdr_zmq.version import __version__

log = logging.getLogger("ktrdr_worker")

REPROBE_S: Final = 300.0
LIGHT: Final = frozenset({"ktrdr_worker.jobs.echo:handler", "ktrdr_worker.jobs.noop:handler"})


def parser() -> argparse.ArgumentParser:
    """The command line of the worker."""
    made = argparse.ArgumentParser(
        prog="ktrdr-worker", description="A worker: takes jobs from the broker and runs them in child processes."
    )
    made.add_argument("--broker", metavar="B", help="the broker: an IP, IP:port or tcp://IP:port (or KTRDR_BROKER)")
    made.add_argument("--id", metavar="NAME", help="this worker's name (default <hostname>-worker)")
    made.add_argument("--kinds", metavar="K,K", help="kinds of jobs to take (default: all that are installed)")
    made.add_argument("--slots", metavar="S", help="jobs at once for each tag, for example cpu=4,gpu=1")
    made.add_argument("--gpus", metavar="I,I", help="indices of the GPUs to use (default: all)")
    made.add_argument("--threads", metavar="N", help="threads for each job (default: as the job says)")
    made.add_argument("--state-dir", metavar="D", help="folder of the worker's id, unsent results and cache")
    made.add_argument("--simulate-gpu", action="store_true", default=None, help="offer a gpu slot without a GPU, for trying things out")
    made.add_argument(
        "--handlers", metavar="KIND=MODULE:ATTR", action="append", default=[], help="a handler that no installed package names; repeatable"
    )
    made.add_argument("--ready-fd", type=int, default=-1, metavar="N", help="write a JSON line to this descriptor when ready")
    made.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    made.add_argument("--log-format", choices=("text", "json", "journald"))
    made.add_argument("--version", action="version", version=f"ktrdr-worker {__version__}")
    return made


def chosen_handlers(settings: Settings, extra: list[str]) -> dict[str, str]:
    """The handlers that this worker is to offer.

    Raises
    ------
    ConfigError
        If a kind was asked for that nothing installed handles.
    """
    try:
        found = find_handlers(extra)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    wanted = settings["worker.kinds"]
    unknown = [kind for kind in wanted if kind not in found]
    if unknown:
        raise ConfigError(
            f"No installed package handles {', '.join(unknown)}; there are {', '.join(found)}.",
            hint="Install the package that does, or name a handler with --handlers KIND=MODULE:ATTR.",
        )
    return {kind: found[kind] for kind in wanted} if wanted else found


def chosen_slots(settings: Settings, devices: list[Device]) -> dict[str, int]:
    """How many jobs of each tag may run at once.

    Raises
    ------
    ConfigError
        If GPU slots are wanted and there is no GPU, or if there would be no slot at all.
    """
    slots: dict[str, int] = dict(settings["worker.slots"])
    if not slots:
        slots = {TAG_CPU: capabilities.cpu_count(), TAG_GPU: len(devices)}
    if settings["worker.simulate_gpu"]:
        slots[TAG_GPU] = slots.get(TAG_GPU) or 1
    elif slots.get(TAG_GPU, 0) and not devices:
        raise ConfigError("GPU slots are asked for, but no usable GPU was found.", hint="Leave gpu out of --slots, or try --simulate-gpu.")
    slots = {tag: count for tag, count in slots.items() if count}
    if not slots:
        raise ConfigError("A worker needs at least one slot.", hint="Say for example --slots cpu=1.")
    return slots


def assigned(devices: list[Device], slots: int, simulated: bool) -> tuple[tuple[str, dict[str, str]], ...]:
    """The device of each GPU slot, as handlers name it, and the environment that makes it the only one they see."""
    if simulated or not devices:
        return tuple(("cpu", {"CUDA_VISIBLE_DEVICES": ""}) for _ in range(slots))
    made = []
    for slot in range(slots):
        device = devices[slot % len(devices)]
        if device.type == "MPS":
            made.append(("mps", dict[str, str]()))
        else:
            made.append(("cuda:0", {"CUDA_VISIBLE_DEVICES": device.uuid or str(device.index)}))
    return tuple(made)


class Launcher:
    """Finds out what the worker can do, and runs the agent."""

    def __init__(self, settings: Settings, handlers: dict[str, str], endpoint: Endpoint, state: StateFolder, ready: ReadyLine) -> None:
        self._settings = settings
        self._handlers = handlers
        self._endpoint = endpoint
        self._state = state
        self._ready_line = ready
        self._kinds: list[tuple[str, int, int]] = []
        self._pending = set(handlers)
        self._devices: list[Device] = []
        self._slots: dict[str, int] = {}
        self._software = capabilities.software()
        self._instance = secrets.token_bytes(16)
        self._agent: Agent | None = None
        self._stopped = False
        self._environment = child_environment(state.path, settings["worker.threads"])

    async def run(self) -> int:
        """Run the worker; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        self._devices = self._usable(await self._probe_devices())
        self._slots = chosen_slots(self._settings, self._devices)
        probing = loop.create_task(self._probe_kinds())
        watching: asyncio.Task[None] | None = None
        try:
            while not self._kinds and not probing.done():
                await asyncio.wait({probing}, timeout=0.05)
            if probing.done():
                probing.result()
            if self._stopped:
                return 0
            agent = self._agent = Agent(self._agent_settings(), self._info(), self._state)
            agent.offer(agent.core.info, complete=probing.done())
            watching = loop.create_task(self._keep_probing(probing))
            serving = loop.create_task(agent.run(self._ready))
            await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not serving.done():
                serving.cancel()
                await asyncio.wait({serving})
                watching.result()
            return await serving
        finally:
            for task in (probing, watching):
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(task for task in (probing, watching) if task is not None), return_exceptions=True)

    def _on_signal(self) -> None:
        self._stopped = True
        if self._agent is not None:
            self._agent.terminate()

    def _ready(self) -> None:
        kinds = ", ".join(kind for kind, _, _ in self._kinds)
        slots = ", ".join(f"{tag}={count}" for tag, count in self._slots.items())
        log.info("ready: %s takes %s from %s with %s", self._state.worker_id, kinds, self._endpoint, slots)
        if self._settings["worker.simulate_gpu"]:
            log.info("the gpu slot is simulated: its jobs run on the CPU")
        self._ready_line.say({"ready": True, "worker_id": self._state.worker_id, "pid": os.getpid(), "port": self._endpoint.port})
        notify("READY=1")
        self._feed_watchdog()

    def _feed_watchdog(self) -> None:
        interval = watchdog_interval()
        if interval:
            notify("WATCHDOG=1")
            asyncio.get_running_loop().call_later(interval, self._feed_watchdog)

    # ------------------------------------------------------------ what it can do

    async def _probe_devices(self) -> list[Device]:
        try:
            return await capabilities.probe_devices()
        except capabilities.ProbeError as error:
            log.warning("GPUs could not be looked for: %s", error)
            return []

    def _usable(self, devices: list[Device]) -> list[Device]:
        wanted = self._settings["worker.gpus"]
        missing = set(wanted) - {device.index for device in devices}
        if missing and not self._settings["worker.simulate_gpu"]:
            raise ConfigError(f"There is no usable GPU {', '.join(map(str, sorted(missing)))} here; there are {len(devices)}.")
        return [device for device in devices if not wanted or device.index in wanted]

    async def _probe_kinds(self) -> None:
        """Ask light handlers first, together; each of the others in a process of its own, so that one that takes long delays no other."""
        light = {kind: value for kind, value in self._handlers.items() if value in LIGHT}
        groups = [light] if light else []
        groups += [{kind: value} for kind, value in self._handlers.items() if kind not in light]
        room = asyncio.Semaphore(2)

        async def ask(group: dict[str, str]) -> None:
            async with room:
                for answer in await capabilities.probe_kinds(group, self._environment):
                    self._learn(answer)
            self._offer(complete=False)

        await asyncio.gather(*(ask(group) for group in groups))
        if not self._kinds:
            raise ConfigError(
                "None of the installed handlers can be used here.", hint="The log says why; pip install 'ktrdr-zmq[worker]' may help."
            )

    def _learn(self, answer: capabilities.Kind) -> None:
        self._pending.discard(answer.name)
        if not answer.error:
            self._kinds = sorted([*self._kinds, (answer.name, *answer.versions)])
            return
        hint = "Install the packages of the worker extra: pip install 'ktrdr-zmq[worker]'" if answer.missing else ""
        if answer.name in self._settings["worker.kinds"]:
            raise ConfigError(f"Jobs of kind {answer.name} cannot be done here: {answer.error}", hint=hint)
        log.log(logging.INFO if answer.missing else logging.WARNING, "%s is not offered here: %s. %s", answer.name, answer.error, hint)

    async def _keep_probing(self, probing: asyncio.Task[None]) -> None:
        """Finish finding out about kinds, then look at the GPUs from time to time."""
        await probing
        self._offer(complete=True)
        while True:
            await asyncio.sleep(REPROBE_S)
            if not self._devices or self._settings["worker.simulate_gpu"]:
                continue
            devices = self._usable_now(await self._probe_devices())
            if devices != self._devices:
                log.warning("the usable GPUs have changed: %s", ", ".join(device.name for device in devices) or "none")
                self._devices = devices
                self._offer(complete=True)

    def _usable_now(self, devices: list[Device]) -> list[Device]:
        wanted = self._settings["worker.gpus"]
        return [device for device in devices if not wanted or device.index in wanted]

    def _offer(self, *, complete: bool) -> None:
        if self._agent is None:
            return
        old, new = self._agent.core.info, self._info()
        news = (old.kinds, old.devices, old.pending) != (new.kinds, new.devices, new.pending)
        self._agent.offer(new if news else old, complete=complete)

    def _info(self) -> WorkerInfo:
        simulated = bool(self._settings["worker.simulate_gpu"])
        slots = dict(self._slots)
        if not self._devices and not simulated:
            slots.pop(TAG_GPU, None)
        return WorkerInfo(
            worker_id=self._state.worker_id,
            instance=self._instance,
            hello_seq=0,
            versions=[MAJOR],
            slots=list(slots.items()),
            kinds=list(self._kinds),
            host=capabilities.host_id(),
            hostname=socket.gethostname(),
            pid=os.getpid(),
            devices=[] if simulated else self._devices,
            simulated_gpu=simulated,
            software=self._software,
            numeric=capabilities.numeric_fingerprint(self._software, capabilities.kernels()),
            cpus=capabilities.cpu_count(),
            memory=capabilities.memory(),
            pending=sorted(self._pending),
        )

    def _agent_settings(self) -> AgentSettings:
        settings = self._settings
        executor = ExecutorConfig(
            handlers=self._handlers,
            devices=assigned(self._devices, self._slots.get(TAG_GPU, 0), settings["worker.simulate_gpu"]),
            environment=self._environment,
            threads=settings["worker.threads"],
        )
        return AgentSettings(self._endpoint, WorkerConfig(slots=tuple(self._slots.items())), executor)


def main(argv: list[str] | None = None) -> int:
    """Run a worker; returns the exit code.

    0 after a drain, 1 when it has failed and should be started again, 2 for a wrong configuration, 3 when it may not run (its id or its
    folder is another's), 130 when told twice to stop.
    """
    options = parser().parse_args(argv)
    ready = ReadyLine(options.ready_fd)
    given = {
        "worker.id": options.id,
        "worker.kinds": options.kinds,
        "worker.slots": options.slots,
        "worker.gpus": options.gpus,
        "worker.threads": options.threads,
        "worker.state_dir": options.state_dir,
        "worker.simulate_gpu": options.simulate_gpu,
        "log.level": options.log_level,
        "log.format": options.log_format,
    }
    try:
        settings = load_settings(given)
        set_up_logging(settings["log.level"], settings["log.format"])
        for line in replaced_variables():
            log.warning("%s", line)
        endpoint = find_broker(options.broker, settings=settings)
        handlers = chosen_handlers(settings, options.handlers)
        state = open_state(folders().state, settings["worker.id"], settings["worker.state_dir"])
        try:
            return asyncio.run(Launcher(settings, handlers, endpoint, state, ready).run())
        finally:
            notify("STOPPING=1")
            state.release()
    except KtrdrError as error:
        sys.stderr.write(f"ktrdr-worker: {error.message}\n" + (f"{error.hint}\n" if error.hint else ""))
        ready.say({"ready": False, **error.as_dict()})
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
