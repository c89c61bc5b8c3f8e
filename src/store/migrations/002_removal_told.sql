-- Whether RemoveFabric may have reached the device: written before it is sent. Until then a removal can be taken back.
ALTER TABLE removals ADD COLUMN told INTEGER NOT NULL DEFAULT 0 CHECK (told IN (0, 1));
-- A removal that was begun by an earlier version may have been sent already.
UPDATE removals SET told = 1;
