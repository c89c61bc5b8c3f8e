//! Controllers of the household, the keys that were ever certified, and invitations.
//!
//! A controller, its key and the invitation that it used are one transaction: a certificate that is recorded is answered, and one
//! that is not recorded is not given out. Not here: what the records mean (`controller`).

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::fabric::id;
use super::{Failure, Store, from_json, micros, store_error, to_json};
use crate::controller::invite::{Invite, InviteCode, InviteRefused, Offer};
use crate::controller::{Controller, ControllerState};
use crate::durable::StoreError;
use crate::failpoint;
use crate::node::NodeId;

/// Invitations that are over are shown for so long.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// What came of recording a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolled {
    Done,
    /// Another one has this name.
    NameTaken(NodeId),
    /// A certificate was issued for this key before.
    KeyUsed(NodeId),
    /// Somebody else was quicker with the invitation.
    InviteUsed,
}

impl Store {
    /// All controllers by node id, those that are removed included.
    pub async fn controllers(&self) -> Result<Vec<Controller>, StoreError> {
        self.call(|connection| all(connection)).await
    }

    /// For whom a certificate with this key was ever issued.
    pub async fn controller_of_key(&self, key: &str) -> Result<Option<NodeId>, StoreError> {
        let key = key.to_owned();
        self.call(move |connection| owner(connection, &key)).await
    }

    /// Records a new controller with its first certificate, and that it used the invitation.
    ///
    /// # Errors
    /// The store fails; nothing is recorded then.
    pub async fn enrol(&self, controller: Controller, invite: Option<String>) -> Result<Enrolled, StoreError> {
        self.write(move |tx| {
            if let Some(owner) = owner(tx, &controller.key)? {
                return Ok(Enrolled::KeyUsed(owner));
            }
            let same_name = "SELECT node_id FROM controllers WHERE name = ?1 AND state <> 'removed'";
            let taken = tx.query_row(same_name, [&controller.name], |row| row.get::<_, i64>(0)).optional()?;
            if let Some(taken) = taken {
                return Ok(Enrolled::NameTaken(NodeId(taken.unsigned_abs())));
            }
            if let Some(invite) = invite {
                let Some(mut invite) = find_invite(tx, &invite)?.filter(|invite| invite.used_by.is_none()) else {
                    return Ok(Enrolled::InviteUsed);
                };
                invite.used_by = Some((controller.node_id, controller.key.clone()));
                save_invite(tx, &invite)?;
            }
            save(tx, &controller)?;
            failpoint::reach("controller.in-transaction");
            Ok(Enrolled::Done)
        })
        .await
    }

    /// Gives a controller another certificate, for a key that was not certified before.
    ///
    /// # Errors
    /// The controller is not recorded, or the store fails.
    pub async fn renew_controller(&self, renewed: Controller) -> Result<Enrolled, StoreError> {
        self.write(move |tx| {
            if let Some(owner) = owner(tx, &renewed.key)? {
                return Ok(Enrolled::KeyUsed(owner));
            }
            if find(tx, renewed.node_id)?.is_none_or(|before| before.state != ControllerState::Enrolled) {
                return Err(missing(renewed.node_id).into());
            }
            save(tx, &renewed)?;
            Ok(Enrolled::Done)
        })
        .await
    }

    /// Changes a controller, and answers what it is then.
    ///
    /// # Errors
    /// The controller is not recorded, or the store fails.
    pub async fn change_controller(
        &self,
        node: NodeId,
        change: impl FnOnce(&mut Controller) + Send + 'static,
    ) -> Result<Controller, StoreError> {
        self.write(move |tx| {
            let mut controller = find(tx, node)?.ok_or_else(|| missing(node))?;
            change(&mut controller);
            let record = to_json(&controller)?;
            tx.execute("UPDATE controllers SET record = ?2 WHERE node_id = ?1", params![id(node.0)?, record])?;
            Ok(controller)
        })
        .await
    }

