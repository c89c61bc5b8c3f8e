//! Two controllers of one tag: the panel is shut out, the bridge is renewed and stays. Whatever was cut short is asked for again with
//! the same keys, as their owners would.

use der::EncodePem;
use matterbind::facade::admin::wire::{ControllerView, Controllers};
use matterbind::facade::cli::client::{AdminClient, PLAIN, SLOW};
use matterbind::facade::controller::{ControllerState, csr};
use matterbind::facade::node::NodeRecord;
use p256::ecdsa::SigningKey;
use serde_json::{Value, json};

use crate::play::expect;
use crate::rig::Result;

/// The tag of both at first, and after that.
const CATS: [u32; 2] = [0x0002_0001, 0x0002_0002];

fn request(key: u8) -> Result<String> {
    Ok(csr::request(&SigningKey::from_slice(&[key; 32])?)?.to_pem(der::pem::LineEnding::LF)?)
}

async fn all(client: &AdminClient) -> Result<Vec<ControllerView>> {
    Ok(client.get::<Controllers>(&["controllers"], &(), PLAIN).await?.controllers)
}

fn named<'a>(all: &'a [ControllerView], name: &str) -> Option<&'a ControllerView> {
    all.iter().find(|controller| controller.name == name)
}

/// From wherever things stand.
pub async fn shut_one_out(client: &AdminClient) -> Result<()> {
    for (name, key) in [("panel", 7), ("bridge", 8)] {
        // Whoever did not get an answer asks again; an answer to a request that was answered is the same.
        if named(&all(client).await?, name)
            .is_none_or(|it| it.cats == CATS[..1] && it.state == ControllerState::Enrolled)
        {
            let order = json!({ "name": name, "csr": request(key)?, "cats": [CATS[0] >> 16] });
            let first = client.post::<Value>(&["controllers"], &order, PLAIN).await?;
            let again = client.post::<Value>(&["controllers"], &order, PLAIN).await?;
            expect("the bundle", &first["noc"], &again["noc"])?;
        }
    }
    if named(&all(client).await?, "panel").is_some_and(|it| it.state == ControllerState::Enrolled) {
        client.post::<Value>(&["controllers", "panel", "remove"], &json!({}), SLOW).await?;
    }
    let order = json!({ "csr": request(9)? });
    client.post::<Value>(&["controllers", "bridge", "renew"], &order, SLOW).await?;
    // The bridge uses it.
    client.post::<Value>(&["controllers", "panel", "remove"], &json!({}), SLOW).await?;
    Ok(())
}

/// One is in, one is out, and each has its one node id.
pub async fn check(client: &AdminClient, light: &NodeRecord) -> Result<()> {
    let all = all(client).await?;
    expect("controllers", all.len(), 2)?;
    let (panel, bridge) = (named(&all, "panel").ok_or("no panel")?, named(&all, "bridge").ok_or("no bridge")?);
    expect("the panel", panel.state, ControllerState::Removed)?;
    expect("the bridge", bridge.state, ControllerState::Enrolled)?;
    expect("the bridge's certificate", bridge.certificate.as_str(), "current")?;
    expect("the bridge's tags", bridge.cats.as_slice(), &CATS[1..])?;
    let held: Vec<u32> = light.cats.iter().map(|grant| grant.cat.value()).collect();
    expect("the device asks for the new version", held.contains(&CATS[1]), true)?;
    expect("the device asks for the old version", held.contains(&CATS[0]), false)
}
