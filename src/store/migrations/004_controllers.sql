-- Other controllers of the household, and the invitations by which apps become one.

CREATE TABLE controllers (
    node_id INTEGER PRIMARY KEY,
    record TEXT NOT NULL CHECK (json_valid(record)),
    name TEXT GENERATED ALWAYS AS (record ->> '$.name') VIRTUAL,
    state TEXT GENERATED ALWAYS AS (record ->> '$.state') VIRTUAL
) STRICT;
CREATE UNIQUE INDEX controllers_by_name ON controllers (name) WHERE state <> 'removed';

-- Every key that a certificate was ever issued for, those of controllers that are gone included.
CREATE TABLE controller_keys (
    fingerprint TEXT PRIMARY KEY,
    node_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Holds a digest of the code, never the code.
CREATE TABLE invites (
    id TEXT PRIMARY KEY,
    record TEXT NOT NULL CHECK (json_valid(record)),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
