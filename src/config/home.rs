//! Bluetooth, and the networks that devices found there are brought to. Not here: networks that were set by command (`store`).

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::commissioning::network::NetworkKind;

/// `[bluetooth]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BluetoothConfig {
    /// The adapter, as BlueZ names it; empty: the first that is there; `none`: Bluetooth is not used.
    pub adapter: String,
}

/// `[[networks]]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HomeNetworkConfig {
    /// What to call it; else the SSID.
    pub name: Option<String>,
    /// SSID of a Wi-Fi network.
    pub ssid: Option<String>,
    /// File or systemd credential with its password; without it the network is open.
    pub password_file: Option<PathBuf>,
    /// File or systemd credential with the active dataset of a Thread network, in hexadecimal.
    pub dataset_file: Option<PathBuf>,
}

impl HomeNetworkConfig {
    /// What to call it.
    pub fn name(&self) -> String {
        self.name.clone().or_else(|| self.ssid.clone()).unwrap_or_else(|| "Thread".to_owned())
    }

    pub fn kind(&self) -> NetworkKind {
        if self.dataset_file.is_some() { NetworkKind::Thread } else { NetworkKind::Wifi }
    }
}
