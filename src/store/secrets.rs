//! Secrets that the database keeps: the cloud's tokens and the near-field keys, sealed with a key that is not in it.
//!
//! What an earlier matterbind left unsealed is read, and sealed as soon as the seal is given. Not here: the seal (`keystore`),
//! and how the binding codes of waiting binds are written (`task_row`).

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::{OptionalExtension, params};
use zeroize::Zeroizing;

use super::{Failure, Store, task_row};
use crate::durable::{Seal, StoreError};

/// The name of the cloud's tokens.
pub(crate) const TOKENS: &str = "cloud-tokens";
/// Before everything that is sealed. Tokens are JSON and near-field keys base64: neither begins like this.
const MARK: &[u8] = b"sealed:";

impl Store {
    /// Seals secrets from now on, and those that are there unsealed. A second seal is not taken.
    pub async fn seal_with(&self, seal: impl Seal) -> Result<(), StoreError> {
        if self.seal.set(Box::new(seal)).is_err() {
            return Ok(());
        }
        let store = self.clone();
        let work = move |tx: &rusqlite::Transaction<'_>| {
            let select = "SELECT bytes FROM tokens WHERE name = ?1";
            let tokens: Option<Vec<u8>> = tx.query_row(select, [TOKENS], |row| row.get(0)).optional()?;
            if let Some(plain) = tokens.filter(|bytes| !bytes.starts_with(MARK)).map(Zeroizing::new) {
                tx.execute("UPDATE tokens SET bytes = ?2 WHERE name = ?1", params![TOKENS, *store.sealed(&plain)?])?;
            }
            let mut keys = tx.prepare("SELECT node_id, auth_key FROM receipts WHERE auth_key NOT LIKE 'sealed:%'")?;
            let keys =
                keys.query_map([], |row| Ok((row.get::<_, i64>(0)?, Zeroizing::new(row.get::<_, String>(1)?))))?;
            for (node, plain) in keys.collect::<Result<Vec<_>, _>>()? {
                let sealed = store.sealed_text(&plain)?;
                tx.execute("UPDATE receipts SET auth_key = ?2 WHERE node_id = ?1", params![node, *sealed])?;
            }
            for (table, key) in [("outbox", "id"), ("provisional", "node_id")] {
                seal_codes(tx, table, key)?;
            }
            Ok(())
        };
        let empties_log = self.empties_log.clone();
        self.write_then(work, move || empties_log.store(true, Ordering::Relaxed)).await
    }

    /// What [`Self::save_secret`] saved; `None` as well where it was sealed by another.
    pub async fn load_secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let kept = self.load_blob(name).await?.map(Zeroizing::new);
        Ok(kept.and_then(|bytes| self.unsealed(&bytes)))
    }

    /// Saves bytes under `name`, sealed where there is a seal.
    ///
    /// # Errors
    /// The store or the sealing library fails; the earlier bytes are then still there.
    pub async fn save_secret(&self, name: &str, plain: &[u8]) -> Result<(), StoreError> {
        self.save_blob(name, &self.sealed(plain)?).await
    }

    /// What [`Self::sealed`] made; `None` where it was sealed by another.
    pub(super) fn unsealed(&self, kept: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match kept.strip_prefix(MARK) {
            Some(sealed) => self.seal.get()?.open(sealed),
            None => Some(Zeroizing::new(kept.to_vec())),
        }
    }

    /// What the disk gets of a secret.
    pub(super) fn sealed(&self, plain: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        match self.seal.get() {
            Some(seal) => Ok(Zeroizing::new([MARK, &seal.seal(plain)?].concat())),
            None => Ok(Zeroizing::new(plain.to_vec())),
        }
    }

    /// [`Self::sealed`] for a column of text.
    pub(super) fn sealed_text(&self, plain: &str) -> Result<Zeroizing<String>, StoreError> {
        let text = match self.seal.get() {
            Some(seal) => format!("sealed:{}", BASE64.encode(seal.seal(plain.as_bytes())?)),
            None => plain.to_owned(),
        };
        Ok(Zeroizing::new(text))
    }

    /// The near-field key that the cloud gave for a node.
    #[cfg(test)]
    pub(super) async fn auth_key(&self, node: i64) -> Option<String> {
        let sql = "SELECT auth_key FROM receipts WHERE node_id = ?1";
        let work = move |connection: &mut rusqlite::Connection| {
            connection.query_row(sql, [node], |row| row.get::<_, Option<String>>(0)).map_err(super::store_error)
        };
        let text = self.call(work).await.unwrap()?;
        let Some(sealed) = text.strip_prefix("sealed:") else { return Some(text) };
        let plain = self.seal.get()?.open(&BASE64.decode(sealed).unwrap())?;
        Some(String::from_utf8(plain.to_vec()).unwrap())
    }
}

/// Writes tasks anew whose binding code is there as it is.
fn seal_codes(tx: &rusqlite::Transaction<'_>, table: &str, key: &str) -> Result<(), Failure> {
    let sql =
        format!("SELECT {key}, task FROM {table} WHERE task ->> '$.binding_code' NOT LIKE '{}%'", task_row::SEALED);
    let mut plain = tx.prepare(&sql)?;
    let plain = plain.query_map([], |row| Ok((row.get::<_, i64>(0)?, Zeroizing::new(row.get::<_, String>(1)?))))?;
    for (row, task) in plain.collect::<Result<Vec<_>, _>>()? {
        let sealed = task_row::write(&task_row::read(&task)?)?;
        tx.execute(&format!("UPDATE {table} SET task = ?2 WHERE {key} = ?1"), params![row, sealed.as_str()])?;
    }
    Ok(())
}
