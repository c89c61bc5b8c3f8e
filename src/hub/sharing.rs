//! A window in which another administrator commissions one of our nodes, with a code that is made for it. Every call has a
//! deadline. Not here: finding and opening the node (`reach`), our own invitations to controllers (`controllers`).

use std::future::Future;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rs_matter::BasicCommData;
use rs_matter::pairing::DiscoveryCapabilities;
use rs_matter::pairing::qr::{CommFlowType, QrPayload, no_optional_data};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Hub;
use super::reach::device_error;
use super::refusal::Refusal;
use super::world::World;
use crate::commissioning::error::Disposition;
use crate::commissioning::ports::{LinkError, OperationalSession};
use crate::journal::{Event, EventSink, Level};
use crate::node::{NodeId, NodeRecord};
use crate::onboarding::{MAX_DISCRIMINATOR, check_passcode};
use crate::secret::Passcode;
use crate::store::JournalFilter;

/// The kind of the admin log's entry of a window that was opened, and its field.
const SHARED: &str = "node-shared";
const UNTIL: &str = "until";
/// Busy of Administrator Commissioning's StatusCodeEnum (Matter Core 11.19.6.1).
const WINDOW_OPEN: u16 = 2;

/// Lets other administrators in, and shuts the door again.
pub trait SharingDoor: Send + Sync + 'static {
    /// Opens a commissioning window for `seconds`, 180 to 900.
    fn share(&self, node: NodeId, seconds: u16) -> impl Future<Output = Result<ShareResult, Refusal>> + Send;
    /// Closes the window that is open, whoever opened it.
    fn close_window(&self, node: NodeId) -> impl Future<Output = Result<CloseResult, Refusal>> + Send;
}

/// `node share --close`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloseResult {
    /// The node that was asked.
    pub node_id: NodeId,
    /// False where no window was open.
    pub closed: bool,
}

/// `node share`: a window is open, and this opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareResult {
    /// The node that was asked.
    pub node_id: NodeId,
    /// The manual pairing code of the window: 11 digits.
    pub manual_code: String,
    /// `MT:…`
    pub qr_payload: String,
    /// Discriminator of the window.
    pub discriminator: u16,
    /// When the window closes by itself.
    pub expires_at: Timestamp,
}

impl<W: World> SharingDoor for Hub<W> {
    async fn close_window(&self, node: NodeId) -> Result<CloseResult, Refusal> {
        let record = self.record(node).await?;
        let close = async { self.meet(&record).await?.close_window().await };
        let closed = self.within(&record, close).await.map_err(|error| device_error(&error))?;
        if closed {
            let event = Event::new(Timestamp::now(), Level::Info, "window-closed", "commissioning window closed");
            self.journal.record(event.with_node(node));
        }
        Ok(CloseResult { node_id: node, closed })
    }

    async fn share(&self, node: NodeId, seconds: u16) -> Result<ShareResult, Refusal> {
        let record = self.record(node).await?;
        let (passcode, discriminator) = fresh_window();
        let secret = Passcode::new(passcode);
        let open = async {
            let window = Duration::from_secs(u64::from(seconds));
            self.meet(&record).await?.open_window(window, discriminator, &secret).await
        };
        match self.within(&record, open).await {
            Ok(()) => {}
            Err(LinkError::Status { cluster: Some(WINDOW_OPEN), .. }) => return Err(self.window_open(node).await),
            Err(error) => return Err(device_error(&error)),
        }
        let expires_at = Timestamp::now() + SignedDuration::from_secs(i64::from(seconds));
        let message = format!("commissioning window open until {expires_at:.0}");
        let event = Event::new(Timestamp::now(), Level::Info, SHARED, message);
        self.journal.record(event.with_node(node).with(UNTIL, expires_at.to_string()));
        let (manual_code, qr_payload) = codes(passcode, discriminator, &record)
            .ok_or_else(|| internal("the onboarding codes could not be written"))?;
        Ok(ShareResult { node_id: node, manual_code, qr_payload, discriminator, expires_at })
    }
}

impl<W: World> Hub<W> {
    /// A window is open already. Until when is in the admin log, where it was us who opened it.
    async fn window_open(&self, node: NodeId) -> Refusal {
        let now = Timestamp::now();
        let filter = JournalFilter {
            since: Some(now - SignedDuration::from_mins(15)),
            node: Some(node),
            ..JournalFilter::default()
        };
        let entries = self.journal.query(filter).await.unwrap_or_default();
        let opened = entries.iter().rev().find(|entry| entry.kind == SHARED);
        let until = opened.and_then(|entry| entry.fields.get(UNTIL)?.as_str()?.parse::<Timestamp>().ok());
        let until = match until.filter(|until| *until > now) {
            Some(until) => format!("until {until:.0}"),
            None => "by another administrator, for 15 minutes at most".to_owned(),
        };
        let message = format!("a window of node {node} is open already {until}");
        let hint = format!("use its code, or close it with `matterbind node share {node} --close`");
        Refusal::new("window-open", Disposition::UserAction, message, hint)
    }
}

/// A passcode and a discriminator for an enhanced window (Matter Core 5.1.7, 11.19.8.1).
fn fresh_window() -> (u32, u16) {
    let passcode = std::iter::repeat_with(|| rand::random_range(1..=99_999_998))
        .find(|passcode| check_passcode(*passcode).is_ok())
        .expect("nearly every number of the range is a passcode");
    (passcode, rand::random_range(0..=MAX_DISCRIMINATOR))
}

fn codes(passcode: u32, discriminator: u16, record: &NodeRecord) -> Option<(String, String)> {
    let data = BasicCommData { password: passcode.to_le_bytes().into(), discriminator };
    let manual = data.compute_pairing_code().to_string();
    let qr = QrPayload::new(
        DiscoveryCapabilities::IP,
        CommFlowType::Standard,
        data,
        record.vendor_id,
        record.product_id,
        "",
        no_optional_data,
    );
    let mut buffer = [0; 256];
    let (text, _) = qr.as_str(&mut buffer).ok()?;
    Some((manual, text.to_owned()))
}

fn internal(message: &str) -> Refusal {
    Refusal::new("internal", Disposition::Bug, message, "`matterbind logs` has the details; report it")
}
