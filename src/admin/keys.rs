//! The routes about keys and access: backup, root key, who may do what.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::routes::{Answer, Api, Body, Refused, json, node_id};
use super::wire::{AccessAction, AccessReport, AccessView, Encryption, FabricInfo, ImportRoot, Refusal, RemoveRoot};
use crate::backup::{Lock, Unlock};
use crate::hub::doors::{AccessDoor, InventoryDoor, KeysDoor};
use crate::secret::OperatorSecret;

fn lock(asked: Encryption) -> Result<Lock, Refused> {
    match (asked.passphrase, asked.recipient) {
        (Some(secret), None) if !secret.expose().is_empty() => Ok(Lock::passphrase(secret)),
        (None, Some(recipient)) => Lock::recipient(&recipient)
            .map_err(|why| Refused(Refusal::bad_request(format!("this is no age recipient: {why}")))),
        _ => Err(Refused(Refusal::bad_request("give a passphrase or a recipient, one of the two"))),
    }
}

fn unlock(passphrase: Option<OperatorSecret>, identity: Option<OperatorSecret>) -> Result<Unlock, Refused> {
    let refused = |why: &str| Refused(Refusal::bad_request(why));
    match (passphrase, identity) {
        (Some(secret), None) => Ok(Unlock::Passphrase(secret)),
        (None, Some(identity)) => Unlock::identity(identity.expose()).ok_or_else(|| refused("this is no age identity")),
        _ => Err(refused("give a passphrase or an identity, one of the two")),
    }
}

fn file(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}

pub(super) async fn backup<H: KeysDoor>(
    State(api): State<Api<H>>,
    Body(asked): Body<Encryption>,
) -> Result<Response, Refused> {
    Ok(file(api.hub.backup(lock(asked)?).await?))
}

pub(super) async fn export_root<H: KeysDoor>(
    State(api): State<Api<H>>,
    Body(asked): Body<Encryption>,
) -> Result<Response, Refused> {
    Ok(file(api.hub.export_root(lock(asked)?).await?))
}

pub(super) async fn remove_root<H: KeysDoor>(
    State(api): State<Api<H>>,
    Body(asked): Body<RemoveRoot>,
) -> Answer<FabricInfo> {
    json(api.hub.remove_root(&asked.sha256).await)
}

pub(super) async fn import_root<H: KeysDoor>(
    State(api): State<Api<H>>,
    Body(asked): Body<ImportRoot>,
) -> Answer<FabricInfo> {
    let file = STANDARD.decode(&asked.file).map_err(|_| Refused(Refusal::bad_request("the file is not base64")))?;
    json(api.hub.import_root(file, unlock(asked.passphrase, asked.identity)?).await)
}

pub(super) async fn access<H: AccessDoor>(State(api): State<Api<H>>) -> Answer<AccessView> {
    json(api.hub.access().await)
}

pub(super) async fn change_access<H: AccessDoor + InventoryDoor>(
    State(api): State<Api<H>>,
    Body(action): Body<AccessAction>,
) -> Answer<AccessReport> {
    let resolved = async |node: Option<super::wire::NodeRef>| match node {
        Some(node) => node_id(&*api.hub, &node.to_string()).await.map(Some),
        None => Ok(None),
    };
    json(match action {
        AccessAction::Set { node, grants } => api.hub.set_access(resolved(node).await?, grants).await,
        AccessAction::Apply { node } => api.hub.apply_access(resolved(node).await?).await,
        AccessAction::Rotate { identifier } => api.hub.rotate_cat(identifier).await,
    })
}
