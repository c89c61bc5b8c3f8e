//! One account of the binding service, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use jiff::Timestamp;

use crate::bind::{BindReceipt, BindRequest, CloudDevice, CloudMatterInfo, CloudRecord};
use crate::cloud::{Answered, CloudHealth, Look};
use crate::hub::world::CloudService;
use crate::node::FabricId;
use crate::outbox::ports::{BindApi, BindPreview, CloudError};

#[derive(Default)]
pub(crate) struct Account {
    devices: Mutex<BTreeMap<CloudDevice, CloudRecord>>,
    down: Mutex<bool>,
}

impl Account {
    pub(super) fn set_down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    pub(super) fn holds(&self) -> Vec<CloudRecord> {
        self.devices.lock().unwrap().values().cloned().collect()
    }

    fn up(&self) -> Result<(), CloudError> {
        if *self.down.lock().unwrap() { Err(CloudError::NotSent { cause: "no route".to_owned() }) } else { Ok(()) }
    }
}

impl BindApi for Account {
    async fn bind(&self, request: &BindRequest) -> Result<BindReceipt, CloudError> {
        self.up()?;
        let info = &request.matter_info;
        let cats = info.cats.iter().map(|grant| (grant.cat.value().into(), grant.privilege.as_str().to_owned()));
        let record = CloudRecord {
            device: request.device.clone(),
            device_name: request.device_name.clone(),
            status: Some(1),
            device_type: Some(1),
            is_matter: true,
            matter_info: Some(CloudMatterInfo {
                fabric_id: Some(info.fabric_id.0),
                node_id: Some(info.node_id.0),
                vendor_id: Some(info.vendor_id.into()),
                product_id: Some(info.product_id.into()),
                discriminator: info.discriminator.map(Into::into),
                matter_version: Some(info.matter_version.clone()),
                cats: cats.collect(),
            }),
            auth_key: None,
            binding_mode: Some(1),
            family_id: request.family_id.clone(),
            room_id: request.room_id.clone(),
        };
        self.devices.lock().unwrap().insert(request.device.clone(), record);
        Ok(BindReceipt { auth_key: None, binding_mode: Some(1), product_name: None })
    }

    async fn find(&self, device: &CloudDevice) -> Result<Option<CloudRecord>, CloudError> {
        self.up()?;
        Ok(self.devices.lock().unwrap().get(device).cloned())
    }

    async fn held(&self, _: &BTreeSet<CloudDevice>, _: Option<FabricId>) -> Result<Vec<CloudRecord>, CloudError> {
        self.up()?;
        Ok(self.holds())
    }

    async fn unbind(&self, device: &CloudDevice) -> Result<(), CloudError> {
        self.up()?;
        self.devices.lock().unwrap().remove(device);
        Ok(())
    }

    async fn rename(&self, _: &CloudDevice, _: &str) -> Result<(), CloudError> {
        self.up()
    }

    async fn move_room(&self, _: &CloudDevice, _: &str, _: Option<&str>, _: &str) -> Result<(), CloudError> {
        self.up()
    }

    async fn preview(&self, _: &CloudDevice) -> Result<BindPreview, CloudError> {
        self.up()?;
        Ok(BindPreview { binding_mode: Some(1), product_name: None })
    }
}

impl CloudService for Account {
    fn health(&self) -> CloudHealth {
        CloudHealth::default()
    }

    async fn look(&self) -> Look {
        let answered = match self.up() {
            Ok(()) => Answered::Service,
            Err(error) => Answered::Nobody { seen: error.to_string() },
        };
        Look {
            at: "cloud.example:80".to_owned(),
            proxy: None,
            resolved: None,
            connected: None,
            answered: Some(answered),
            date: None,
            at_time: Timestamp::UNIX_EPOCH,
        }
    }

    fn service_time(&self) -> Option<Timestamp> {
        None
    }

    async fn forget_refusals(&self) {}
}
