//! Registrations with devices that have long idle times: the keys of their check-ins, sealed like every secret of the database, and
//! how far their counters are. A row goes with its node. Not here: which of them are renewed, and when (`hub::icd`).

use std::time::Duration;

use rusqlite::{Row, params};
use zeroize::Zeroizing;

use super::fabric::id;
use super::{Failure, Store, nodes, store_error};
use crate::durable::StoreError;
use crate::node::{CheckInCounter, IcdRegistration, IcdSleep, NodeId};
use crate::secret::CheckInKey;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckInRow {
    pub node_id: NodeId,
    /// The key that the device has said it took; `None` before its answer, or where it was sealed by another.
    pub key: Option<CheckInKey>,
    /// One that it may have taken.
    pub next_key: Option<CheckInKey>,
    /// Where the counter of `key` stands.
    pub counter: CheckInCounter,
    pub sleep: IcdSleep,
}

/// A row as it is in the table, its keys sealed.
type Kept = (i64, [Option<Zeroizing<Vec<u8>>>; 2], CheckInCounter, IcdSleep);

impl Store {
    /// All of them.
    pub async fn check_ins(&self) -> Result<Vec<CheckInRow>, StoreError> {
        let sql = "SELECT node_id, key, next_key, counter, last, every_s, awake_ms, wake_trigger, wake_instruction \
                   FROM check_ins ORDER BY node_id";
        let rows = self
            .call(move |connection| {
                let mut select = connection.prepare_cached(sql).map_err(store_error)?;
                let rows = select.query_map([], kept).map_err(store_error)?;
                rows.collect::<Result<Vec<_>, _>>().map_err(store_error)
            })
            .await?;
        let open = |kept: Option<Zeroizing<Vec<u8>>>| {
            let plain = self.unsealed(&kept?)?;
            Some(CheckInKey::new(<[u8; 16]>::try_from(plain.as_slice()).ok()?))
        };
        let row = |(node, [key, next_key], counter, sleep): Kept| CheckInRow {
            node_id: NodeId(node.unsigned_abs()),
            key: open(key),
            next_key: open(next_key),
            counter,
            sleep,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// A key that is about to be sent, and how the device sleeps. The one that is in force stays until the device has answered.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails; then nothing may be sent.
    pub async fn begin_registration(&self, node: NodeId, key: &CheckInKey, sleep: &IcdSleep) -> Result<(), StoreError> {
        let (sealed, sleep) = (self.sealed(key.expose())?, sleep.clone());
        self.write(move |tx| -> Result<(), Failure> {
            let upsert = "INSERT INTO check_ins (node_id, next_key, every_s, awake_ms, wake_trigger, wake_instruction)
                          VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                          ON CONFLICT (node_id) DO UPDATE SET next_key = excluded.next_key, every_s = excluded.every_s,
                          awake_ms = excluded.awake_ms, wake_trigger = excluded.wake_trigger,
                          wake_instruction = excluded.wake_instruction";
            let (every, awake) = (seconds(sleep.every), i64::try_from(sleep.awake.as_millis()).unwrap_or(i64::MAX));
            tx.execute(upsert, params![id(node.0)?, *sealed, every, awake, sleep.trigger, sleep.instruction])?;
            Ok(())
        })
        .await
    }

    /// The device has taken the key that was sent; its counter stands at `start`. The record says that the hub is registered.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn finish_registration(&self, node: NodeId, start: u32) -> Result<(), StoreError> {
        self.write(move |tx| -> Result<(), Failure> {
            let taken = "UPDATE check_ins SET key = next_key, next_key = NULL, counter = ?2, last = NULL
                         WHERE node_id = ?1 AND next_key IS NOT NULL";
            if tx.execute(taken, params![id(node.0)?, start])? > 0 {
                nodes::modify(tx, node, |record| record.icd = Some(IcdRegistration::Registered))?;
            }
            Ok(())
        })
        .await
    }

    /// The last check-in of a node. One with an earlier counter is not taken after this is on disk.
    pub async fn note_check_in(&self, node: NodeId, counter: CheckInCounter) -> Result<(), StoreError> {
        self.write(move |tx| -> Result<(), Failure> {
            let later = "UPDATE check_ins SET last = ?3
                         WHERE node_id = ?1 AND counter = ?2 AND (last IS NULL OR last < ?3)";
            tx.execute(later, params![id(node.0)?, counter.start, counter.last])?;
            Ok(())
        })
        .await
    }

    /// The device has no registration of ours, or cannot have one; what the record says follows.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn end_registration(&self, node: NodeId) -> Result<(), StoreError> {
        self.write(move |tx| -> Result<(), Failure> {
            tx.execute("DELETE FROM check_ins WHERE node_id = ?1", [id(node.0)?])?;
            nodes::modify(tx, node, |record| record.icd = Some(IcdRegistration::NotRegistered))?;
            Ok(())
        })
        .await
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let key = |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<Vec<u8>>>(column)?.map(Zeroizing::new));
    let keys = [key(1)?, key(2)?];
    let counter = CheckInCounter { start: row.get(3)?, last: row.get(4)? };
    let sleep = IcdSleep {
        every: Duration::from_secs(row.get::<_, i64>(5)?.unsigned_abs()),
        awake: Duration::from_millis(row.get::<_, i64>(6)?.unsigned_abs()),
        trigger: row.get(7)?,
        instruction: row.get(8)?,
    };
    Ok((row.get(0)?, keys, counter, sleep))
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use crate::keystore::SealKey;
    use crate::node::Counted;

