-- What the check-ins of devices with long idle times are read with. Both keys are sealed.

CREATE TABLE check_ins (
    node_id INTEGER PRIMARY KEY REFERENCES nodes ON DELETE CASCADE,
    -- The device has answered that it took this one.
    key BLOB,
    -- The device may have taken this one: written before it is sent.
    next_key BLOB,
    -- ICDCounter when the key was taken, and how far past that the last check-in was.
    counter INTEGER NOT NULL DEFAULT 0,
    last INTEGER,
    every_s INTEGER NOT NULL,
    awake_ms INTEGER NOT NULL,
    wake_trigger INTEGER NOT NULL,
    wake_instruction TEXT NOT NULL
) STRICT;

-- What a node announced of its sleep stood in its record under the name that the hub's registration has: twice, where it sleeps long,
-- and then nobody could read the record. The first is the one that was announced.
UPDATE nodes SET record = json_remove(record, '$.icd') WHERE json_type(record, '$.icd') IN ('null', 'true', 'false');
UPDATE provisional SET record = json_remove(record, '$.icd') WHERE json_type(record, '$.icd') IN ('null', 'true', 'false');
UPDATE removals SET record = json_remove(record, '$.icd') WHERE json_type(record, '$.icd') IN ('null', 'true', 'false');
