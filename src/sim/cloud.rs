//! The reference binding service (cloud-contract 7): everything that the hub needs of the cloud, over real HTTP, with
//! every check, switch and fault. Start it with `matterbind cloud-sim`, or in a test with [`SimCloud`].
//!
//! The rules are pure functions over `world::World`; this file has the HTTP around them. It has no TLS, and it keeps
//! passwords and tokens in memory: never give it real ones.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod backdoor;
mod bind;
mod devices;
mod family;
mod fault;
mod login;
mod routes;
mod scenario;
mod storm;
mod world;

use fault::{ConnectionSwitch, CuttableListener};
use routes::{Call, ROUTES, Route};
use world::{Refusal, World};

pub use fault::{Fault, FaultKind};
pub(crate) use scenario::{Device, EmptyData};
pub use scenario::{IdStorage, Scenario};
pub use world::Traffic;
pub(crate) use world::{Binding, Counters};

/// How long answers that are under way may take after the end was asked for.
const DRAIN: Duration = Duration::from_secs(2);
/// Longest body that is read.
const MAX_BODY_BYTES: usize = 1 << 20;

/// A running or not yet running simulated cloud; clones share it.
#[derive(Clone)]
pub struct SimCloud(Arc<Mutex<World>>);

/// Serves a scenario until `shutdown`, and at most 2 s longer.
pub(crate) async fn serve(listener: TcpListener, scenario: Scenario, shutdown: CancellationToken) -> io::Result<()> {
    SimCloud::new(scenario).serve(listener, shutdown).await
}

impl SimCloud {
    /// A cloud that starts with the scenario.
    pub fn new(scenario: Scenario) -> Self {
        Self(Arc::new(Mutex::new(World::new(scenario))))
    }

    /// Serves it until `shutdown`.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let router: Router = Router::new().fallback(answer).with_state(self.clone());
        let service = router.into_make_service_with_connect_info::<ConnectionSwitch>();
        let server = axum::serve(CuttableListener { listener, cloud: self.clone() }, service)
            .with_graceful_shutdown(shutdown.clone().cancelled_owned());
        tokio::select! {
            outcome = server => outcome,
            // A delayed answer does not hold up the end.
            () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut World) -> R) -> R {
        act(&mut self.0.lock().expect("no rule panics"))
    }

    /// Queues a fault.
    pub fn fault(&self, fault: Fault) {
        self.with(|world| world.faults.push_back(fault));
    }

    /// Advances the clock.
    pub fn advance(&self, by: SignedDuration) {
        self.with(|world| world.offset = world.offset.saturating_add(by));
    }

    /// Makes every token worthless, or only the access tokens.
    pub fn revoke_tokens(&self, refresh_tokens_too: bool) {
        let kind = (!refresh_tokens_too).then_some(world::TokenKind::AccessToken);
        self.with(|world| world.revoke_tokens(None, kind));
    }

    /// Adds or replaces a device.
    pub fn put_device(&self, device: Device) {
        self.with(|world| world.put_device(device));
    }

    /// Changes the scenario: switches, domains, users, products, families. Devices and faults have left it.
    pub fn change(&self, change: impl FnOnce(&mut Scenario)) {
        self.with(|world| change(&mut world.scenario));
    }

    /// Changes bindings from outside, for instance to make a drift.
    pub fn change_bindings(&self, change: impl FnOnce(&mut Vec<Binding>)) {
        self.with(|world| change(&mut world.bindings));
    }

    /// What is bound.
    pub fn bindings(&self) -> Vec<Binding> {
        self.with(|world| world.bindings.clone())
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.with(|world| world.counters.clone())
    }

    /// What goes on at its door.
    pub fn traffic(&self) -> watch::Receiver<Traffic> {
        self.with(|world| world.traffic.subscribe())
    }

    /// Every token, near-field key and reported code that it has given out or holds: what must be in no log.
    pub fn secrets(&self) -> Vec<String> {
        self.with(|world| {
            let keys = world.bindings.iter().map(|row| row.auth_key.clone());
            let codes = world.devices.values().filter_map(|device| device.facts.binding_code.clone());
            world.tokens.keys().cloned().chain(keys).chain(codes).collect()
        })
    }

    /// Counts a request and takes the fault that waits for it.
    fn begin(&self, route: &Route, call: &Call) -> Option<Fault> {
        self.with(|world| {
            if !route.is_vendor() {
                return None;
            }
            world.traffic.send_modify(|traffic| {
                traffic.begun += 1;
                traffic.under_way += 1;
            });
            *world.counters.requests.entry(route.endpoint().to_owned()).or_default() += 1;
            let fault = world.take_fault(route.endpoint()).or_else(|| storm::strike(world, route, call));
            world.counters.faults += u64::from(fault.is_some());
            fault
        })
    }

    /// Nothing more comes of the request.
    fn end(&self, route: &Route) {
        if route.is_vendor() {
            self.with(|world| world.traffic.send_modify(|traffic| traffic.under_way -= 1));
        }
    }

    /// One request, fault included; a delay is the caller's.
    fn act(&self, route: &Route, call: &Call, fault: Option<&Fault>) -> Reply {
        self.with(|world| match fault {
            None | Some(Fault { kind: FaultKind::Delay { .. }, .. }) => world.run(route, call),
            Some(fault) => {
                if fault.after_commit {
                    world.run(route, call);
                }
                world.reply_of_fault(&fault.kind)
            }
        })
    }
}

