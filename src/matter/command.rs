//! One Interaction Model transaction at a time on an open session, with every status looked at.
//!
//! rs-matter's generated commands without response data drop the status that the device answered; these do not. Not here:
//! what the fields mean (`matter::codec`), opening sessions (`matter::session`).

use std::rc::Rc;
use std::time::Duration;

use rs_matter::error::{Error, ErrorCode};
use rs_matter::im::client::{ImClient, InvokeSenderSlot, WriteSenderSlot};
use rs_matter::im::{AttrData, AttrPath, AttrResp, CmdResp, IM_REVISION, IMStatusCode, InvokeResp, OpCode};
use rs_matter::tlv::{FromTLV, TLVElement, TLVTag, TLVWrite};
use rs_matter::transport::exchange::Exchange;
use rs_matter::utils::storage::WriteBuf;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::commissioning::ports::{AttributePath, LinkError, NoAnswer};
use crate::matter::btp::Connection;
use crate::matter::session::Session;
use crate::matter::stack::Context;
use crate::node::Peer;

/// A backstop: callers have shorter deadlines of their own. MRP gives an unreachable peer up after about six seconds.
const TRANSACTION: Duration = Duration::from_secs(30);
/// The pauses before a busy device is asked again: 3.1 s in all, which the shortest step has.
const BUSY_PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];
/// How long a device keeps a timed interaction open for the command that follows (Matter Core 8.8).
const TIMED_MS: u16 = 10_000;

/// A command's address.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommandPath {
    pub endpoint: u16,
    pub cluster: u32,
    pub command: u32,
    /// Whether the cluster demands a timed interaction.
    pub timed: bool,
}

impl CommandPath {
    /// An untimed command of endpoint 0.
    pub(crate) fn root(cluster: u32, command: u32) -> Self {
        Self { endpoint: 0, cluster, command, timed: false }
    }
}

/// One attribute as it was reported. A list may come in several reports: first the beginning, then item by item.
pub(super) struct AttributeReport<'a> {
    pub endpoint: u16,
    pub cluster: u32,
    pub attribute: u32,
    /// Whether this is one more item of a list.
    pub is_item: bool,
    pub data: TLVElement<'a>,
}

