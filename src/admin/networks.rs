//! The routes about networks of the home. What joins them comes in and never goes out; it comes by the Unix socket, or by TLS.

use axum::extract::{ConnectInfo, State};

use super::auth::Peer;
use super::openapi::Route;
use super::routes::{Answer, Api, Body, InPath, json};
use super::wire::{NetworkList, NetworkOrder};
use crate::hub::doors::NetworksDoor;

/// The paths of this module.
pub(super) fn routes<H: NetworksDoor>() -> Vec<Route<H>> {
    vec![
        Route::get("/v1/networks", "networks", "Networks that devices are brought to, without what joins them", all)
            .answers::<NetworkList>(),
        Route::post("/v1/networks", "set_network", "Writes a network down, or anew; not on TCP", set)
            .body::<NetworkOrder>()
            .answers::<NetworkList>()
            .local_only(),
        Route::delete("/v1/networks/{network}", "forget_network", "Deletes a network", forget).answers::<NetworkList>(),
    ]
}

async fn all<H: NetworksDoor>(State(api): State<Api<H>>) -> Answer<NetworkList> {
    json(api.hub.networks().await)
}

async fn set<H: NetworksDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(order): Body<NetworkOrder>,
) -> Answer<NetworkList> {
    json(api.hub.set_network(order, peer.describe()).await)
}

async fn forget<H: NetworksDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    InPath(network): InPath<String>,
) -> Answer<NetworkList> {
    json(api.hub.forget_network(&network, peer.describe()).await)
}