    const NODE: NodeId = NodeId(1001);

    #[tokio::test]
    async fn a_key_is_on_the_disk_sealed_before_it_is_in_force_and_goes_with_its_node() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.seal_with(SealKey::new(b"seal")).await.unwrap();
        store.adopt(&record(NODE.0)).await.unwrap();
        let keys = [*b"the first key 16", *b"the other key 16"].map(CheckInKey::new);
        let sleep = IcdSleep { every: Duration::from_secs(3600), trigger: 1 << 12, ..IcdSleep::default() };
        let row = async || store.check_ins().await.unwrap().pop().unwrap();
        store.begin_registration(NODE, &keys[0], &sleep).await.unwrap();
        let begun = row().await;
        assert_eq!((begun.key, begun.next_key, &begun.sleep), (None, Some(keys[0].clone()), &sleep));
        store.finish_registration(NODE, 4711).await.unwrap();
        store.finish_registration(NODE, 9).await.unwrap();
        let taken = row().await;
        assert_eq!((&taken.key, &taken.next_key), (&Some(keys[0].clone()), &None));
        assert_eq!(
            taken.counter,
            CheckInCounter { start: 4711, last: None },
            "an answer that comes twice changes nothing"
        );
        let icd = async || store.node(NODE).await.unwrap().unwrap().icd;
        assert_eq!(icd().await, Some(IcdRegistration::Registered));

        let Counted::New { counter, .. } = taken.counter.judge(4714) else { panic!("it is new") };
        store.note_check_in(NODE, counter).await.unwrap();
        store.note_check_in(NODE, CheckInCounter { last: Some(1), ..counter }).await.unwrap();
        assert_eq!(row().await.counter, counter, "it never goes back");

        store.begin_registration(NODE, &keys[1], &sleep).await.unwrap();
        let renewing = row().await;
        assert_eq!((renewing.key, renewing.next_key), (Some(keys[0].clone()), Some(keys[1].clone())));
        // A check-in that was under way when another key was taken says nothing of the new one.
        store.finish_registration(NODE, 1).await.unwrap();
        store.note_check_in(NODE, counter).await.unwrap();
        assert_eq!(row().await.counter, CheckInCounter { start: 1, last: None });
        store.end_registration(NODE).await.unwrap();
        assert_eq!((store.check_ins().await.unwrap().len(), icd().await), (0, Some(IcdRegistration::NotRegistered)));

        store.begin_registration(NODE, &keys[0], &sleep).await.unwrap();
        store.begin_removal(NODE, true, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
        store.advance_removal(NODE, false, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
        store.finish_removal(NODE).await.unwrap();
        assert_eq!((store.node(NODE).await.unwrap(), store.check_ins().await.unwrap().len()), (None, 0));
        store.close().await;
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for key in &keys {
                assert!(!bytes.windows(16).any(|window| window == key.expose()));
            }
        }
    }
}
