-- Networks of the home that devices are brought to over Bluetooth. `secret` is sealed.

CREATE TABLE networks (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('wifi', 'thread')),
    network_id BLOB NOT NULL,
    secret BLOB NOT NULL,
    is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
    set_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_default_of_a_kind ON networks (kind) WHERE is_default = 1;
