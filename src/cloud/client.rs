//! The calls of the binding service (cloud-contract 3.2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::health::{CloudHealth, HealthCell};
use super::look::{self, Look};
use super::session::{Renewal, Session};
use super::tokens::TokenStore;
use super::transport::{Meter, Transport, Unmetered};
use super::wire::{BindBody, BoundData, MoveBody, PageData, RecordData};
use crate::bind::{BindReceipt, BindRequest, CloudDevice, CloudRecord, codes};
use crate::config::CloudConfig;
use crate::node::FabricId;
use crate::outbox::ports::{BindApi, BindPreview, CloudError};
use crate::tls::Now;

const BIND: &str = "/v2/binding/enduserapi/v2/deviceBindingByWifi";
const PREVIEW: &str = "/v2/binding/enduserapi/getDeviceInfoByBinding";
const DEVICE_INFO: &str = "/v2/binding/enduserapi/deviceInfo";
pub(super) const DEVICE_LIST: &str = "/v2/binding/enduserapi/userDeviceList";
const UNBIND: &str = "/v2/binding/enduserapi/unbundlingDeviceDk";
const RENAME: &str = "/v2/binding/enduserapi/setDeviceInfo";
const MOVE: &str = "/v2/family/enduserapi/setDeviceInfo";
/// Records per page; the documents show 10 and name no limit.
const PAGE_SIZE: usize = 50;
/// Records that are completed side by side.
const AT_ONCE: usize = 8;
/// More than these that nobody asked for are not on a hub's fabric, whatever a list says.
const MAX_UNKNOWN: usize = 4096;
/// A list that does not end by then never will.
const MAX_PAGES: usize = 4000;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// `cloud.base_url` is no URL.
    #[error("cloud.base_url is no URL")]
    BaseUrl {
        #[source]
        source: <reqwest::Url as std::str::FromStr>::Err,
    },
    /// `cloud.base_url` is a URL of something else.
    #[error("cloud.base_url must start with https:// (or http://, for tests), not with {scheme}:")]
    NotHttp {
        /// What it starts with.
        scheme: String,
    },
}

/// The binding service. Cheap to share behind an `Arc`; calls may run side by side.
pub struct Client<T> {
    transport: Arc<Transport>,
    session: Session<T>,
    health: Arc<HealthCell>,
}

impl<T: TokenStore> Client<T> {
    /// Makes the client; nothing is sent before the first call. A machine without a trust store is a state of the cloud,
    /// which may pass.
    pub fn new(config: &CloudConfig, store: T) -> Result<Self, BuildError> {
        Self::metered(config, store, Arc::new(Unmetered), Arc::new(Timestamp::now))
    }

