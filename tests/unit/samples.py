"""One message of every kind with every field set, and one with nothing but what must be: the material of codec tests and golden vectors."""

from __future__ import annotations

import msgspec

from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Artifact, Attempt, Device, Failure, JobSpec, JobState, Outcome

JOB = bytes(range(16))
OTHER = bytes(range(16, 32))
DIGEST = bytes(range(32))
TOKEN = 1_800_000_000 << 32 | 7
SESSION = 1_800_000_000 << 32 | 3
EPOCH = 1_800_000_000
AT = 1_800_000_000_123_456
STORE = b"store-identity-0"
MODEL = Artifact("model", DIGEST, 123_456, "application/zip")
FAILURE = Failure("ValueError", "The window is empty.", "Choose a longer one.", "Traceback ...", 1, 11, "Segmentation fault\n")
ATTEMPT = Attempt(1, TOKEN, "gpu-1", b"instance", "gpu", AT, AT + 5, "CRASHED", FAILURE)
SPEC = JobSpec(
    kind="training", schema=1, device=Device.GPU, gpu_wait=30.0, priority=5, name="mean reversion", labels=(("team", "fx"),),
    submitter="ada@lab", run_timeout=3600.0, queue_timeout=600.0, reclaim_after=60.0, max_crashes=2, max_losses=9, threads=4,
    memory_limit=4 << 30, inputs=(("data", DIGEST),), queue=True, retry_of=OTHER, resumes=DIGEST,
)  # fmt: skip
RAW_SPEC = msgspec.msgpack.encode(SPEC)
SHORTEST_SPEC = b"\x91\xa4echo"
"""An array may end after the last field that is not at its default."""

WORKER_INFO = m.WorkerInfo(
    worker_id="gpu-1", instance=b"instance", hello_seq=2, versions=[1], slots=[("gpu", 1), ("cpu", 8)],
    kinds=[("training", 1, 1), ("backtesting", 1, 2)], highest_epoch=EPOCH, store_id=STORE, host="machine-id", hostname="lab",
    pid=4711, devices=[m.Device(0, "GPU-0", "RTX 4090", 24 << 30, "CUDA")], simulated_gpu=True, software={"python": "3.11"},
    numeric="avx2", cpus=16, memory=64 << 30, draining=True,
    highest_token=TOKEN,
)  # fmt: skip
CLIENT_INFO = m.ClientInfo([1], "ada@lab", "lab", 4711, {"python": "3.11"}, EPOCH)
VIEW = m.JobView(
    job_id=JOB, seq=9, rev=4, kind="training", state=JobState.FAILED, reason="CRASH_LIMIT", name="mean reversion",
    labels=[("team", "fx")], submitter="ada@lab", priority=5, device="gpu", attempt=3, worker_id="gpu-1", tag="gpu", crashes=3,
    losses=1, submitted_at=AT, started_at=AT + 1, finished_at=AT + 2, run_s=1.5, fraction=0.5, stage="train", text="epoch 3",
    metrics=[("loss", 0.25)], artifacts=[MODEL], failure=FAILURE, attempts=[ATTEMPT], notice="Runs on a CPU: no GPU slot was free.",
    retry_of=OTHER, inputs=[("data", DIGEST)], result_size=17, checkpoint_seq=2, note="",
)  # fmt: skip
BARE_VIEW = m.JobView(JOB, 1, 1, "echo", JobState.QUEUED, "SUBMITTED")
WORKER_VIEW = m.WorkerView(
    worker_id="gpu-1", state="live", gpu=True, gpu_type="CUDA", gpu_count=1, simulated_gpu=False, address="10.0.0.7", hostname="lab",
    slots=[("gpu", 1)], kinds=[("training", 1, 1)], running=[JOB], draining=True, silent_s=0.5, connected_at=AT,
    software={"torch": "2.13"}, numeric="avx2", pid=1, cpus=2, memory=3, lag=0.01, load=0.5,
)  # fmt: skip

