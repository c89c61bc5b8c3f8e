-- How far the device of an attempt may have come, and what finishing it takes then. The binding code in it is sealed.
ALTER TABLE provisional ADD COLUMN stage TEXT NOT NULL DEFAULT 'given-away'
    CHECK (stage IN ('given-away', 'on-fabric', 'ready'));
ALTER TABLE provisional ADD COLUMN unfinished TEXT
    CHECK (unfinished IS NULL OR json_valid(unfinished))
    CHECK ((unfinished IS NOT NULL) = (stage = 'on-fabric'));
-- A row that was ready for completion had the index of the fabric.
UPDATE provisional SET stage = 'ready' WHERE record ->> '$.fabric_index' <> 0;
