-- The first schema. Migrations go forward only: once released, a file here is never changed, the next one is added.
-- Times are microseconds since 1970 (UTC) where SQL compares them. JSON documents are the types of the Rust side.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row at most. 'creating' is written before the key bundle exists, 'ready' after it is durable.
CREATE TABLE fabric (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    fabric_id INTEGER NOT NULL CHECK (fabric_id BETWEEN 1 AND 2147483647),
    compressed_id TEXT NOT NULL CHECK (length(compressed_id) = 16),
    root_fingerprint TEXT NOT NULL,
    label TEXT NOT NULL,
    hub_node_id INTEGER NOT NULL CHECK (hub_node_id BETWEEN 1 AND 2147483647),
    -- One past the range means that every id is used.
    next_node_id INTEGER NOT NULL CHECK (next_node_id > hub_node_id AND next_node_id <= 2147483648),
    state TEXT NOT NULL CHECK (state IN ('creating', 'ready'))
) STRICT;

CREATE TABLE nodes (
    node_id INTEGER PRIMARY KEY,
    record TEXT NOT NULL CHECK (json_valid(record)),
    name TEXT GENERATED ALWAYS AS (record ->> '$.name') VIRTUAL,
    state TEXT GENERATED ALWAYS AS (record ->> '$.state') VIRTUAL,
    bind_state TEXT GENERATED ALWAYS AS (record ->> '$.bind.state') VIRTUAL
) STRICT;
CREATE INDEX nodes_by_name ON nodes (name);
CREATE INDEX nodes_by_state ON nodes (state);

CREATE TABLE evidence (
    node_id INTEGER PRIMARY KEY REFERENCES nodes ON DELETE CASCADE,
    evidence TEXT NOT NULL
) STRICT;

-- What the cloud gave for a bind; auth_key is a secret.
CREATE TABLE receipts (
    node_id INTEGER PRIMARY KEY REFERENCES nodes ON DELETE CASCADE,
    auth_key TEXT,
    binding_mode INTEGER,
    product_name TEXT
) STRICT;

CREATE TABLE attempts (
    attempt_id TEXT PRIMARY KEY,
    discriminator TEXT NOT NULL CHECK (json_valid(discriminator)),
    state TEXT NOT NULL CHECK (state IN ('running', 'committed', 'failed', 'interrupted')),
    node_id INTEGER,
    step TEXT,
    code TEXT,
    began_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_by_time ON attempts (began_at);

-- Nodes whose NOC was issued and whose CommissioningComplete is not known.
CREATE TABLE provisional (
    attempt_id TEXT PRIMARY KEY,
    node_id INTEGER NOT NULL UNIQUE,
    record TEXT NOT NULL CHECK (json_valid(record)),
    task TEXT CHECK (task IS NULL OR json_valid(task)),
    evidence TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- No reference to nodes: an unbind outlives the node that it is about. The id is never reused.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id INTEGER NOT NULL,
    product_key TEXT NOT NULL,
    device_key TEXT NOT NULL,
    kind TEXT NOT NULL,
    -- Holds the binding code, a secret.
    task TEXT NOT NULL CHECK (json_valid(task)),
    state TEXT NOT NULL
        CHECK (state IN ('pending', 'sending', 'unsettled', 'waiting-for-operator', 'rejected')),
    tries INTEGER NOT NULL,
    tries_in_class INTEGER NOT NULL,
    last_code INTEGER,
    last_message TEXT NOT NULL,
    next_try_at INTEGER,
    created_at INTEGER NOT NULL,
    first_sent_at INTEGER,
    hint TEXT NOT NULL,
    CHECK ((next_try_at IS NULL) = (state = 'rejected'))
) STRICT;
CREATE INDEX outbox_by_device ON outbox (product_key, device_key, id) WHERE state <> 'rejected';
CREATE INDEX outbox_by_due ON outbox (next_try_at) WHERE state <> 'rejected';
CREATE INDEX outbox_by_node ON outbox (node_id);

-- The record is kept because a leftover must be recognised after its node row is gone.
CREATE TABLE removals (
    node_id INTEGER PRIMARY KEY,
    stage TEXT NOT NULL CHECK (stage IN ('device', 'cloud', 'record', 'leftover')),
    forced INTEGER NOT NULL CHECK (forced IN (0, 1)),
    on_device INTEGER NOT NULL CHECK (on_device IN (0, 1)),
    record TEXT NOT NULL CHECK (json_valid(record)),
    began_at INTEGER NOT NULL
) STRICT;

CREATE TABLE journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    level INTEGER NOT NULL,
    kind TEXT NOT NULL,
    message TEXT NOT NULL,
    node_id INTEGER,
    attempt_id TEXT,
    outbox_id INTEGER,
    fields TEXT NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX journal_by_time ON journal (at);
CREATE INDEX journal_by_node ON journal (node_id) WHERE node_id IS NOT NULL;
CREATE INDEX journal_by_attempt ON journal (attempt_id) WHERE attempt_id IS NOT NULL;

-- Sealed or opaque bytes of other modules, for instance the cloud tokens.
CREATE TABLE tokens (
    name TEXT PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT, WITHOUT ROWID;