    /// Keeps a new invitation; those that were over long ago go.
    pub async fn add_invite(&self, invite: Invite) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("DELETE FROM invites WHERE expires_at < ?1", [micros(invite.made_at - KEPT)])?;
            Ok(save_invite(tx, &invite)?)
        })
        .await
    }

    /// All invitations that are kept, the newest last.
    pub async fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        self.call(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT record FROM invites ORDER BY expires_at").map_err(store_error)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(store_error)?;
            rows.map(|row| from_json(&row.map_err(store_error)?)).collect()
        })
        .await
    }

    /// Takes an invitation back. Answers whether there was one.
    pub async fn drop_invite(&self, invite: &str) -> Result<bool, StoreError> {
        let invite = invite.to_owned();
        self.write(move |tx| Ok(tx.execute("DELETE FROM invites WHERE id = ?1", [invite])? > 0)).await
    }

    /// Somebody shows a code with this key. That it was tried is kept before the answer.
    ///
    /// # Errors
    /// The store fails: then the code was not tried.
    pub async fn try_code(
        &self,
        code: InviteCode,
        key: String,
        now: Timestamp,
    ) -> Result<Result<Offer, InviteRefused>, StoreError> {
        self.write(move |tx| {
            let Some(mut invite) = find_invite(tx, code.id())? else { return Ok(Err(InviteRefused::Unknown)) };
            let before = invite.clone();
            let judged = invite.handle_code(&code, &key, now);
            if invite != before {
                save_invite(tx, &invite)?;
            }
            Ok(judged.map(|()| invite.offer()))
        })
        .await
    }
}

/// What a restored copy must have: no invitation survives, for who used one since is not known.
pub(super) fn adopt_restored(tx: &Transaction<'_>) -> Result<(), Failure> {
    tx.execute("DELETE FROM invites", [])?;
    Ok(())
}

fn all(connection: &Connection) -> Result<Vec<Controller>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT record FROM controllers ORDER BY node_id").map_err(store_error)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(store_error)?;
    rows.map(|row| from_json(&row.map_err(store_error)?)).collect()
}

fn find(tx: &Transaction<'_>, node: NodeId) -> Result<Option<Controller>, Failure> {
    let sql = "SELECT record FROM controllers WHERE node_id = ?1";
    let record = tx.query_row(sql, [id(node.0)?], |row| row.get::<_, String>(0)).optional()?;
    Ok(record.map(|record| from_json(&record)).transpose()?)
}

fn save(tx: &Transaction<'_>, controller: &Controller) -> Result<(), Failure> {
    let node = id(controller.node_id.0)?;
    let record = to_json(controller)?;
    tx.execute("INSERT OR REPLACE INTO controllers (node_id, record) VALUES (?1, ?2)", params![node, record])?;
    let key = params![controller.key, node];
    tx.execute("INSERT INTO controller_keys (fingerprint, node_id) VALUES (?1, ?2)", key)?;
    Ok(())
}

fn owner(connection: &Connection, key: &str) -> Result<Option<NodeId>, StoreError> {
    let sql = "SELECT node_id FROM controller_keys WHERE fingerprint = ?1";
    let owner = connection.query_row(sql, [key], |row| row.get::<_, i64>(0)).optional().map_err(store_error)?;
    Ok(owner.map(|node| NodeId(node.unsigned_abs())))
}

fn find_invite(tx: &Transaction<'_>, invite: &str) -> Result<Option<Invite>, Failure> {
    let sql = "SELECT record FROM invites WHERE id = ?1";
    let record = tx.query_row(sql, [invite], |row| row.get::<_, String>(0)).optional()?;
    Ok(record.map(|record| from_json(&record)).transpose()?)
}

fn save_invite(tx: &Transaction<'_>, invite: &Invite) -> Result<(), StoreError> {
    let row = params![invite.id, to_json(invite)?, micros(invite.expires_at)];
    tx.execute("INSERT OR REPLACE INTO invites (id, record, expires_at) VALUES (?1, ?2, ?3)", row)
        .map_err(store_error)?;
    Ok(())
}

fn missing(node: NodeId) -> StoreError {
    StoreError::Missing(format!("controller {node}"))
}
