"""The broker core's settings. Pure data; every duration is in seconds."""

from __future__ import annotations

from typing import NamedTuple

from ktrdr_zmq.messages import MAX_MESSAGE
from ktrdr_zmq.payload import MAX_INLINE_RESULT


class BrokerConfig(NamedTuple):
    """Intervals and limits of the core. Tests set the intervals down to milliseconds."""

    ping_interval: float = 2.0
    suspect_intervals: float = 3.0
    dead_after: float = 10.0
    reclaim_max: float = 900.0
    backoff_cap: float = 8.0
    backoff_cap_intervals: float = 4.0
    long_after: float = 10.0
    accept_timeout: float = 10.0
    cancel_resend: float = 3.0
    reject_pause: float = 30.0
    forget_worker_after: float = 3600.0
    forget_client_after: float = 3600.0
    artifact_grace: float = 86_400.0
    retention: float = 30 * 86_400.0
    retry_base: float = 1.0
    retry_cap: float = 60.0
    max_retries: int = 10
    max_queued_jobs: int = 200_000
    max_queued_octets: int = 1 << 30
    max_workers: int = 2_000
    max_clients: int = 10_000
    max_body: int = 1 << 20
    max_message: int = MAX_MESSAGE
    max_inline_result: int = MAX_INLINE_RESULT
    max_event_body: int = 64 * 1024
    prefetch: int = 256
    short_job: float = 1.0

    @property
    def suspect_after(self) -> float:
        """Silence after which a worker gets no new work."""
        return self.ping_interval * self.suspect_intervals

    @property
    def grace(self) -> float:
        """How long after a restart the leases found in the store wait for their workers."""
        return self.suspect_after + min(self.backoff_cap, self.backoff_cap_intervals * self.ping_interval) + 5.0
