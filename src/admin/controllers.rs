//! The routes about other controllers. Whatever holds the fabric's Identity Protection Key leaves by the Unix socket, or by TLS
//! for an app that shows the code of an invitation.

use axum::Extension;
use axum::extract::{ConnectInfo, State};

use super::auth::{ENROL, Peer};
use super::connections::Channel;
use super::openapi::Route;
use super::routes::{Answer, Api, Body, InPath, Refused, json};
use super::wire::{
    ControllerBundle, ControllerOrder, ControllerRemoval, ControllerView, Controllers, EnrolRequest, Invitation,
    InviteOrder, Refusal, RemoveOrder, RenewOrder,
};
use crate::commissioning::error::Disposition;
use crate::hub::doors::{ControllersDoor, InvitesDoor};

/// The paths of this module.
pub(super) fn routes<H: ControllersDoor + InvitesDoor>() -> Vec<Route<H>> {
    vec![
        Route::get("/v1/controllers", "controllers", "Other controllers, and open invitations", all)
            .answers::<Controllers>(),
        Route::post("/v1/controllers", "add_controller", "Gives a controller a certificate; not on TCP", add)
            .body::<ControllerOrder>()
            .answers::<ControllerBundle>()
            .local_only(),
        Route::get("/v1/controllers/{controller}", "controller", "How one controller stands", one)
            .answers::<ControllerView>(),
        Route::post(
            "/v1/controllers/{controller}/renew",
            "renew_controller",
            "Gives it another certificate; not on TCP",
            renew,
        )
        .body::<RenewOrder>()
        .answers::<ControllerBundle>()
        .local_only(),
        Route::post("/v1/controllers/{controller}/remove", "remove_controller", "Shuts it out", remove)
            .body::<RemoveOrder>()
            .answers::<ControllerRemoval>(),
        Route::post("/v1/invites", "invite", "Makes a code by which an app enrols; not on TCP", invite)
            .body::<InviteOrder>()
            .answers::<Invitation>()
            .local_only(),
        Route::delete("/v1/invites/{invite}", "withdraw_invite", "Takes a code back", withdraw)
            .answers::<Controllers>(),
        Route::post(ENROL, "enrol", "An app shows a code and gets its bundle; TLS, no token", enrol)
            .body::<EnrolRequest>()
            .answers::<ControllerBundle>(),
    ]
}

async fn all<H: ControllersDoor>(State(api): State<Api<H>>) -> Answer<Controllers> {
    json(api.hub.controllers().await)
}

async fn one<H: ControllersDoor>(
    State(api): State<Api<H>>,
    InPath(controller): InPath<String>,
) -> Answer<ControllerView> {
    json(api.hub.controller(&controller).await)
}

async fn add<H: ControllersDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(order): Body<ControllerOrder>,
) -> Answer<ControllerBundle> {
    json(api.hub.add_controller(order, peer.describe()).await)
}

async fn renew<H: ControllersDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    InPath(controller): InPath<String>,
    Body(order): Body<RenewOrder>,
) -> Answer<ControllerBundle> {
    json(api.hub.renew_controller(&controller, order, peer.describe()).await)
}

async fn remove<H: ControllersDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    InPath(controller): InPath<String>,
    Body(order): Body<RemoveOrder>,
) -> Answer<ControllerRemoval> {
    json(api.hub.remove_controller(&controller, order.now, peer.describe()).await)
}

async fn invite<H: InvitesDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(order): Body<InviteOrder>,
) -> Answer<Invitation> {
    json(api.hub.invite(order, peer.describe()).await)
}

async fn withdraw<H: InvitesDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    InPath(invite): InPath<String>,
) -> Answer<Controllers> {
    json(api.hub.withdraw_invite(&invite, peer.describe()).await)
}

/// The one route for strangers: no token, but a code; and nothing but TLS.
async fn enrol<H: InvitesDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(channel): Extension<Channel>,
    Body(request): Body<EnrolRequest>,
) -> Answer<ControllerBundle> {
    if matches!(peer, Peer::Remote(_) | Peer::Person(_)) && channel != Channel::Encrypted {
        let message = "codes and certificates are not handled without TLS";
        let hint = "set `admin.tls = \"on\"` on the hub";
        return Err(Refused(Refusal::new("tls-needed", Disposition::UserAction, message, hint)));
    }
    json(api.hub.enrol(request, peer.place()).await)
}
