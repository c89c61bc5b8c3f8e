//! The one row about our fabric: its identity, and the node ids that were given away.
//!
//! Making a fabric takes three durable steps, so that a crash between any two of them is told apart from a loss:
//! 1. [`Store::begin_fabric`]: the row, `creating`, with the fingerprint of the root that is still only in memory;
//! 2. the key bundle file (`keystore`);
//! 3. [`Store::finish_fabric`]: `ready`, and from now on both must be there and agree.
//!
//! At start-up [`fabric_start`] decides from row and bundle what to do. Not here: keys and certificates.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, open, store_error};
use crate::durable::StoreError;
use crate::node::{FabricId, NodeId, OWN_ID_MAX};

/// How far the making of the fabric got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FabricState {
    /// The row is there; the key bundle may or may not be.
    Creating,
    /// Row and key bundle are durable.
    Ready,
}

/// What the store knows about our fabric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FabricRow {
    /// Fabric id, 1..=2^31-1.
    pub fabric_id: FabricId,
    /// Compressed fabric id (Matter Core 4.3.2.2).
    pub compressed_id: u64,
    /// Fingerprint of the root CA certificate, in the form that the key store chooses.
    pub root_fingerprint: String,
    /// FabricLabel.
    pub label: String,
    /// The hub's own node id: the first one given away.
    pub hub_node_id: NodeId,
    /// The node id that is given away next; one past [`OWN_ID_MAX`] when all are used.
    pub next_node_id: u64,
    /// How far it is.
    pub state: FabricState,
}

/// A fabric to be made, or to be restored from a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFabric {
    /// Fabric id, 1..=2^31-1; see [`random_fabric_id`].
    pub fabric_id: FabricId,
    /// Compressed fabric id.
    pub compressed_id: u64,
    /// Fingerprint of the root CA certificate.
    pub root_fingerprint: String,
    /// FabricLabel.
    pub label: String,
    /// The hub's own node id, from [`random_hub_node_id`].
    pub hub_node_id: NodeId,
    /// The node id to give away next: `hub_node_id + 1`, or after a restore one that was certainly never used.
    pub next_node_id: u64,
}

/// What a start finds of the fabric, judged by [`fabric_start`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FabricStart {
    /// Nothing was ever made, or its making did not get as far as the keys: make one.
    Make,
    /// The keys are durable, only the last step is missing: call [`Store::finish_fabric`].
    Finish(FabricRow),
    /// As it should be.
    Use(FabricRow),
}

/// Row and key bundle do not belong together: the daemon must stop, and never make a second root CA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FabricMismatch {
    /// The keys of a finished fabric are gone.
    #[error(
        "the keys of fabric {} are missing from the state directory: restore it from a backup; a new root CA would strand \
         every device", .0.0
    )]
    KeysMissing(FabricId),
    /// Keys without a row.
    #[error(
        "there are fabric keys, but the database knows no fabric: restore the state directory as a whole from a backup"
    )]
    RowMissing,
    /// Keys of another root.
    #[error(
        "the fabric keys (root {keys}) are not those of the database (root {row}): restore the state directory as a whole \
         from a backup"
    )]
    OtherRoot {
        /// The row's fingerprint.
        row: String,
        keys: String,
    },
}

/// Decides what a start does with what it finds. `keys` is the root fingerprint of the key bundle, if there is one.
///
/// # Errors
/// The two do not belong together.
pub(crate) fn fabric_start(row: Option<FabricRow>, keys: Option<&str>) -> Result<FabricStart, FabricMismatch> {
    match (row, keys) {
        (None, None) => Ok(FabricStart::Make),
        (None, Some(_)) => Err(FabricMismatch::RowMissing),
        (Some(row), Some(keys)) if row.root_fingerprint != keys => {
            Err(FabricMismatch::OtherRoot { row: row.root_fingerprint, keys: keys.to_owned() })
        }
        (Some(row), keys) => match (row.state, keys) {
            (FabricState::Creating, None) => Ok(FabricStart::Make),
            (FabricState::Creating, Some(_)) => Ok(FabricStart::Finish(row)),
            (FabricState::Ready, None) => Err(FabricMismatch::KeysMissing(row.fabric_id)),
            (FabricState::Ready, Some(_)) => Ok(FabricStart::Use(row)),
        },
    }
}

/// A random fabric id in 1..=2^31-1 (cloud-contract 6.3).
pub(crate) fn random_fabric_id() -> FabricId {
    FabricId(rand::random_range(1..=OWN_ID_MAX))
}

/// A random start for node ids that leaves at least half of the range for the devices.
pub(crate) fn random_hub_node_id() -> NodeId {
    NodeId(rand::random_range(1..=OWN_ID_MAX / 2))
}

impl Store {
    /// The fabric as far as it got, `None` where none was begun.
    pub async fn fabric_state(&self) -> Result<Option<FabricRow>, StoreError> {
        self.call(|connection| row(connection)).await
    }

