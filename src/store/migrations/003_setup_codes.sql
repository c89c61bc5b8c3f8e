-- Recognises a setup code that was used before: 16 bits of a keyed hash, never the code.

ALTER TABLE attempts ADD COLUMN fingerprint INTEGER CHECK (fingerprint BETWEEN 0 AND 65535);

-- A table of its own, because attempts are forgotten after a while and nodes are not.
CREATE TABLE setup_codes (
    node_id INTEGER PRIMARY KEY REFERENCES nodes ON DELETE CASCADE,
    fingerprint INTEGER NOT NULL CHECK (fingerprint BETWEEN 0 AND 65535)
) STRICT;
CREATE INDEX setup_codes_by_fingerprint ON setup_codes (fingerprint);