    /// The same; each request is told to `meter`, and certificates are judged by `now`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn metered(config: &CloudConfig, store: T, meter: Arc<dyn Meter>, now: Now) -> Result<Self, BuildError> {
        let health = Arc::new(HealthCell::default());
        let transport = Arc::new(Transport::new(&config.base_url, config.timeout, health.clone(), meter, now)?);
        let session = Session::new(config, transport.clone(), store, health.clone());
        Ok(Self { transport, session, health })
    }

    /// What the client last saw of the cloud.
    pub fn health(&self) -> CloudHealth {
        self.health.read()
    }

    /// What time it is by the service, if it said so lately and its certificate was checked.
    pub fn service_time(&self) -> Option<Timestamp> {
        self.transport.service_time()
    }

    /// The way to the service, step by step.
    pub async fn look(&self) -> Look {
        look::along(&self.transport).await
    }

    /// Lets the next call go although the cloud asked for patience, and sign in although it refused before: for
    /// `outbox retry`, when an operator asks.
    pub async fn forget_refusals(&self) {
        self.transport.forget_patience();
        self.session.forget_block().await;
    }

    /// The record of one device by `deviceInfo`; a device that our account does not have is 5052.
    pub async fn device_info(&self, device: &CloudDevice) -> Result<CloudRecord, CloudError> {
        let data = self.call("deviceInfo", || self.get(DEVICE_INFO).query(&keys(device))).await?;
        serde_json::from_value::<RecordData>(data)
            .ok()
            .and_then(RecordData::into_record)
            .filter(|record| record.device == *device)
            .ok_or_else(|| unreadable("the answer holds no record of the device"))
    }

    /// Asks `deviceInfo` for the Matter ids of a Matter device that the list showed without them.
    async fn complete(&self, record: CloudRecord, bare: bool) -> Result<CloudRecord, CloudError> {
        if !(bare && record.is_matter) {
            return Ok(record);
        }
        match self.device_info(&record.device).await {
            // Unbound since the list was made; the next look will show it.
            Err(CloudError::Code { code: codes::NOT_BOUND, .. }) => Ok(record),
            outcome => outcome,
        }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.transport.request(Method::GET, path)
    }

    /// One call: with a token, replayed once after a refresh and once after a sign-in where the token is refused.
    async fn call(&self, name: &'static str, build: impl Fn() -> RequestBuilder) -> Result<Value, CloudError> {
        let outcome = self.call_with_renewals(name, build).await;
        match &outcome {
            Ok(_) => self.health.update(|health| health.last_error = None),
            Err(error) => self.health.failed(error),
        }
        outcome
    }

    async fn call_with_renewals(
        &self,
        name: &'static str,
        build: impl Fn() -> RequestBuilder,
    ) -> Result<Value, CloudError> {
        let mut lease = self.session.lease().await?;
        let mut next = Some(Renewal::Refresh);
        loop {
            let request = build().header(AUTHORIZATION, header(lease.token.expose())?);
            let outcome = self.transport.send(name, request).await;
            let (Err(error), Some(by)) = (&outcome, next) else { return outcome };
            if !refuses_the_token(error) {
                return outcome;
            }
            let (renewed, how) = self.session.renew(&lease, by).await?;
            lease = renewed;
            next = (how == Renewal::Refresh).then_some(Renewal::SignIn);
        }
    }

    async fn page(&self, query: &[(&str, &str)], page: usize) -> Result<PageData, CloudError> {
        let (page, size) = (page.to_string(), PAGE_SIZE.to_string());
        let build = || self.get(DEVICE_LIST).query(query).query(&[("page", &page), ("pageSize", &size)]);
        let data = self.call("userDeviceList", build).await?;
        if !data.is_object() {
            return Err(unreadable("the device list is no page"));
        }
        serde_json::from_value(data).map_err(|_| unreadable("the device list is no page"))
    }

    /// Walks through the pages of `userDeviceList` and keeps what `keep` says, until there is `enough`; `true` with records
    /// that came without `matterInfo`.
    async fn walk(
        &self,
        query: &[(&str, &str)],
        keep: impl Fn(&CloudRecord) -> bool + Send,
        enough: usize,
    ) -> Result<Vec<(CloudRecord, bool)>, CloudError> {
        let mut kept: BTreeMap<CloudDevice, (CloudRecord, bool)> = BTreeMap::new();
        let mut before: Option<CloudDevice> = None;
        let mut seen = 0;
        for number in 1..=MAX_PAGES {
            let page = self.page(query, number).await?;
            let Some(list) = page.list else { return Err(unreadable("the device list is no page")) };
            let length = list.len();
            seen += length;
            let mut first = None;
            for data in list {
                let bare = data.lacks_matter_info();
                let Some(record) = data.into_record() else { continue };
                first.get_or_insert_with(|| record.device.clone());
                if keep(&record) {
                    // A record can be on two pages when the list changes while it is read.
                    kept.entry(record.device.clone()).or_insert((record, bare));
                }
            }
            let by_total = page.total.and_then(|total| usize::try_from(total).ok()).map(|total| seen < total);
            let more = page.has_next_page.or(by_total).unwrap_or(length == PAGE_SIZE);
            // A service that does not know pages answers the same one again and again.
            if !more || length == 0 || kept.len() >= enough || first == before {
                return Ok(kept.into_values().collect());
            }
            before = first;
        }
        Err(unreadable("the device list does not end"))
    }

    /// Every device of our account, all pages.
    pub async fn list(&self) -> Result<Vec<CloudRecord>, CloudError> {
        self.completed(self.walk(&[], |_| true, usize::MAX).await?).await
    }

    async fn completed(&self, records: Vec<(CloudRecord, bool)>) -> Result<Vec<CloudRecord>, CloudError> {
        stream::iter(records).map(|(record, bare)| self.complete(record, bare)).buffered(AT_ONCE).try_collect().await
    }
}

impl<T: TokenStore> BindApi for Client<T> {
    async fn bind(&self, request: &BindRequest) -> Result<BindReceipt, CloudError> {
        let body = BindBody::new(request)?;
        let build = || self.transport.request(Method::POST, BIND).json(&body);
        let data = self.call("deviceBindingByWifi", build).await?;
        Ok(BoundData::read(data).into_receipt())
    }