FULL: list[tuple[m.Message, list[bytes]]] = [
    (m.WorkerHello(WORKER_INFO, [m.JobRef(JOB, TOKEN)], [m.JobRef(OTHER, TOKEN + 1)]), []),
    (m.Credit(SESSION, [("gpu", 1), ("cpu", 8)]), []),
    (m.Accept(SESSION, [m.JobRef(JOB, TOKEN)]), []),
    (m.Reject(SESSION, [m.RejectItem(JOB, TOKEN, "UNFIT", "no such handler")]), []),
    (m.Progress(SESSION, [m.ProgressItem(JOB, TOKEN, 3, 0.5, "train", "epoch 3", [("loss", 0.25)])]), []),
    (m.Checkpoint(SESSION, JOB, TOKEN, 2, MODEL), []),
    (
        m.Result(
            SESSION,
            [
                m.ResultItem(JOB, TOKEN, Outcome.DONE, 3, 1.5, [MODEL]),
                m.ResultItem(OTHER, TOKEN + 1, Outcome.FAILED, 0, 0.5, [], FAILURE, "RESULT_TOO_LARGE"),
            ],
            [("cpu", 3)],
        ),
        [b"abc", b""],
    ),
    (m.WorkerPing(SESSION, 4, [TOKEN], 0.001, 0.5, "41 C", [("cpu", 8)], True), []),
    (m.Drained(SESSION), []),
    (m.WorkerBye(SESSION, 30.0), []),
    (m.LogTail(3, b"\x00abcd", JOB, 10, 5, True), [b"hello"]),
    (m.Have(3, [DIGEST]), []),
    (m.HelloOk(EPOCH, STORE, SESSION, 2.0, 10.0, m.MAX_MESSAGE, 262_144, [m.Verdict(JOB, TOKEN, "CONTINUE")], "0.1.0", 2), []),
    (
        m.Dispatch(
            SESSION,
            [m.DispatchItem(JOB, TOKEN, 2, "gpu", RAW_SPEC, 4, MODEL), m.DispatchItem(OTHER, TOKEN + 1, 1, "cpu", SHORTEST_SPEC, 2)],
        ),
        [b"body", b"xy"],
    ),
    (m.CheckpointAck(JOB, TOKEN, 2, True), []),
    (m.ResultAck([m.Verdict(JOB, TOKEN, "RECORDED")]), []),
    (m.Cancel([m.CancelItem(JOB, TOKEN, 10.0)]), []),
    (m.Pong(4, EPOCH), []),
    (m.Drain(True, True, True), []),
    (m.Bye("SUPERSEDED", "A newer process speaks for worker gpu-1."), []),
    (m.Tail(3, b"\x00abcd", JOB, TOKEN, 10, 65_536), []),
    (m.HaveReply(3, [DIGEST]), []),
    (m.Nack("QUEUE_FULL", 0x42, 3, True, 2.0, EPOCH, "The queue is full.", [1]), []),
    (m.ClientHello(1, CLIENT_INFO), []),
    (m.Submit(2, [m.SubmitItem(JOB, RAW_SPEC, 4), m.SubmitItem(OTHER, SHORTEST_SPEC, 0)]), [b"body", b""]),
    (m.Status(3, ["00010203", "last:training"], True), []),
    (m.List(4, ["done"], ["training"], [("team", "fx")], "mean reversion", AT, 9, 50, True), []),
    (m.CancelJobs(5, ["00010203"], 3.0), []),
    (m.Retry(6, "last", OTHER, True), []),
    (m.ResultGet(7, "last"), []),
    (m.Logs(8, "last", 10, 100), []),
    (m.Snapshot(9, 5, 100), []),
    (m.Workers(10), []),
    (m.Explain(11, "last"), []),
    (m.Admin(12, "drain", {"worker_id": "gpu-1", "stop": True}), []),
    (m.ClientPing(13), []),
    (m.ClientHelloOk(1, EPOCH, STORE, m.MAX_MESSAGE, 262_144, "0.1.0"), []),
    (m.SubmitAck(2, [m.SubmitReply(JOB, "MISSING_ARTIFACT", "Upload it first.", True, 1.0, "", [DIGEST])]), []),
    (m.StatusReply(3, [VIEW, BARE_VIEW], [m.RefError("ffff", "UNKNOWN_JOB", "There is no job ffff.")]), []),
    (m.ListReply(4, [VIEW], 8), []),
    (m.CancelReply(5, [VIEW], [m.RefError("ffff", "UNKNOWN_JOB", "There is no job ffff.")]), []),
    (m.RetryReply(6, VIEW), []),
    (m.ResultReply(7, VIEW, 4, False), [b"body"]),
    (m.LogsReply(8, 10, 5, True, MODEL), [b"hello"]),
    (m.SnapshotReply(9, [VIEW], 9), []),
    (m.WorkersReply(10, [WORKER_VIEW]), []),
    (m.ExplainReply(11, VIEW, "The job waits for a free slot; 2 jobs are before it.", [("gpu-1", "all its gpu slots are busy")]), []),
    (m.AdminReply(12, {"paused": False, "workers": {"live": 2}}), []),
    (m.ClientPong(13, EPOCH), []),
    (
        m.JobEvent(
            EPOCH, JOB, 4, AT, "training", JobState.DONE, "COMPLETED", 1, "gpu-1", "gpu", 1.5, 4, 4, [MODEL], FAILURE,
            "Runs on a CPU: no GPU slot was free.",
        ),
        [b"body"],
    ),
    (m.ProgressEvent(EPOCH, JOB, 3, AT, 1, 7, 0.5, "train", "epoch 3", [("loss", 0.25)], "gpu-1", "gpu"), []),
    (m.WorkerEvent(EPOCH, "gpu-1", AT, "suspect", "silent for 7 s"), []),
    (m.SyncEvent(EPOCH, b"00ff"), []),
    (m.Get(1, DIGEST, 1 << 20, 4), []),
    (m.Put(2, DIGEST, 5), []),
    (m.PutChunk(2, 0, 5), [b"hello"]),
    (m.Chunk(1, 0, 5, 5), [b"hello"]),
    (m.PutReady(2, 0, True), []),
    (m.PutDone(2, DIGEST), []),
]  # fmt: skip
"""Every message with all its fields."""

