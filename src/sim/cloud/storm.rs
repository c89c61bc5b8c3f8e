//! A service in a bad hour: each request may meet a fault of cloud-contract 7, drawn from a seed.
//!
//! Which fault a request meets follows from the seed, the endpoint, the device, and how many requests the two had
//! before, so that requests that race each other do not change it. Faults that are queued go first.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::fault::{Fault, FaultKind};
use super::routes::{Call, Route};
use super::world::{TokenKind, World};

/// Codes that may hide a success: they come before the effect and after it.
const AMBIGUOUS: &[i64] = &[0, 5000, 5048, 5049, 5412, 5460, 5461, 5462, 5884];
/// Codes of a bind that has certainly not happened, and may happen later.
const PASSING: &[i64] = &[5009, 5032, 5229, 5314, 5465];
/// The service answers late, but it answers.
const LATE_MS: std::ops::Range<u64> = 1..30;
/// The service answers when nobody waits any more, if the caller's patience is half a second.
const TOO_LATE_MS: u64 = 750;

/// A storm from the start of the simulated service on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// Where the faults come from.
    pub seed: u64,
    /// How long it lasts, by the service's clock.
    #[serde(default = "two_minutes")]
    pub seconds: i64,
    /// How many of a hundred requests meet a fault.
    #[serde(default = "forty")]
    pub percent: u8,
}

/// How many requests there were, by endpoint and device.
pub(super) type Requests = HashMap<(&'static str, String), u64>;

/// What the storm does to this request; it may also take everybody's tokens.
pub(super) fn strike(world: &mut World, route: &Route, call: &Call) -> Option<Fault> {
    let storm = world.scenario.storm.clone()?;
    let device = device_of(call).to_owned();
    let request = world.storm_requests.entry((route.path, device.clone())).or_default();
    *request += 1;
    let mut hasher = DefaultHasher::new();
    (storm.seed, route.path, device, *request).hash(&mut hasher);
    if world.now().duration_since(world.started_at).as_secs() >= storm.seconds {
        return None;
    }
    let mut random = StdRng::seed_from_u64(hasher.finish());
    if random.random_range(0..200) == 0 {
        let kind = random.random::<bool>().then_some(TokenKind::AccessToken);
        world.revoke_tokens(None, kind);
    }
    if random.random_range(0..100) >= storm.percent {
        return None;
    }
    let (kind, after_commit) = draw(&mut random, route.endpoint());
    Some(Fault { endpoint: route.endpoint().to_owned(), kind, after_commit, times: 1 })
}

fn draw(random: &mut StdRng, endpoint: &str) -> (FaultKind, bool) {
    let either_side = random.random();
    let http = |status| FaultKind::Http { status };
    match (random.random_range(0..12), codes_of(endpoint)) {
        (0, _) => (FaultKind::Drop, false),
        (1 | 2, _) => (FaultKind::Drop, true),
        (3, _) => (http(500), either_side),
        (4, _) => (http(503), either_side),
        (5, _) => (FaultKind::Garbage, either_side),
        (6, _) if random.random_range(0..10) == 0 => (FaultKind::Delay { delay_ms: TOO_LATE_MS }, either_side),
        (7, Some(_)) => (http(429), false),
        (8 | 9, Some((ambiguous, _))) => (code(random, ambiguous), either_side),
        (10, Some((ambiguous, []))) => (code(random, ambiguous), false),
        (10, Some((_, passing))) => (code(random, passing), false),
        _ => (FaultKind::Delay { delay_ms: random.random_range(LATE_MS) }, either_side),
    }
}

fn code(random: &mut StdRng, codes: &[i64]) -> FaultKind {
    FaultKind::Code { code: codes[random.random_range(0..codes.len())] }
}

/// Codes that may come before or after the effect, and those that come before only. None for a sign-in: each of its codes
/// means that the account is locked, or will be.
fn codes_of(endpoint: &str) -> Option<(&'static [i64], &'static [i64])> {
    match endpoint {
        "emailPwdLogin" => None,
        "deviceBindingByWifi" => Some((AMBIGUOUS, PASSING)),
        "unbundlingDeviceDk" => Some((&[0, 5000, 5050], &[5032])),
        "setDeviceInfo" => Some((&[0, 5000, 5054], &[5032, 5041])),
        _ => Some((&[0, 5000], &[5032])),
    }
}

/// The device key, wherever the endpoint has it.
fn device_of(call: &Call) -> &str {
    let body = call.body();
    let in_body = || body.get("deviceKey").or_else(|| body.get(0)?.get("dk"))?.as_str();
    call.param("dk").or_else(in_body).unwrap_or_default()
}

fn two_minutes() -> i64 {
    120
}

fn forty() -> u8 {
    40
}