impl Session {
    /// Sends one command; `fields` writes its fields, `parse` reads the response's, or `None` where the device answered
    /// with the status Success alone. `fields` may be called again when the message is sent again.
    pub(super) async fn invoke<T: Send + 'static>(
        &self,
        path: CommandPath,
        fields: impl Fn(&mut InvokeSenderSlot<'static>) -> Result<(), Error> + Send + 'static,
        parse: impl Fn(Option<&TLVElement<'_>>) -> Result<T, LinkError> + Send + 'static,
    ) -> Result<T, LinkError> {
        self.transact(async move |exchange, peer| invoke(exchange, peer, path, &fields, &parse).await).await
    }

    /// The same for a command that a device may take long for: rs-matter waits for an answer over Bluetooth for five seconds, so
    /// here it is waited for again until `limit`.
    pub(super) async fn invoke_slowly<T: Send + 'static>(
        &self,
        path: CommandPath,
        limit: Duration,
        fields: impl Fn(&mut WriteBuf<'_>) -> Result<(), Error> + Send + 'static,
        parse: impl Fn(Option<&TLVElement<'_>>) -> Result<T, LinkError> + Send + 'static,
    ) -> Result<T, LinkError> {
        let slowly = async move |exchange, peer| invoke_slowly(exchange, peer, path, &fields, &parse).await;
        self.transact_within(limit, slowly).await
    }

    /// Reads attributes; `report` gets each value. A status for one of the paths is given to `status`.
    pub(super) async fn read<T: Clone + Send + 'static>(
        &self,
        paths: Vec<AttrPath>,
        fabric_filtered: bool,
        start: T,
        report: impl Fn(&mut T, &AttributeReport<'_>) -> Result<(), LinkError> + Send + 'static,
        missing: Missing,
    ) -> Result<T, LinkError> {
        let read = async move |exchange, peer| {
            read(exchange, peer, &paths, fabric_filtered, start.clone(), &report, missing).await
        };
        self.transact(read).await
    }

    /// Writes one attribute, or appends one item to a list; `value` writes it with the tag it is given.
    pub(super) async fn write(
        &self,
        path: AttrPath,
        value: impl Fn(&mut WriteSenderSlot<'static>, &TLVTag) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), LinkError> {
        self.transact(async move |exchange, peer| write(exchange, peer, &path, &value).await).await
    }

    /// A device that is busy has done nothing, so that it is asked again: small devices answer so whenever two exchanges
    /// meet (Matter Core 8.10, BUSY; 4.11, the secure channel's own).
    async fn transact<F, T>(&self, transaction: F) -> Result<T, LinkError>
    where
        F: AsyncFn(Exchange<'static>, Peer) -> Result<T, LinkError> + Send + 'static,
        T: Send + 'static,
    {
        self.transact_within(TRANSACTION, transaction).await
    }

    /// The same with another limit. Where the Bluetooth link under the session ends, nobody waits for the answer.
    pub(super) async fn transact_within<F, T>(&self, limit: Duration, transaction: F) -> Result<T, LinkError>
    where
        F: AsyncFn(Exchange<'static>, Peer) -> Result<T, LinkError> + Send + 'static,
        T: Send + 'static,
    {
        let (id, peer) = (self.id, self.peer);
        let lost = self.bluetooth.as_ref().map(Connection::lost);
        let job = move |context: Rc<Context>| async move {
            let patiently = async {
                let mut pauses = BUSY_PAUSES.iter();
                loop {
                    let exchange = Exchange::initiate_for_session(context.matter, context.crypto, id)
                        .map_err(|error| link_error(&error, peer))?;
                    match (transaction(exchange, peer).await, pauses.next()) {
                        (Err(LinkError::Busy), Some(pause)) => sleep(*pause).await,
                        (result, _) => return result,
                    }
                }
            };
            tokio::select! {
                biased;
                result = patiently => result,
                () = lost_link(lost.as_ref()) => Err(LinkError::BluetoothLost),
                () = sleep(limit) => Err(unanswered(peer)),
            }
        };
        self.stack.run(job).await
    }
}

/// Comes back where there was a link, and it has ended.
async fn lost_link(lost: Option<&CancellationToken>) {
    match lost {
        Some(lost) => lost.cancelled().await,
        None => std::future::pending().await,
    }
}

/// What to do when the device has no such attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Go on without it.
    Tolerate,
    /// Give its status as the error.
    Refuse,
}

async fn invoke<T>(
    exchange: Exchange<'static>,
    peer: Peer,
    path: CommandPath,
    fields: &impl Fn(&mut InvokeSenderSlot<'static>) -> Result<(), Error>,
    parse: &impl Fn(Option<&TLVElement<'_>>) -> Result<T, LinkError>,
) -> Result<T, LinkError> {
    let failed = |error: Error| link_error(&error, peer);
    let chunk = exchange
        .invoke_with(path.timed.then_some(TIMED_MS), |request| {
            request
                .suppress_response(false)?
                .timed_request(path.timed)?
                .invoke_requests()?
                .push()?
                .path(path.endpoint, path.cluster, path.command)?
                .data(|writer| {
                    writer.start_struct(&TLVTag::Context(1))?;
                    fields(writer)?;
                    writer.end_container()
                })?
                .end()?
                .end()?
                .end()
        })
        .await
        .map_err(failed)?;
    let result = match chunk.response().map_err(failed)? {
        None => parse(None),
        Some(response) => invoke_response(&response, peer, parse),
    };
    // Gives rs-matter's one receive buffer back. The answer stands, whatever becomes of its acknowledgement.
    let _ = chunk.complete().await;
    result
}

fn invoke_response<T>(
    response: &InvokeResp<'_>,
    peer: Peer,
    parse: &impl Fn(Option<&TLVElement<'_>>) -> Result<T, LinkError>,
) -> Result<T, LinkError> {
    match response.invoke_responses.as_ref().and_then(|all| all.iter().next()) {
        Some(Ok(CmdResp::Cmd(command))) => parse(Some(&command.data)),
        Some(Ok(CmdResp::Status(answer))) => match answer.status.status {
            IMStatusCode::Success => parse(None),
            status => Err(status_error(status, answer.status.cluster_status)),
        },
        Some(Err(error)) => Err(link_error(&error, peer)),
        None => Err(LinkError::Malformed { what: "an InvokeResponse without a response".to_owned() }),
    }
}

/// See [`Session::invoke_slowly`]. rs-matter's client gives up with its first timeout, so the message is written here.
async fn invoke_slowly<T>(
    mut exchange: Exchange<'static>,
    peer: Peer,
    path: CommandPath,
    fields: &impl Fn(&mut WriteBuf<'_>) -> Result<(), Error>,
    parse: &impl Fn(Option<&TLVElement<'_>>) -> Result<T, LinkError>,
) -> Result<T, LinkError> {
    let failed = |error: Error| link_error(&error, peer);
    let request = |_: &Exchange<'_>, writer: &mut WriteBuf<'_>| {
        invoke_request(writer, path, fields)?;
        Ok(Some(OpCode::InvokeRequest.into()))
    };
    exchange.send_with(request).await.map_err(failed)?;
    loop {
        match exchange.recv_fetch().await {
            Ok(_) => break,
            Err(error) if error.code() == ErrorCode::RxTimeout => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let result = {
        let received = exchange.rx().map_err(failed)?;
        match InvokeResp::from_tlv(&TLVElement::new(received.payload())) {
            Ok(response) => invoke_response(&response, peer, parse),
            Err(error) => Err(failed(error)),
        }
    };
    // The answer stands, whatever becomes of its acknowledgement.
    let _ = exchange.acknowledge().await;
    result
}

/// InvokeRequestMessage with one command (Matter Core 10.7.9).
fn invoke_request(
    writer: &mut WriteBuf<'_>,
    path: CommandPath,
    fields: &impl Fn(&mut WriteBuf<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let tag = TLVTag::Context;
    writer.start_struct(&TLVTag::Anonymous)?;
    writer.bool(&tag(0), false)?;
    writer.bool(&tag(1), false)?;
    writer.start_array(&tag(2))?;
    writer.start_struct(&TLVTag::Anonymous)?;
    writer.start_list(&tag(0))?;
    writer.u16(&tag(0), path.endpoint)?;
    writer.u32(&tag(1), path.cluster)?;
    writer.u32(&tag(2), path.command)?;
    writer.end_container()?;
    writer.start_struct(&tag(1))?;
    fields(writer)?;
    writer.end_container()?;
    writer.end_container()?;
    writer.end_container()?;
    writer.u8(&tag(0xFF), IM_REVISION)?;
    writer.end_container()
}

async fn read<T>(
    exchange: Exchange<'static>,
    peer: Peer,
    paths: &[AttrPath],
    fabric_filtered: bool,
    mut value: T,
    report: &impl Fn(&mut T, &AttributeReport<'_>) -> Result<(), LinkError>,
    missing: Missing,
) -> Result<T, LinkError> {
    let failed = |error: Error| link_error(&error, peer);
    let mut chunk = exchange
        .read_with(|request| request.attr_requests_from(paths)?.fabric_filtered(fabric_filtered)?.end())
        .await
        .map_err(failed)?;
    let mut first_error = None;
    loop {
        {
            let response = chunk.response().map_err(failed)?;
            for answer in response.attr_reports.iter().flat_map(|reports| reports.iter()) {
                let outcome = match answer.map_err(failed)? {
                    AttrResp::Data(data) => report_of(&data).and_then(|data| report(&mut value, &data)),
                    AttrResp::Status(_) if missing == Missing::Tolerate => Ok(()),
                    AttrResp::Status(answer) => Err(status_error(answer.status.status, answer.status.cluster_status)),
                };
                first_error = first_error.or(outcome.err());
            }
        }
        match chunk.complete().await.map_err(failed)? {
            Some(next) => chunk = next,
            None => return first_error.map_or(Ok(value), Err),
        }
    }
}

fn report_of<'a>(data: &AttrData<'a>) -> Result<AttributeReport<'a>, LinkError> {
    match (data.path.endpoint, data.path.cluster, data.path.attr) {
        (Some(endpoint), Some(cluster), Some(attribute)) => {
            let is_item = data.path.list_index.is_some();
            Ok(AttributeReport { endpoint, cluster, attribute, is_item, data: data.data.clone() })
        }
        _ => Err(LinkError::Malformed { what: "an attribute report without a full path".to_owned() }),
    }
}

async fn write(
    exchange: Exchange<'static>,
    peer: Peer,
    path: &AttrPath,
    value: &impl Fn(&mut WriteSenderSlot<'static>, &TLVTag) -> Result<(), Error>,
) -> Result<(), LinkError> {
    let failed = |error: Error| link_error(&error, peer);
    let answer = exchange
        .write_with(None, |request| {
            request
                .suppress_response(false)?
                .timed_request(false)?
                .write_requests()?
                .push()?
                .path_from(path)?
                .data(|writer| value(writer, &TLVTag::Context(2)))?
                .end()?
                .end()?
                .end()
        })
        .await
        .map_err(failed)?;
    let response = answer.response().map_err(failed)?;
    let mut written = false;
    for one in response.write_responses.iter() {
        let status = one.map_err(failed)?.status;
        if status.status != IMStatusCode::Success {
            return Err(status_error(status.status, status.cluster_status));
        }
        written = true;
    }
    if written { Ok(()) } else { Err(LinkError::Malformed { what: "a WriteResponse without a status".to_owned() }) }
}

/// The path of one attribute.
pub(super) fn attribute(path: AttributePath) -> AttrPath {
    AttrPath { endpoint: Some(path.endpoint), ..every(path.cluster, Some(path.attribute)) }
}

/// An attribute (or all) of a cluster on every endpoint.
pub(super) fn every(cluster: u32, attribute: Option<u32>) -> AttrPath {
    AttrPath {
        tag_compression: None,
        node: None,
        endpoint: None,
        cluster: Some(cluster),
        attr: attribute,
        list_index: None,
    }
}

/// All attributes of a cluster on endpoint 0, or one.
pub(super) fn root(cluster: u32, attribute: Option<u32>) -> AttrPath {
    AttrPath { endpoint: Some(0), ..every(cluster, attribute) }
}

/// An Interaction Model status as the ports have it.
pub(super) fn status_error(status: IMStatusCode, cluster: Option<u16>) -> LinkError {
    match status {
        IMStatusCode::Busy => LinkError::Busy,
        status => LinkError::Status { status: status as u16, name: format!("{status:?}"), cluster },
    }
}

/// The peer of a session stopped answering.
pub(super) fn unanswered(peer: Peer) -> LinkError {
    LinkError::Unreachable { tried: vec![(peer, NoAnswer::Silent)] }
}

/// An rs-matter error as the ports have it. A device's StatusResponse arrives as one of these, too: rs-matter folds the
/// status into its own code.
pub(super) fn link_error(error: &Error, peer: Peer) -> LinkError {
    use ErrorCode as E;
    match error.code() {
        E::TxTimeout | E::RxTimeout => unanswered(peer),
        E::NoSession | E::NoExchange | E::InvalidPeerAddr => LinkError::SessionLost,
        // A status where a report was expected, for instance BUSY or RESOURCE_EXHAUSTED; which one, rs-matter does not say.
        E::Busy | E::InvalidOpcode => LinkError::Busy,
        E::Failure => status_error(IMStatusCode::Failure, None),
        E::InvalidAction => status_error(IMStatusCode::InvalidAction, None),
        E::InvalidCommand => status_error(IMStatusCode::InvalidCommand, None),
        E::CommandNotFound => status_error(IMStatusCode::UnsupportedCommand, None),
        E::AttributeNotFound => status_error(IMStatusCode::UnsupportedAttribute, None),
        E::ClusterNotFound => status_error(IMStatusCode::UnsupportedCluster, None),
        E::EndpointNotFound => status_error(IMStatusCode::UnsupportedEndpoint, None),
        E::UnsupportedAccess => status_error(IMStatusCode::UnsupportedAccess, None),
        E::ConstraintError => status_error(IMStatusCode::ConstraintError, None),
        E::ResourceExhausted => status_error(IMStatusCode::ResourceExhausted, None),
        E::FailSafeRequired => status_error(IMStatusCode::FailSafeRequired, None),
        E::NeedsTimedInteraction => status_error(IMStatusCode::NeedsTimedInteraction, None),
        E::DataVersionMismatch => status_error(IMStatusCode::DataVersionMismatch, None),
        E::NoSpaceSessions
        | E::NoSpaceExchanges
        | E::NoSpace
        | E::NoMemory
        | E::PacketPoolExhaust
        | E::StdIoError
        | E::NoNetworkInterface
        | E::InvalidState => LinkError::Stack { what: error.to_string() },
        code => LinkError::Malformed { what: format!("{code:?}") },
    }
}