BARE: list[tuple[m.Message, list[bytes]]] = [
    (m.WorkerHello(m.WorkerInfo("cpu-1", b"i", 1, [1], [], [])), []),
    (m.Accept(SESSION, []), []),
    (m.Reject(SESSION, [m.RejectItem(JOB, TOKEN, "DRAINING")]), []),
    (m.Progress(SESSION, [m.ProgressItem(JOB, TOKEN, 1, 0.0)]), []),
    (m.Result(SESSION, [m.ResultItem(JOB, TOKEN, Outcome.HANDED_BACK)]), [b""]),
    (m.WorkerPing(SESSION, 1), []),
    (m.WorkerBye(SESSION), []),
    (m.LogTail(3, b"c", JOB, 0, 0), [b""]),
    (m.HelloOk(EPOCH, STORE, SESSION, 2.0, 10.0, m.MAX_MESSAGE, 262_144), []),
    (m.Dispatch(SESSION, [m.DispatchItem(JOB, TOKEN, 1, "cpu", SHORTEST_SPEC, 0)]), [b""]),
    (m.Drain(), []),
    (m.Bye("SHUTTING_DOWN"), []),
    (m.Nack("BAD_FRAME"), []),
    (m.ClientHello(1, m.ClientInfo([1])), []),
    (m.Submit(1, []), []),
    (m.Status(1, ["last"]), []),
    (m.List(1), []),
    (m.CancelJobs(1, ["last"]), []),
    (m.Logs(1, "last"), []),
    (m.Snapshot(1), []),
    (m.Admin(1, "status"), []),
    (m.ClientHelloOk(1, EPOCH, STORE, m.MAX_MESSAGE, 262_144), []),
    (m.SubmitAck(1, [m.SubmitReply(JOB, "OK")]), []),
    (m.StatusReply(1, []), []),
    (m.Retry(1, "last", OTHER), []),
    (m.ListReply(1, [BARE_VIEW]), []),
    (m.CancelReply(1, []), []),
    (m.SnapshotReply(1, []), []),
    (m.WorkersReply(1, [m.WorkerView("cpu-1", "live", False, None, 0)]), []),
    (m.ExplainReply(1, BARE_VIEW, "The job is about to be sent."), []),
    (m.AdminReply(1), []),
    (m.LogsReply(1, 0, 0, False), [b""]),
    (m.ResultReply(1, BARE_VIEW), [b""]),
    (m.JobEvent(EPOCH, JOB, 1, AT, "echo", JobState.QUEUED, "SUBMITTED"), [b""]),
    (m.ProgressEvent(EPOCH, JOB, 3, AT, 1, 0, 0.0), []),
    (m.WorkerEvent(EPOCH, "cpu-1", AT, "live"), []),
    (m.PutReady(1, 8), []),
]
"""Messages with only what must be there."""
