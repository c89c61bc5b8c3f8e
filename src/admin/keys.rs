//! The routes about keys and access: backup, root key, who may do what.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_util::io::ReaderStream;

use super::routes::{Answer, Api, Body, Refused, json, node_id};
use super::wire::{
    AccessAction, AccessReport, AccessView, BackupKept, Encryption, FabricInfo, ImportRoot, Refusal, RemoveRoot,
};
use crate::backup::{Identity, Recipient};
use crate::commissioning::error::Disposition;
use crate::hub::doors::{AccessDoor, InventoryDoor, KeysDoor};

fn recipient(asked: &Encryption) -> Result<Recipient, Refused> {
    let hint = "a recipient begins with age1; `age-keygen -y FILE` prints the one of an identity";
    let none = |why| {
        let message = format!("this is no age recipient: {why}");
        Refused(Refusal::new("bad-request", Disposition::UserAction, message, hint))
    };
    asked.recipient.parse().map_err(none)
}

/// Encrypted files are bytes.
pub(super) const BYTES: &str = "application/octet-stream";

pub(super) async fn backup<H: KeysDoor>(
    State(api): State<Api<H>>,
    Body(asked): Body<Encryption>,
) -> Result<Response, Refused> {
    let file = api.hub.backup(recipient(&asked)?).await?;
    let pieces = ReaderStream::new(tokio::fs::File::from_std(file));
    Ok(([(header::CONTENT_TYPE, BYTES)], axum::body::Body::from_stream(pieces)).into_response())
}

pub(super) async fn backup_kept<H: KeysDoor>(
    State(api): State<Api<H>>,
    Body(asked): Body<BackupKept>,
) -> Answer<FabricInfo> {
    json(api.hub.backup_kept(&asked.sha256).await)
}

pub(super) async fn export_root<H: KeysDoor>(
    State(api): State<Api<H>>,
    Body(asked): Body<Encryption>,
) -> Result<Response, Refused> {
    Ok(([(header::CONTENT_TYPE, BYTES)], api.hub.export_root(recipient(&asked)?).await?).into_response())
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
    let identity = Identity::read(asked.identity.expose());
    let identity = identity.ok_or_else(|| Refused(Refusal::bad_request("this is no age identity")))?;
    json(api.hub.import_root(file, identity).await)
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
