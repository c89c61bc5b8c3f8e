//! Networks of the home. What joins them is sealed like every secret of the database, and read by attempts only. Not here: which
//! one a device is brought to (`hub::networks`).

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use zeroize::Zeroizing;

use super::{Failure, Store, micros, store_error};
use crate::commissioning::network::{HomeNetwork, NetworkCredentials, NetworkKind};
use crate::durable::StoreError;
use crate::secret::{ThreadDataset, WifiPassword};

/// A network as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredNetwork {
    pub name: String,
    pub kind: NetworkKind,
    /// SSID, or extended PAN id.
    pub id: Vec<u8>,
    /// Whether devices of its kind are brought to it where nobody names another.
    pub is_default: bool,
    /// When it was set last.
    pub set_at: Timestamp,
}

impl Store {
    /// All networks by name, without what joins them.
    pub async fn networks(&self) -> Result<Vec<StoredNetwork>, StoreError> {
        let sql = "SELECT name, kind, network_id, is_default, set_at FROM networks ORDER BY name";
        self.call(move |connection| {
            let mut select = connection.prepare_cached(sql).map_err(store_error)?;
            let rows = select.query_map([], shown).map_err(store_error)?;
            rows.collect::<Result<Vec<_>, _>>().map_err(store_error)
        })
        .await
    }

    /// One network with what joins it; `None` where there is none, or it was sealed by another.
    pub async fn network(&self, name: &str) -> Result<Option<HomeNetwork>, StoreError> {
        let (asked, sql) = (name.to_owned(), "SELECT kind, network_id, secret FROM networks WHERE name = ?1");
        let read =
            |row: &Row<'_>| Ok((kind(row, 0)?, row.get::<_, Vec<u8>>(1)?, Zeroizing::new(row.get::<_, Vec<u8>>(2)?)));
        let found = self
            .call(move |connection| connection.query_row(sql, [&asked], read).optional().map_err(store_error))
            .await?;
        let Some((kind, id, kept)) = found else { return Ok(None) };
        let Some(secret) = self.unsealed(&kept) else { return Ok(None) };
        let credentials = match kind {
            NetworkKind::Wifi => String::from_utf8(secret.to_vec())
                .ok()
                .map(|password| NetworkCredentials::Wifi { ssid: id, password: WifiPassword::new(password) }),
            NetworkKind::Thread => id.try_into().ok().map(|extended_pan_id| NetworkCredentials::Thread {
                dataset: ThreadDataset::new(secret.to_vec()),
                extended_pan_id,
            }),
        };
        Ok(credentials.map(|credentials| HomeNetwork { name: name.to_owned(), credentials }))
    }

    /// Writes a network down, or anew. The first of its kind is the default one.
    ///
    /// # Errors
    /// The store or the sealing library fails; the earlier one is then still there.
    pub async fn set_network(
        &self,
        network: &HomeNetwork,
        make_default: bool,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let secret = match &network.credentials {
            NetworkCredentials::Wifi { password, .. } => self.sealed(password.expose().as_bytes())?,
            NetworkCredentials::Thread { dataset, .. } => self.sealed(dataset.expose())?,
        };
        let (name, kind) = (network.name.clone(), network.credentials.kind().as_str());
        let id = network.credentials.id().to_vec();
        self.write(move |tx| -> Result<(), Failure> {
            if make_default {
                tx.execute("UPDATE networks SET is_default = 0 WHERE kind = ?1", [kind])?;
            }
            let another = "SELECT count(*) FROM networks WHERE kind = ?1 AND is_default = 1 AND name <> ?2";
            let another: i64 = tx.query_row(another, params![kind, name], |row| row.get(0))?;
            tx.execute("DELETE FROM networks WHERE name = ?1", [&name])?;
            let insert = "INSERT INTO networks (name, kind, network_id, secret, is_default, set_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            tx.execute(insert, params![name, kind, id, *secret, another == 0, micros(at)])?;
            Ok(())
        })
        .await
    }

    /// Deletes a network; false where there was none. Another one of its kind becomes the default one, where it was that.
    pub async fn forget_network(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.write(move |tx| -> Result<bool, Failure> {
            let forgotten = tx.execute("DELETE FROM networks WHERE name = ?1", [&name])? > 0;
            let next = "UPDATE networks SET is_default = 1 WHERE name IN (SELECT min(name) FROM networks AS other GROUP BY kind \
                        HAVING max(is_default) = 0)";
            tx.execute(next, [])?;
            Ok(forgotten)
        })
        .await
    }
}

fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<NetworkKind> {
    // The table takes these two words only.
    Ok(if row.get::<_, String>(column)? == NetworkKind::Thread.as_str() {
        NetworkKind::Thread
    } else {
        NetworkKind::Wifi
    })
}

fn shown(row: &Row<'_>) -> rusqlite::Result<StoredNetwork> {
    Ok(StoredNetwork {
        name: row.get(0)?,
        kind: kind(row, 1)?,
        id: row.get(2)?,
        is_default: row.get(3)?,
        set_at: Timestamp::from_microsecond(row.get(4)?).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::SealKey;

    fn wifi(name: &str, password: &str) -> HomeNetwork {
        let password = WifiPassword::new(password);
        let credentials = NetworkCredentials::Wifi { ssid: name.as_bytes().to_vec(), password };
        HomeNetwork { name: name.to_owned(), credentials }
    }

    #[tokio::test]
    async fn a_network_comes_back_as_it_was_set_and_its_password_is_not_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.seal_with(SealKey::new(b"seal")).await.unwrap();
        let (home, guests) = (wifi("Home", "a password of the home"), wifi("Guests", "another password"));
        let at = Timestamp::UNIX_EPOCH;
        store.set_network(&home, false, at).await.unwrap();
        store.set_network(&guests, false, at).await.unwrap();
        assert_eq!(store.network("Home").await.unwrap(), Some(home.clone()));
        let defaults = async || {
            let all = store.networks().await.unwrap();
            all.into_iter().filter(|network| network.is_default).map(|network| network.name).collect::<Vec<_>>()
        };
        assert_eq!(defaults().await, ["Home"]);
        store.set_network(&wifi("Home", "changed since then"), false, at).await.unwrap();
        assert_eq!(defaults().await, ["Home"], "a new password changes nothing else");
        store.set_network(&guests, true, at).await.unwrap();
        assert_eq!(defaults().await, ["Guests"]);
        assert!(store.forget_network("Guests").await.unwrap() && !store.forget_network("Guests").await.unwrap());
        assert_eq!(defaults().await, ["Home"]);
        assert_eq!(store.network("Guests").await.unwrap(), None);
        store.close().await;
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for password in ["a password of the home", "changed since then", "another password"] {
                assert!(!bytes.windows(password.len()).any(|window| window == password.as_bytes()));
            }
        }
    }
}
