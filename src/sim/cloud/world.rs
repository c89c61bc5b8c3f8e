//! The simulated cloud's state and its rules of access. No I/O; time is the machine's plus what was advanced.

use std::collections::{BTreeMap, HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::fault::Fault;
use super::scenario::{Device, Family, Product, Scenario, Switches, User};
use super::storm::Requests;
use crate::bind::codes;

/// Product key and device key.
pub(super) type DeviceId = (String, String);

/// A refusal: body code and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: i64,
    pub(super) message: String,
}

impl From<i64> for Refusal {
    fn from(code: i64) -> Self {
        let message = codes::lookup(code).map_or("", |row| row.message).to_owned();
        Self { code, message }
    }
}

/// Access or refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    AccessToken,
    RefreshToken,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) email: String,
    pub(super) kind: TokenKind,
    pub(super) expires_at: Timestamp,
    pub(super) revoked: bool,
}

/// A device with the code it has reported.
#[derive(Debug, Clone)]
pub(super) struct DeviceState {
    pub(super) facts: Device,
    pub(super) code_expires_at: Option<Timestamp>,
}

/// A binding: an account has a device.
#[derive(Debug, Clone, Serialize)]
pub struct Binding {
    pub email: String,
    pub domain: String,
    pub product_key: String,
    pub device_key: String,
    pub device_name: String,
    pub family_id: Option<String>,
    pub room_id: Option<String>,
    /// `capabilitiesBitmask` as it was sent.
    pub capabilities_bitmask: Option<i64>,
    /// `isMatter` as it was sent.
    pub is_matter: bool,
    /// `matterInfo` as it is stored.
    pub matter_info: Value,
    #[serde(skip)]
    pub(super) auth_key: String,
}

/// Failed sign-ins of an account.
#[derive(Debug, Clone, Default)]
pub(super) struct Lock {
    pub(super) failures: u32,
    pub(super) until: Option<Timestamp>,
}

/// What was counted, for tests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Requests to the vendor's endpoints, by the last part of the path.
    pub requests: BTreeMap<String, u64>,
    /// TCP connections that were accepted.
    pub connections: u64,
    /// Sign-ins that gave tokens.
    pub logins: u64,
    /// Refreshes that gave tokens.
    pub refreshes: u64,
    /// Faults that struck, queued and of a storm.
    pub faults: u64,
    /// Binds that took effect, by `product key/device key`.
    pub commits: BTreeMap<String, u64>,
    /// Unbinds that took effect, likewise.
    pub unbinds: BTreeMap<String, u64>,
}

/// What goes on at the service's door, for tests that wait until it is quiet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests to the vendor's endpoints so far.
    pub begun: u64,
    /// Those that are being worked on, whether or not their callers still wait.
    pub under_way: u64,
    /// Open TCP connections.
    pub connections: u64,
}

/// Everything the simulated cloud knows.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) offset: SignedDuration,
    pub(super) locks: HashMap<String, Lock>,
    pub(super) tokens: HashMap<String, Token>,
    pub(super) devices: BTreeMap<DeviceId, DeviceState>,
    pub(super) bindings: Vec<Binding>,
    pub(super) faults: VecDeque<Fault>,
    pub(super) counters: Counters,
    pub(super) next_id: u64,
    pub(super) started_at: Timestamp,
    pub(super) storm_requests: Requests,
    pub(super) traffic: watch::Sender<Traffic>,
}

impl World {
    pub(super) fn new(mut scenario: Scenario) -> Self {
        let faults = std::mem::take(&mut scenario.faults).into();
        let devices = std::mem::take(&mut scenario.devices);
        let mut world = Self {
            scenario,
            offset: SignedDuration::ZERO,
            locks: HashMap::new(),
            tokens: HashMap::new(),
            devices: BTreeMap::new(),
            bindings: Vec::new(),
            faults,
            counters: Counters::default(),
            next_id: 1,
            started_at: Timestamp::now(),
            storm_requests: Requests::new(),
            traffic: watch::Sender::default(),
        };
        for device in devices {
            world.put_device(device);
        }
        world
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::now() + self.offset
    }

    pub(super) fn switches(&self) -> &Switches {
        &self.scenario.switches
    }

