//! A binding service in memory that fails as cloud-contract 7 says: before and after the effect, with codes, with silence.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use matterbind::facade::bind::{BindReceipt, BindRequest, CloudDevice, CloudMatterInfo, CloudRecord, MatterInfo};
use matterbind::facade::node::{FabricId, NodeId};
use matterbind::facade::outbox::ports::{BindApi, BindPreview, BindingCodeSource, CloudError};
use matterbind::facade::secret::{AuthKey, BindingCode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

/// Codes that a bind may be refused with although nothing is wrong with it for good.
const PASSING_CODES: [i64; 13] = [5000, 5009, 5032, 5048, 5049, 5229, 5314, 5412, 5460, 5461, 5462, 5465, 5884];

pub struct FakeCloud {
    random: Mutex<StdRng>,
    bindings: Mutex<HashMap<CloudDevice, CloudRecord>>,
    committed: Mutex<HashMap<CloudDevice, u32>>,
    /// Faults until then.
    stormy_until: Option<Instant>,
    always: Option<i64>,
}

enum Fault {
    Before(CloudError),
    After(CloudError),
}

impl FakeCloud {
    pub fn stormy(seed: u64, time: Duration) -> Self {
        Self { stormy_until: Some(Instant::now() + time), ..Self::seeded(seed) }
    }

    pub fn calm() -> Self {
        Self::seeded(0)
    }

    pub fn always(code: i64) -> Self {
        Self { always: Some(code), ..Self::seeded(0) }
    }

    fn seeded(seed: u64) -> Self {
        Self {
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            bindings: Mutex::default(),
            committed: Mutex::default(),
            stormy_until: None,
            always: None,
        }
    }

    /// Name, room and discriminator of a bound device.
    pub fn holds(&self, device: &CloudDevice) -> Option<(String, Option<String>, u64)> {
        let bindings = self.bindings.lock().unwrap();
        let record = bindings.get(device)?;
        let discriminator = record.matter_info.as_ref()?.discriminator?;
        Some((record.device_name.clone()?, record.room_id.clone(), discriminator))
    }

    pub fn binds_committed(&self, device: &CloudDevice) -> u32 {
        self.committed.lock().unwrap().get(device).copied().unwrap_or(0)
    }

    /// Answers late, and tells what goes wrong with this call.
    async fn weather(&self, codes: &[i64]) -> Option<Fault> {
        let (delay, fault) = {
            let mut random = self.random.lock().unwrap();
            let delay = Duration::from_millis(random.random_range(1..200));
            let stormy = self.stormy_until.is_some_and(|until| Instant::now() < until);
            let code = |code| CloudError::Code { code, message: "stormy".to_owned() };
            let silent = || CloudError::Ambiguous { cause: "the connection was reset".to_owned() };
            let fault = match random.random_range(0..10) {
                _ if !stormy => None,
                0 => Some(Fault::Before(CloudError::NotSent { cause: "no route".to_owned() })),
                1 => Some(Fault::Before(silent())),
                2 | 3 => Some(Fault::After(silent())),
                4 | 5 if !codes.is_empty() => Some(Fault::Before(code(codes[random.random_range(0..codes.len())]))),
                6 => Some(Fault::After(code(if random.random() { 5048 } else { 5000 }))),
                _ => None,
            };
            (delay, fault)
        };
        sleep(delay).await;
        fault
    }

    /// Runs `effect` unless the fault comes first.
    async fn call<T>(&self, codes: &[i64], effect: impl FnOnce() -> Result<T, CloudError>) -> Result<T, CloudError> {
        match self.weather(codes).await {
            Some(Fault::Before(error)) => Err(error),
            Some(Fault::After(error)) => effect().and(Err(error)),
            None => effect(),
        }
    }
}

fn held(info: &MatterInfo) -> CloudMatterInfo {
    CloudMatterInfo {
        fabric_id: Some(info.fabric_id.0),
        node_id: Some(info.node_id.0),
        vendor_id: Some(info.vendor_id.into()),
        product_id: Some(info.product_id.into()),
        discriminator: info.discriminator.map(Into::into),
        matter_version: Some(info.matter_version.clone()),
        cats: Vec::new(),
    }
}

impl BindApi for FakeCloud {
    async fn bind(&self, request: &BindRequest) -> Result<BindReceipt, CloudError> {
        if let Some(code) = self.always {
            return Err(CloudError::Code { code, message: "always".to_owned() });
        }
        self.call(&PASSING_CODES, || {
            let mut bindings = self.bindings.lock().unwrap();
            if bindings.contains_key(&request.device) {
                return Err(CloudError::Code { code: 5049, message: "already bound".to_owned() });
            }
            *self.committed.lock().unwrap().entry(request.device.clone()).or_default() += 1;
            bindings.insert(
                request.device.clone(),
                CloudRecord {
                    device: request.device.clone(),
                    device_name: request.device_name.clone(),
                    status: Some(1),
                    device_type: Some(1),
                    is_matter: true,
                    matter_info: Some(held(&request.matter_info)),
                    auth_key: Some(AuthKey::new("auth-key")),
                    binding_mode: Some(1),
                    family_id: request.family_id.clone(),
                    room_id: request.room_id.clone(),
                },
            );
            Ok(BindReceipt { auth_key: Some(AuthKey::new("auth-key")), binding_mode: Some(1), product_name: None })
        })
        .await
    }

    async fn find(&self, device: &CloudDevice) -> Result<Option<CloudRecord>, CloudError> {
        self.call(&[5000, 5032], || Ok(self.bindings.lock().unwrap().get(device).cloned())).await
    }

    async fn held(&self, wanted: &BTreeSet<CloudDevice>, _: Option<FabricId>) -> Result<Vec<CloudRecord>, CloudError> {
        let held = |record: &&CloudRecord| wanted.contains(&record.device);
        self.call(&[], || Ok(self.bindings.lock().unwrap().values().filter(held).cloned().collect())).await
    }

    async fn unbind(&self, device: &CloudDevice) -> Result<(), CloudError> {
        self.call(&[5000, 5032, 5050], || {
            self.bindings.lock().unwrap().remove(device);
            Ok(())
        })
        .await
    }

    async fn rename(&self, device: &CloudDevice, name: &str) -> Result<(), CloudError> {
        self.call(&[5000, 5032, 5041], || {
            let mut bindings = self.bindings.lock().unwrap();
            let record = bindings.get_mut(device).expect("a device is renamed while it is bound");
            record.device_name = Some(name.to_owned());
            Ok(())
        })
        .await
    }

    async fn move_room(
        &self,
        device: &CloudDevice,
        _family_id: &str,
        _old_room_id: Option<&str>,
        new_room_id: &str,
    ) -> Result<(), CloudError> {
        self.call(&[5000, 5032, 5041], || {
            let mut bindings = self.bindings.lock().unwrap();
            let record = bindings.get_mut(device).expect("a device is moved while it is bound");
            record.room_id = Some(new_room_id.to_owned());
            Ok(())
        })
        .await
    }

    async fn preview(&self, _device: &CloudDevice) -> Result<BindPreview, CloudError> {
        Ok(BindPreview { binding_mode: Some(1), product_name: None })
    }
}

/// A device that always has a fresh code.
pub struct CodesFromDevice;

impl BindingCodeSource for CodesFromDevice {
    async fn fresh_code(&self, _node: NodeId, _matter_info: &MatterInfo) -> Option<BindingCode> {
        Some(BindingCode::new("FEDCBA9876543210"))
    }
}
