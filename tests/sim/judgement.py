"""What must be true some time after everything has healed: both sides see the same, and every reason that `explain` gives is true."""

from __future__ import annotations

from collections.abc import Iterable

from ktrdr_broker.model import Job
from ktrdr_broker.registry import Liveness, tags_for
from ktrdr_broker.views import Explainer
from ktrdr_worker.core import Link
from ktrdr_worker.lanes import Stop
from ktrdr_zmq.jobs import HELD, Reason
from tests.sim.broker_machine import BrokerMachine
from tests.sim.ledger import Ledger
from tests.sim.worker_machine import WorkerMachine


def disagreements(broker: BrokerMachine, workers: Iterable[WorkerMachine]) -> list[str]:
    """Where the broker's view of a living worker and that worker's own differ."""
    wrong = []
    for machine in workers:
        core = machine.core
        if core is None:
            continue
        seen = broker.core.registry.workers.get(machine.worker_id)
        if core.link is not Link.LIVE or seen is None or seen.state is not Liveness.LIVE or seen.session != core.session:
            wrong.append(f"{machine.name} is {core.link.value}; the broker has it as {seen.state.value if seen else 'unknown'}")
            continue
        if (core._drain is not None) != seen.cordoned and not core.leaving and not seen.draining:
            wrong.append(f"{machine.name} {'takes no' if core._drain else 'takes'} jobs, and the broker sees it otherwise")
        aborted = {job.token for job in core.duties.jobs.values() if job.stop is Stop.ABORT}
        mine, its = machine.tokens - aborted, set(seen.leases)
        if mine != its:
            wrong.append(f"{machine.name} has {_hex(mine - its)} that the broker does not know of, and lacks {_hex(its - mine)}")
    return wrong


def _hex(tokens: set[int]) -> str:
    return ", ".join(f"{token:x}" for token in sorted(tokens)) or "nothing"


class Truth:
    """What really holds in the World, against what `explain` says.

    Parameters
    ----------
    workers : list of WorkerMachine
        All of them, those that are gone included.
    """

    def __init__(self, broker: BrokerMachine, workers: list[WorkerMachine], ledger: Ledger) -> None:
        self._broker = broker
        self._ledger = ledger
        self._workers = workers

    def lies(self) -> list[str]:
        """Explanations of jobs that have not ended which are not true."""
        core = self._broker.core
        explainer = Explainer(core.ledger, core.registry, core.queues)
        wrong = []
        for job in core.jobs.values():
            if not job.terminal:
                text, lines = explainer.explain(job)
                if not (self._held(job, text) if job.state in HELD else self._waits(job, text, dict(lines))):
                    wrong.append(f"{job.job_id.hex()[:8]} ({job.state}, {job.reason}): {text!r} {lines} is not true")
        return wrong

    def _machine(self, worker_id: str) -> WorkerMachine | None:
        """The machine that speaks for a worker now, if one does."""
        return next((machine for machine in self._workers if machine.worker_id == worker_id and machine.core is not None), None)

    def _held(self, job: Job, text: str) -> bool:
        machine = self._machine(job.worker_id)
        if "fallen silent" in text or text.startswith("The broker was restarted"):
            return machine is None
        if "being cancelled" in text:
            return job.job_id in self._ledger.cancel_asked and machine is not None
        if "a moment ago" in text or text.startswith("The job runs at"):
            return machine is not None and job.token in machine.tokens
        return False

    def _waits(self, job: Job, text: str, lines: dict[str, str]) -> bool:
        core = self._broker.core
        if "paused" in text:
            return core.queues.paused
        if "before it is tried again" in text:
            return job.reason == Reason.RETRY_LATER
        able = [machine for machine in self._workers if self._able(machine, job)]
        if "a worker that can run it" in text:
            return not able
        if "a free slot" in text:
            return bool(able) and all(self._busy(machine, job, lines.get(machine.worker_id, "")) for machine in able)
        return False

    def _able(self, machine: WorkerMachine, job: Job) -> bool:
        seen = self._broker.core.registry.workers.get(machine.worker_id)
        offered = job.spec.kind in {kind for kind, _, _ in machine.core.info.kinds} if machine.core is not None else False
        slots = dict(machine.slots)
        drained = seen is not None and (seen.cordoned or seen.draining)
        return offered and not drained and any(slots.get(tag) for tag in tags_for(job.spec.device))

    def _busy(self, machine: WorkerMachine, job: Job, said: str) -> bool:
        """Whether none of a worker's slots is free for the job, or what was said instead is so."""
        if "waits" in said and "for a GPU" in said:
            return job.spec.gpu_wait > 0
        if "turned this job down" in said:
            return bool(self._broker.core.queues._excluded.get(job.job_id))
        lanes = machine.core.lanes.lanes
        return all(lane.busy for tag in tags_for(job.spec.device) for lane in lanes.get(tag, ()))
