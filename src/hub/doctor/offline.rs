//! What can be seen of a hub without its daemon: by whoever runs the command line. Not here: what only the daemon knows (`live`).

use std::sync::Arc;

use jiff::Timestamp;

use super::facts::{Cloud, Facts, Network, Trust};
use super::machine;
use crate::bluetooth::Bluetooth;
use crate::clock::WRITTEN;
use crate::cloud;
use crate::commissioning::radio::Radio as _;
use crate::config::{AttestationPolicy, Config};
use crate::discovery;
use crate::hub::clock::ClockStatus;
use crate::keystore;
use crate::ownership::ActingFor;
use crate::paa;
use crate::store::{Examiner, examine};

/// Everything that can be looked at. Needs a tokio runtime.
pub(crate) async fn facts(config: &Config) -> Facts {
    let survey = discovery::survey(&config.network).await;
    let cloud = match &config.cloud {
        Some(cloud) => {
            // A clock that is not set would say of every certificate that it is from the future, which the clock's own finding says.
            let now = Arc::new(|| Timestamp::now().max(WRITTEN));
            Some(Cloud { health: None, look: cloud::look(cloud, now).await.ok() })
        }
        None => None,
    };
    let radio = Bluetooth::open(&config.bluetooth).adapter().await;
    let now = Timestamp::now();
    let standing = if now < WRITTEN { "not-set" } else { "unconfirmed" };
    let mut facts = Facts {
        at: now,
        network: Some(Network { configured: config.network.interfaces.clone(), survey }),
        radio: Some(radio.into()),
        firewall: machine::firewall(),
        clock: Some(ClockStatus { standing: standing.to_owned(), says: Some(now), at_least: Some(WRITTEN) }),
        cloud: Some(cloud),
        versions: Some(machine::versions()),
        ..Facts::default()
    };
    on_disk(config, &mut facts);
    facts
}

/// What belongs to the service may be anything, a symbolic link too: it is looked at as the service would see it.
fn on_disk(config: &Config, facts: &mut Facts) {
    let _acting = ActingFor::owner_of(&config.state_dir).ok();
    let attestation = &config.attestation;
    let state = examine(&config.state_dir, Examiner::Other, true);
    let readable = state.exists && (state.refused.is_empty() || state.read_only);
    facts.state = Some(state);
    if !readable {
        return;
    }
    facts.sealed = keystore::is_sealed(&config.state_dir).ok();
    let directories = paa::paa_dirs(attestation, &config.state_dir);
    let loaded = paa::load(&directories, None);
    facts.trust = Some(Trust {
        paas: loaded.trust.paa_count(),
        left_out: loaded.quarantined.len(),
        fetched_at: directories.iter().filter_map(|dir| paa::last_fetched(dir)).map(|fetched| fetched.fetched_at).max(),
        directories,
        source: attestation.paa_source.clone(),
        lenient: attestation.policy == AttestationPolicy::Warn,
    });
}