    pub(super) fn put_device(&mut self, facts: Device) {
        let code_expires_at = facts.code_seconds.map(|seconds| self.now() + SignedDuration::from_secs(seconds));
        let id = (facts.product_key.clone(), facts.device_key.clone());
        self.devices.insert(id, DeviceState { facts, code_expires_at });
    }

    pub(super) fn user(&self, email: &str) -> Option<&User> {
        self.scenario.users.iter().find(|user| user.email == email)
    }

    pub(super) fn product(&self, key: &str) -> Option<&Product> {
        self.scenario.products.iter().find(|product| product.key == key)
    }

    pub(super) fn family(&self, email: &str, id: &str) -> Option<&Family> {
        self.scenario.families.iter().find(|family| family.id == id && family.email == email)
    }

    pub(super) fn binding(&self, email: &str, pk: &str, dk: &str) -> Option<&Binding> {
        self.bindings.iter().find(|row| row.email == email && row.product_key == pk && row.device_key == dk)
    }

    pub(super) fn binding_mut(&mut self, email: &str, pk: &str, dk: &str) -> Option<&mut Binding> {
        self.bindings.iter_mut().find(|row| row.email == email && row.product_key == pk && row.device_key == dk)
    }

    pub(super) fn fresh_id(&mut self, prefix: &str) -> String {
        self.next_id += 1;
        format!("{prefix}{}", self.next_id)
    }

    /// Step 1 of the check table: who is calling.
    pub(super) fn caller(&self, header: Option<&str>) -> Result<User, Refusal> {
        let header = header.filter(|text| !text.trim().is_empty()).ok_or(codes::TOKEN_MISSING)?;
        let token = self.token(header, TokenKind::AccessToken).ok_or(codes::TOKEN_INVALID)?;
        Ok(self.user(&token.email).ok_or(codes::TOKEN_INVALID)?.clone())
    }

    /// A token of that kind that is good now.
    pub(super) fn token(&self, text: &str, kind: TokenKind) -> Option<&Token> {
        let token = self.tokens.get(text)?;
        (token.kind == kind && !token.revoked && token.expires_at > self.now()).then_some(token)
    }

    /// Issues a pair, as `data` of sign-in and refresh.
    pub(super) fn issue_tokens(&mut self, email: &str) -> Value {
        let access = self.issue(email, TokenKind::AccessToken, self.scenario.access_token_seconds);
        let refresh = self.issue(email, TokenKind::RefreshToken, self.scenario.refresh_token_seconds);
        json!({ "accessToken": access, "refreshToken": refresh })
    }

    fn issue(&mut self, email: &str, kind: TokenKind, seconds: i64) -> Value {
        let now = self.now();
        let expires_at = now + SignedDuration::from_secs(seconds);
        let (iat, exp) = (now.as_second(), expires_at.as_second());
        let claims = json!({
            "iss": "enduser", "uid": email, "type": format!("{kind:?}"), "iat": iat, "nbf": iat - 120, "exp": exp
        });
        // The signature is random and looked up: nobody but the simulator ever checks it.
        let parts = [
            br#"{"alg":"none-but-looked-up"}"#.to_vec(),
            claims.to_string().into_bytes(),
            rand::random::<[u8; 24]>().to_vec(),
        ];
        let text = format!("Bearer {}", parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join("."));
        self.tokens.insert(text.clone(), Token { email: email.to_owned(), kind, expires_at, revoked: false });
        json!({ "token": text, "expirationTime": exp })
    }

    /// Makes tokens worthless: of one account, or of all.
    pub(super) fn revoke_tokens(&mut self, email: Option<&str>, kind: Option<TokenKind>) {
        for token in self.tokens.values_mut() {
            if email.is_none_or(|email| token.email == email) && kind.is_none_or(|kind| token.kind == kind) {
                token.revoked = true;
            }
        }
    }

    /// The fault that waits for this endpoint, if any, used up by one.
    pub(super) fn take_fault(&mut self, endpoint: &str) -> Option<Fault> {
        let index = self.faults.iter().position(|fault| fault.endpoint == "*" || fault.endpoint == endpoint)?;
        let fault = self.faults[index].clone();
        if fault.times > 1 {
            self.faults[index].times -= 1;
        } else {
            self.faults.remove(index);
        }
        Some(fault)
    }
}
