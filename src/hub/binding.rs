//! Binds a recorded node, or binds it anew under other keys: `node bind`. Not here: the calls and their repetition (`outbox`),
//! what of the old standing goes (`store::succession`).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Hub;
use super::bind::DeviceCodes;
use super::commission::write_binding_code;
use super::refusal::Refusal;
use super::world::World;
use crate::bind::{BindRequest, BindStatus, CloudDevice, MatterInfo, name_in_cloud};
use crate::commissioning::error::{CommissioningError, Disposition};
use crate::commissioning::identity::{GivenIdentity, Profile, check_device_key, check_given};
use crate::journal::{Event, EventSink, Level};
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::outbox::dispatcher::wait_for;
use crate::outbox::ports::{BindingCodeSource, OutboxTask};
use crate::secret::BindingCode;

/// How long `node bind` waits for the cloud before it says that the rest goes on by itself.
const WAIT: Duration = Duration::from_secs(20);

/// Gives nodes their keys in the cloud.
pub trait BindingDoor: Send + Sync + 'static {
    /// Unbinds what is bound under other keys, and binds.
    fn bind(
        &self,
        node: NodeId,
        order: BindOrder,
        who: String,
    ) -> impl Future<Output = Result<BindResult, Refusal>> + Send;
}

/// What `node bind` says; the rest comes from the record or the product's profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BindOrder {
    /// The key of the product in the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_key: Option<String>,
    /// Device key, 4 to 32 letters or digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_key: Option<String>,
    /// 16 characters `0-9A-F`.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "write_binding_code")]
    #[schema(value_type = Option<String>)]
    pub binding_code: Option<BindingCode>,
}

/// `node bind`: how it stands now. It goes on by itself where the cloud does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BindResult {
    /// The node whose binding was asked for.
    pub node_id: NodeId,
    /// Under which product key.
    pub product_key: String,
    /// Under which device key.
    pub device_key: String,
    /// How the bind stands.
    pub bind: BindStatus,
}

impl<W: World> BindingDoor for Hub<W> {
    async fn bind(&self, node: NodeId, order: BindOrder, who: String) -> Result<BindResult, Refusal> {
        let given = given(order);
        check_given(&given).map_err(|error| Refusal::from(&CommissioningError::from(error)))?;
        let Some(outbox) = &self.outbox else {
            let message = "no cloud is configured, so nothing can be bound";
            return Err(refused("cloud-not-configured", message, "configure [cloud], then restart the daemon"));
        };
        let record = self.record(node).await?;
        if record.state == NodeState::Removing {
            let message = format!("node {node} is being removed");
            let hint = format!("`matterbind node keep {node}` takes that back first");
            return Err(refused("being-removed", message, hint));
        }
        let device = self.device_of(&record, &given)?;
        let code = self.code_for(&record, given.binding_code).await?;
        let mut results = outbox.results();
        told(&record)?;
        let capabilities = record.capabilities_bitmask;
        let keys = device.clone();
        let task = move |record: &NodeRecord| {
            OutboxTask::Bind(Box::new(BindRequest {
                device: keys,
                binding_code: code,
                device_name: Some(name_in_cloud(&record.name)),
                family_id: record.family_id.clone(),
                room_id: record.room_id.clone(),
                capabilities_bitmask: capabilities,
                options: record.bind_options.clone(),
                matter_info: MatterInfo::of(record),
            }))
        };
        let row = self.store.rebind(node, device.clone(), task, Timestamp::now()).await?;
        let message = format!("{who} has node {node} bound as {} / {}", device.product_key, device.device_key);
        let event = Event::new(Timestamp::now(), Level::Info, "bind-asked", message);
        self.journal.record(event.with_node(node).with_outbox(row.0).with("who", who));
        wait_for(&mut results, row, WAIT).await;
        let CloudDevice { product_key, device_key } = device;
        Ok(BindResult { node_id: node, product_key, device_key, bind: self.record(node).await?.bind })
    }
}

impl<W: World> Hub<W> {
    /// What is said now, else what the record says, else what the profile says.
    fn device_of(&self, record: &NodeRecord, given: &GivenIdentity) -> Result<CloudDevice, Refusal> {
        let profiles = self.commissioner.get().settings.profiles.clone();
        let profile = Profile::of(&profiles, record.marks().product);
        let from_profile = || profile?.device_key.among(&record.marks());
        let product_key = given.product_key.clone().or_else(|| record.product_key.clone());
        let product_key = product_key.or_else(|| profile.map(|profile| profile.product_key.clone()));
        let device_key = given.device_key.clone().or_else(|| record.device_key.clone()).or_else(from_profile);
        let missing = |what: &str, option: &str| {
            let message = format!("node {} has no {what}", record.node_id);
            refused("no-cloud-identity", message, format!("give it with {option}, or in [[products]]"))
        };
        let product_key = product_key.ok_or_else(|| missing("product key", "--product-key"))?;
        let device_key = device_key.ok_or_else(|| missing("device key", "--device-key"))?;
        check_device_key(&device_key)
            .map_err(|error| refused("no-cloud-identity", error.reason, "give another with --device-key"))?;
        Ok(CloudDevice { product_key, device_key })
    }

    async fn code_for(&self, record: &NodeRecord, given: Option<BindingCode>) -> Result<BindingCode, Refusal> {
        if let Some(given) = given {
            return Ok(given);
        }
        let codes = DeviceCodes {
            store: self.store.clone(),
            reach: Arc::clone(&self.reach),
            profiles: self.commissioner.get().settings.profiles.clone(),
        };
        codes.fresh_code(record.node_id, &told(record)?).await.ok_or_else(|| {
            let message =
                "there is no binding code: no profile says where it comes from, or the device does not answer";
            refused("no-binding-code", message, "give it with --binding-code, or its source in [[products]]")
        })
    }
}

fn given(order: BindOrder) -> GivenIdentity {
    let BindOrder { product_key, device_key, binding_code } = order;
    GivenIdentity { product_key, device_key, binding_code, ..GivenIdentity::default() }
}

fn told(record: &NodeRecord) -> Result<MatterInfo, Refusal> {
    record.discriminator.map(|_| MatterInfo::of(record)).ok_or_else(|| {
        let message = format!("the discriminator of node {} is not known, and the cloud wants it", record.node_id);
        refused("no-discriminator", message, "remove the device and commission it again with its code")
    })
}

fn refused(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::new(code, Disposition::UserAction, message, hint)
}
