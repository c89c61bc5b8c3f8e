//! A copy of the whole database at one instant, and what a restored copy must change before it is used.

use std::fs::{self, File};
use std::path::PathBuf;

use rusqlite::params;

use super::fabric::{id, row};
use super::open::SCHEMA_VERSION;
use super::{Store, store_error};
use crate::durable::StoreError;
use crate::node::OWN_ID_MAX;
use crate::store::FabricRow;

/// The copy while it is made; beside the database, and so protected by the same directory.
const COPY: &str = "matterbind.db.copy";

/// A consistent copy.
#[derive(Debug)]
pub struct Snapshot {
    /// The database file, with everything that was answered before. It has no name any more: nothing is left of it once
    /// this is dropped.
    pub database: File,
    /// The fabric of that instant.
    pub fabric: FabricRow,
    pub schema: i32,
    /// How many nodes it knows.
    pub nodes: u64,
}

impl Store {
    /// Copies the database. Other calls wait meanwhile: about a second for each 100 MB.
    ///
    /// # Errors
    /// There is no fabric, or the disk has no room for the copy.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let work = |connection: &mut rusqlite::Connection| {
            let fabric = row(connection)?.ok_or_else(|| StoreError::Missing("a finished fabric".to_owned()))?;
            let nodes: i64 =
                connection.query_row("SELECT count(*) FROM nodes", [], |row| row.get(0)).map_err(store_error)?;
            let copy = connection
                .path()
                .map(|path| PathBuf::from(path).with_file_name(COPY))
                .ok_or_else(|| StoreError::Failed("the database has no path".to_owned()))?;
            // A crash may have left one.
            let _ = fs::remove_file(&copy);
            let made = connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).map_err(store_error);
            let read = made.and_then(|_| File::open(&copy).map_err(|error| StoreError::Failed(error.to_string())));
            let _ = fs::remove_file(&copy);
            Ok(Snapshot { database: read?, fabric, schema: SCHEMA_VERSION, nodes: nodes.unsigned_abs() })
        };
        self.ask(super::Job::RunAfterEvents, work).await
    }

    /// Makes a restored copy fit to go on: ids that may have been given away after the backup are not given again, and the
    /// blob `name` says with which CAT versions the hub goes on.
    ///
    /// # Errors
    /// There is no fabric, or the store fails.
    pub async fn adopt_restored(&self, next_node_id: u64, name: &str, blob: &[u8]) -> Result<(), StoreError> {
        let (name, blob) = (name.to_owned(), blob.to_owned());
        self.write(move |tx| {
            tx.execute(
                "UPDATE fabric SET next_node_id = max(next_node_id, min(?1, ?2))",
                params![id(next_node_id)?, id(OWN_ID_MAX + 1)?],
            )?;
            tx.execute("INSERT OR REPLACE INTO tokens (name, bytes) VALUES (?1, ?2)", params![name, blob])?;
            super::controllers::adopt_restored(tx)
        })
        .await
    }
}
