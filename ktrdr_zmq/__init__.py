"""ktrdr-zmq: neural-network training and trading backtests over the machines you own.

Everything public can be imported from here; each name is loaded when it is first used, so that ``import ktrdr_zmq`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ktrdr_zmq.version import __version__

if TYPE_CHECKING:
    from ktrdr_zmq.blocking import Client, Job
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.cluster import LocalCluster
    from ktrdr_zmq.errors import (
        AmbiguousJob,
        BrokerUnreachable,
        ConfigError,
        JobCancelled,
        JobEnded,
        JobFailed,
        JobTimedOut,
        KtrdrError,
        NoCapableWorker,
        ProtocolError,
        Refused,
        UnknownJob,
        UsageError,
        WaitTimedOut,
    )
    from ktrdr_zmq.events import JobUpdate, ProgressUpdate
    from ktrdr_zmq.handles import AsyncJob, JobRequest, JobResult
    from ktrdr_zmq.jobs import JobState
    from ktrdr_zmq.views import Explanation, JobInfo, LogChunk, WorkerInfo

_HOME = {
    "blocking": ("Client", "Job"),
    "client": ("AsyncClient",),
    "cluster": ("LocalCluster",),
    "errors": (
        "AmbiguousJob", "BrokerUnreachable", "ConfigError", "JobCancelled", "JobEnded", "JobFailed", "JobTimedOut", "KtrdrError",
        "NoCapableWorker", "ProtocolError", "Refused", "UnknownJob", "UsageError", "WaitTimedOut",
    ),
    "events": ("JobUpdate", "ProgressUpdate"),
    "handles": ("AsyncJob", "JobRequest", "JobResult"),
    "jobs": ("JobState",),
    "views": ("Explanation", "JobInfo", "LogChunk", "WorkerInfo"),
}  # fmt: skip
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AmbiguousJob", "AsyncClient", "AsyncJob", "BrokerUnreachable", "Client", "ConfigError", "Explanation", "Job", "JobCancelled",
    "JobEnded", "JobFailed", "JobInfo", "JobRequest", "JobResult", "JobState", "JobTimedOut", "JobUpdate", "KtrdrError", "LocalCluster",
    "LogChunk", "NoCapableWorker", "ProgressUpdate", "ProtocolError", "Refused", "UnknownJob", "UsageError", "WaitTimedOut", "WorkerInfo",
    "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    module = _MODULE.get(name)
    if module is None:
        raise AttributeError(f"module 'ktrdr_zmq' has no attribute {name!r}")
    value = getattr(import_module(f"ktrdr_zmq.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