    /// Step 1: notes that a fabric is being made. Replaces a row that is still `creating`, whose keys never became durable.
    ///
    /// # Errors
    /// A finished fabric exists, an id lies outside of its range, or the store fails.
    pub async fn begin_fabric(&self, fabric: NewFabric) -> Result<(), StoreError> {
        self.call(move |connection| {
            if row(connection)?.is_some_and(|row| row.state == FabricState::Ready) {
                return Err(StoreError::Failed("a fabric exists already and is not replaced".to_owned()));
            }
            connection
                .execute(
                    "INSERT OR REPLACE INTO fabric
                       (id, fabric_id, compressed_id, root_fingerprint, label, hub_node_id, next_node_id, state)
                     VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, 'creating')",
                    params![
                        id(fabric.fabric_id.0)?,
                        format!("{:016X}", fabric.compressed_id),
                        fabric.root_fingerprint,
                        fabric.label,
                        id(fabric.hub_node_id.0)?,
                        id(fabric.next_node_id)?,
                    ],
                )
                .map_err(store_error)?;
            Ok(())
        })
        .await
    }

    /// Step 3: the key bundle is durable. Does nothing where the row is `ready` already.
    ///
    /// # Errors
    /// No fabric was begun with this root, or the store fails.
    pub async fn finish_fabric(&self, root_fingerprint: &str) -> Result<(), StoreError> {
        let fingerprint = root_fingerprint.to_owned();
        self.call(move |connection| {
            let changed = connection
                .execute("UPDATE fabric SET state = 'ready' WHERE root_fingerprint = ?1", [fingerprint])
                .map_err(store_error)?;
            if changed == 0 {
                return Err(StoreError::Missing("a fabric with this root".to_owned()));
            }
            // Into the main file: no loss of the log can bring back a state before the fabric.
            open::checkpoint(connection).map_err(store_error)
        })
        .await
    }
}

/// The next node id of a finished fabric; the commit of the caller's transaction makes it used.
pub(super) fn allocate(connection: &Connection) -> Result<NodeId, StoreError> {
    let given: Option<i64> = connection
        .prepare_cached(
            "UPDATE fabric SET next_node_id = next_node_id + 1
             WHERE state = 'ready' AND next_node_id <= ?1 RETURNING next_node_id - 1",
        )
        .and_then(|mut statement| {
            statement.query_row([id(OWN_ID_MAX).unwrap_or(i64::MAX)], |row| row.get(0)).optional()
        })
        .map_err(store_error)?;
    match given {
        Some(given) => Ok(NodeId(given.unsigned_abs())),
        None if row(connection)?.is_some_and(|row| row.state == FabricState::Ready) => {
            Err(StoreError::Failed(format!("every node id up to {OWN_ID_MAX} has been used; none is ever used twice")))
        }
        None => Err(StoreError::Missing("a finished fabric".to_owned())),
    }
}

pub(super) fn row(connection: &Connection) -> Result<Option<FabricRow>, StoreError> {
    let read = |row: &Row<'_>| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, String>(3)?,
            row.get::<_, i64>(4)?,
            row.get::<_, i64>(5)?,
            row.get::<_, String>(6)?,
        ))
    };
    let found = connection
        .query_row(
            "SELECT fabric_id, compressed_id, root_fingerprint, label, hub_node_id, next_node_id, state FROM fabric",
            [],
            read,
        )
        .optional()
        .map_err(store_error)?;
    let Some((fabric_id, compressed, root_fingerprint, label, hub, next, state)) = found else { return Ok(None) };
    Ok(Some(FabricRow {
        fabric_id: FabricId(fabric_id.unsigned_abs()),
        compressed_id: u64::from_str_radix(&compressed, 16)
            .map_err(|error| StoreError::Corrupt(format!("the compressed fabric id: {error}")))?,
        root_fingerprint,
        label,
        hub_node_id: NodeId(hub.unsigned_abs()),
        next_node_id: next.unsigned_abs(),
        state: if state == "ready" { FabricState::Ready } else { FabricState::Creating },
    }))
}

/// An id as SQLite holds it.
pub(super) fn id(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Failed(format!("the id {value} does not fit into the store")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: FabricState) -> FabricRow {
        FabricRow {
            fabric_id: FabricId(7),
            compressed_id: 1,
            root_fingerprint: "AA".to_owned(),
            label: "Home".to_owned(),
            hub_node_id: NodeId(10),
            next_node_id: 11,
            state,
        }
    }

    #[test]
    fn only_a_start_without_durable_keys_makes_a_fabric() {
        let (creating, ready) = (row(FabricState::Creating), row(FabricState::Ready));
        assert_eq!(fabric_start(None, None), Ok(FabricStart::Make));
        assert_eq!(fabric_start(Some(creating.clone()), None), Ok(FabricStart::Make));
        assert_eq!(fabric_start(Some(creating.clone()), Some("AA")), Ok(FabricStart::Finish(creating.clone())));
        assert_eq!(fabric_start(Some(ready.clone()), Some("AA")), Ok(FabricStart::Use(ready.clone())));
        assert_eq!(fabric_start(Some(ready.clone()), None), Err(FabricMismatch::KeysMissing(FabricId(7))));
        assert_eq!(fabric_start(None, Some("AA")), Err(FabricMismatch::RowMissing));
        let other = Err(FabricMismatch::OtherRoot { row: "AA".to_owned(), keys: "BB".to_owned() });
        assert_eq!(fabric_start(Some(ready), Some("BB")), other);
        assert_eq!(fabric_start(Some(creating), Some("BB")), other);
    }

    #[test]
    fn random_starts_leave_room() {
        for _ in 0..1000 {
            assert!((1..=OWN_ID_MAX).contains(&random_fabric_id().0));
            assert!((1..=OWN_ID_MAX / 2).contains(&random_hub_node_id().0));
        }
    }
}
