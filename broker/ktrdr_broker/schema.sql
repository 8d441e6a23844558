-- The broker's database, version 1. Columns are only ever added, with a default, so that the release before can still run on it.
-- Times named *_at are UTC microseconds; 0 means "not yet". Ids, digests and bodies are raw octets; hex(job_id) shows an id.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- One row for each job. The first block never changes; the second is written with every transition.
-- attempts, artifacts, failure and checkpoint are MessagePack (ktrdr_zmq/jobs.py), empty where there is none.
CREATE TABLE job (
    seq            INTEGER PRIMARY KEY,
    job_id         BLOB    NOT NULL,
    kind           TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    submitter      TEXT    NOT NULL,
    digest         BLOB    NOT NULL,
    spec           BLOB    NOT NULL,
    submitted_at   INTEGER NOT NULL,

    state          TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    rev            INTEGER NOT NULL,
    token          INTEGER NOT NULL,
    attempt        INTEGER NOT NULL,
    worker_id      TEXT    NOT NULL,
    instance       BLOB    NOT NULL,
    tag            TEXT    NOT NULL,
    crashes        INTEGER NOT NULL,
    losses         INTEGER NOT NULL,
    retries        INTEGER NOT NULL,
    attempts       BLOB,
    started_at     INTEGER NOT NULL,
    run_s          REAL    NOT NULL,
    artifacts      BLOB,
    failure        BLOB,
    checkpoint     BLOB,
    checkpoint_seq INTEGER NOT NULL,
    notice         TEXT    NOT NULL,
    result_size    INTEGER NOT NULL,
    priority       INTEGER NOT NULL,
    finished_at    INTEGER NOT NULL
);

CREATE UNIQUE INDEX job_by_id ON job (job_id);
CREATE INDEX job_by_kind ON job (kind, seq);
CREATE INDEX job_by_end ON job (finished_at, seq);                                   -- 0 = not over: what a start loads
CREATE INDEX job_by_time ON job (submitted_at);
CREATE INDEX job_by_name ON job (name, seq) WHERE name <> '';
CREATE INDEX job_by_failure ON job (state, seq) WHERE finished_at > 0 AND state <> 'done';   -- "state IN (...)" would double a row's cost

-- Apart from the row, so that a transition never rewrites it. Its digest is the job's: SHA-256 over spec and body.
CREATE TABLE body (
    seq  INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);

CREATE TABLE result (
    seq    INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    data   BLOB NOT NULL
);

CREATE TABLE label (
    label TEXT    NOT NULL,                                                          -- key=value
    seq   INTEGER NOT NULL,
    PRIMARY KEY (label, seq)
) WITHOUT ROWID;

CREATE INDEX label_by_job ON label (seq);

CREATE TABLE artifact (
    digest     BLOB PRIMARY KEY,
    size       INTEGER NOT NULL,
    stored_at  INTEGER NOT NULL,
    touched_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Which artifacts a job's row names, and how often.
CREATE TABLE artifact_use (
    seq    INTEGER NOT NULL,
    digest BLOB    NOT NULL,
    times  INTEGER NOT NULL,
    PRIMARY KEY (seq, digest)
) WITHOUT ROWID;

-- What retention leaves of a job for 90 days, so that a repeated SUBMIT is recognised.
CREATE TABLE tombstone (
    job_id      BLOB PRIMARY KEY,
    digest      BLOB    NOT NULL,
    state       TEXT    NOT NULL,
    finished_at INTEGER NOT NULL,
    removed_at  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX tombstone_by_time ON tombstone (removed_at);