    async fn find(&self, device: &CloudDevice) -> Result<Option<CloudRecord>, CloudError> {
        let query = [("dk", device.device_key.as_str()), ("pkList", device.product_key.as_str())];
        // The filter may be a search for a part of the key: only the very device counts.
        let found = self.walk(&query, |found| found.device == *device, 1).await?;
        Ok(self.completed(found).await?.pop())
    }

    async fn held(
        &self,
        wanted: &BTreeSet<CloudDevice>,
        fabric: Option<FabricId>,
    ) -> Result<Vec<CloudRecord>, CloudError> {
        let on_fabric = |found: &CloudRecord| {
            let shown = found.matter_info.as_ref().and_then(|info| info.fabric_id).map(FabricId);
            fabric.is_some() && shown == fabric
        };
        let enough = if fabric.is_some() { usize::MAX } else { wanted.len() };
        let unknown = AtomicUsize::new(0);
        let keep = |found: &CloudRecord| {
            wanted.contains(&found.device)
                || (on_fabric(found) && unknown.fetch_add(1, Ordering::Relaxed) < MAX_UNKNOWN)
        };
        let kept = self.walk(&[], keep, enough).await?;
        if unknown.load(Ordering::Relaxed) > MAX_UNKNOWN {
            tracing::warn!(
                most = MAX_UNKNOWN,
                "the cloud shows more devices on this fabric than a hub has; the rest is ignored"
            );
        }
        self.completed(kept).await
    }

    async fn unbind(&self, device: &CloudDevice) -> Result<(), CloudError> {
        let build = || self.transport.request(Method::DELETE, UNBIND).query(&keys(device));
        match self.call("unbundlingDeviceDk", build).await {
            Ok(_) | Err(CloudError::Code { code: codes::NOT_BOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn rename(&self, device: &CloudDevice, name: &str) -> Result<(), CloudError> {
        let build = || self.transport.request(Method::PUT, RENAME).query(&keys(device)).query(&[("deviceName", name)]);
        self.call("setDeviceInfo", build).await.map(drop)
    }

    async fn move_room(
        &self,
        device: &CloudDevice,
        family_id: &str,
        old_room_id: Option<&str>,
        new_room_id: &str,
    ) -> Result<(), CloudError> {
        let body = [MoveBody {
            dk: &device.device_key,
            pk: &device.product_key,
            fid: family_id,
            old_frid: old_room_id,
            new_frid: new_room_id,
        }];
        let data = self.call("setDeviceInfo", || self.transport.request(Method::PUT, MOVE).json(&body)).await?;
        failure_in(&data).map_or(Ok(()), Err)
    }

    async fn preview(&self, device: &CloudDevice) -> Result<BindPreview, CloudError> {
        let data = self.call("getDeviceInfoByBinding", || self.get(PREVIEW).query(&keys(device))).await?;
        Ok(BoundData::read(data).into_preview())
    }
}

fn keys(device: &CloudDevice) -> [(&'static str, &str); 2] {
    [("dk", &device.device_key), ("pk", &device.product_key)]
}

/// By the service's code, or by a gateway that checks the token before it.
fn refuses_the_token(error: &CloudError) -> bool {
    match error {
        CloudError::Code { code, .. } => matches!(*code, codes::TOKEN_INVALID | codes::TOKEN_MISSING),
        CloudError::Foreign { answer, .. } => answer.status == 401,
        CloudError::NotSent { .. }
        | CloudError::Untrusted { .. }
        | CloudError::Ambiguous { .. }
        | CloudError::SignIn { .. } => false,
    }
}

fn unreadable(cause: &str) -> CloudError {
    CloudError::Ambiguous { cause: cause.to_owned() }
}

fn header(token: &str) -> Result<HeaderValue, CloudError> {
    let mut value = HeaderValue::from_str(token)
        .map_err(|_| CloudError::NotSent { cause: "the cloud's token cannot be sent in a header".to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Body code 200 can hide the failure of one item (cloud-contract 3.2).
fn failure_in(data: &Value) -> Option<CloudError> {
    let failure = data.get("failureList")?.as_array()?.first()?;
    let code = failure.get("code").and_then(Value::as_i64).unwrap_or(5054);
    let message = failure.get("msg").and_then(Value::as_str).unwrap_or("the device was not changed").to_owned();
    Some(CloudError::Code { code, message })
}