/// What goes out.
enum Reply {
    Answer(StatusCode, Vec<u8>),
    Page(Response),
    Cut,
}

impl World {
    fn run(&mut self, route: &Route, call: &Call) -> Reply {
        match (route.handle)(self, call) {
            Ok(data) => self.success(data),
            Err(refusal) => self.refusal(&refusal),
        }
    }

    fn success(&self, data: Value) -> Reply {
        let code = if self.switches().success_code_zero { 0 } else { 200 };
        let body = match (data, self.switches().empty_data) {
            (Value::Null, EmptyData::Absent) => json!({ "code": code, "msg": "" }),
            (data, _) => json!({ "code": code, "msg": "", "data": data, "extMsg": "" }),
        };
        Reply::Answer(StatusCode::OK, body.to_string().into_bytes())
    }

    fn refusal(&self, refusal: &Refusal) -> Reply {
        let status = StatusCode::from_u16(self.switches().error_status).unwrap_or(StatusCode::OK);
        let body = match self.switches().empty_data {
            EmptyData::Null => json!({ "code": refusal.code, "msg": refusal.message, "data": null, "extMsg": null }),
            EmptyData::Absent => json!({ "code": refusal.code, "msg": refusal.message }),
        };
        Reply::Answer(status, body.to_string().into_bytes())
    }

    fn reply_of_fault(&self, kind: &FaultKind) -> Reply {
        match kind {
            FaultKind::Code { code: 200 } => self.success(Value::Null),
            FaultKind::Code { code } => self.refusal(&(*code).into()),
            FaultKind::Http { status } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Reply::Answer(status, b"<html>out of order</html>".to_vec())
            }
            FaultKind::Page { status, headers, body } => {
                let page = Response::builder().status(*status);
                let page = headers.iter().fold(page, |page, (name, value)| page.header(name, value));
                let unsendable = |_| StatusCode::INTERNAL_SERVER_ERROR.into_response();
                Reply::Page(page.body(Body::from(body.clone())).unwrap_or_else(unsendable))
            }
            FaultKind::Garbage | FaultKind::Delay { .. } => Reply::Answer(StatusCode::OK, b"{\"code\":2".to_vec()),
            FaultKind::Drop => Reply::Cut,
        }
    }
}

async fn answer(
    State(cloud): State<SimCloud>,
    ConnectInfo(connection): ConnectInfo<ConnectionSwitch>,
    request: Request,
) -> Response {
    if request.uri().path() == "/openapi.json" {
        return respond(StatusCode::OK, routes::openapi().to_string().into_bytes());
    }
    let found = |route: &&Route| route.path == request.uri().path() && route.method == request.method().as_str();
    let Some(route) = ROUTES.iter().find(found) else {
        return respond(StatusCode::NOT_FOUND, b"{\"error\":\"no such endpoint\"}".to_vec());
    };
    let Some(call) = read(request).await else {
        return respond(
            StatusCode::BAD_REQUEST,
            json!({ "code": 5000, "msg": "JSON parse error" }).to_string().into_bytes(),
        );
    };
    // A task of its own: a client that hangs up does not undo what the service has begun.
    let work = tokio::spawn(async move {
        let fault = cloud.begin(route, &call);
        let delay = match &fault {
            Some(Fault { kind: FaultKind::Delay { delay_ms }, after_commit, .. }) => {
                Some((Duration::from_millis(*delay_ms), *after_commit))
            }
            _ => None,
        };
        if let Some((delay, false)) = delay {
            tokio::time::sleep(delay).await;
        }
        let reply = cloud.act(route, &call, fault.as_ref());
        if let Some((delay, true)) = delay {
            tokio::time::sleep(delay).await;
        }
        cloud.end(route);
        reply
    });
    match work.await {
        Ok(Reply::Answer(status, body)) => respond(status, body),
        Ok(Reply::Page(page)) => page,
        Ok(Reply::Cut) | Err(_) => {
            connection.cut();
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Reads query, form or JSON body, and token; `None` for a body that is neither.
async fn read(request: Request) -> Option<Call> {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, MAX_BODY_BYTES).await.ok()?;
    let text = |headers: &HeaderMap, name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let content_type = text(&parts.headers, header::CONTENT_TYPE).unwrap_or_default();
    let token = text(&parts.headers, header::AUTHORIZATION);
    let query = parts.uri.query().unwrap_or_default();
    if content_type.starts_with("application/x-www-form-urlencoded") {
        return Some(Call::new(query, Some(std::str::from_utf8(&bytes).ok()?), Value::Null, token));
    }
    let json = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).ok()? };
    Some(Call::new(query, None, json, token))
}

fn respond(status: StatusCode, body: Vec<u8>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json;charset=UTF-8")];
    (status, headers, Body::from(body)).into_response()
}
