//! A reference cloud on a free port and a client that is signed up with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use matterbind::facade::bind::{BindRequest, CloudDevice, MatterInfo};
use matterbind::facade::cloud::{Client, MemoryTokens};
use matterbind::facade::config::{BeforeCommissioning, CloudConfig, OnAccessDrift, OnCloudMissing, OnRejected};
use matterbind::facade::fabric::{Cat, CatGrant, Privilege};
use matterbind::facade::node::{FabricId, NodeId};
use matterbind::facade::secret::BindingCode;
use matterbind::facade::sim::cloud::{Scenario, SimCloud};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub const PASSWORD: &str = "demo-password";
pub const DOMAIN_SECRET: &str = "demo-secret-0123456789abcdef";
pub const CODE: &str = "0123456789ABCDEF";

pub struct Rig {
    pub cloud: SimCloud,
    pub config: CloudConfig,
    pub tokens: Arc<MemoryTokens>,
    pub secrets: tempfile::TempDir,
    _shutdown: DropGuard,
}

impl Rig {
    pub async fn start(scenario: Scenario) -> Self {
        let cloud = SimCloud::new(scenario);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let (server, token) = (cloud.clone(), shutdown.clone());
        tokio::spawn(async move { server.serve(listener, token).await });
        let secrets = tempfile::tempdir().unwrap();
        let rig = Self {
            cloud,
            config: config(base_url, secrets.path()),
            tokens: Arc::default(),
            secrets,
            _shutdown: shutdown.drop_guard(),
        };
        rig.set_password(PASSWORD);
        std::fs::write(&rig.config.user_domain_secret_file, format!("{DOMAIN_SECRET}\n")).unwrap();
        rig
    }

    pub async fn demo() -> Self {
        Self::start(Scenario::default()).await
    }

    pub fn set_password(&self, password: &str) {
        std::fs::write(self.secrets.path().join("password"), format!("{password}\n")).unwrap();
    }

    /// A client that waits one second. It starts with the kept tokens, so that only its own calls are that short.
    pub fn hasty_client(&self) -> Client<Arc<MemoryTokens>> {
        let config = CloudConfig { timeout: Duration::from_secs(1), ..self.config.clone() };
        Client::new(&config, self.tokens.clone()).unwrap()
    }

    /// A new client, as after a restart: only the kept tokens are the same.
    pub fn client(&self) -> Client<Arc<MemoryTokens>> {
        Client::new(&self.config, self.tokens.clone()).unwrap()
    }
}

pub fn config(base_url: String, secrets: &Path) -> CloudConfig {
    CloudConfig {
        base_url,
        user_domain: "demo".to_owned(),
        user_domain_secret_file: secrets.join("domain-secret"),
        email: "hub@example.com".to_owned(),
        password_file: secrets.join("password"),
        family_id: String::new(),
        room_id: String::new(),
        timeout: Duration::from_secs(10),
        before_commissioning: BeforeCommissioning::Skip,
        on_rejected: OnRejected::Keep,
        on_cloud_missing: OnCloudMissing::Report,
        on_access_drift: OnAccessDrift::Report,
    }
}

pub fn scenario(name: &str) -> Scenario {
    let path = format!("{}/tests/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    Scenario::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn device(product_key: &str, device_key: &str) -> CloudDevice {
    CloudDevice { product_key: product_key.to_owned(), device_key: device_key.to_owned() }
}

pub fn request(device: &CloudDevice) -> BindRequest {
    BindRequest {
        device: device.clone(),
        binding_code: BindingCode::new(CODE),
        device_name: Some("Hall light".to_owned()),
        family_id: None,
        room_id: None,
        capabilities_bitmask: 10,
        options: Default::default(),
        matter_info: MatterInfo {
            fabric_id: FabricId(1_234_567),
            node_id: NodeId(1000),
            vendor_id: 0xFFF1,
            product_id: 0x8000,
            discriminator: Some(0),
            matter_version: "1.4".to_owned(),
            cats: vec![
                CatGrant { cat: Cat::new(0x0002_0001).unwrap(), privilege: Privilege::Operate },
                CatGrant { cat: Cat::new(0x8003_0001).unwrap(), privilege: Privilege::View },
            ],
        },
    }
}
