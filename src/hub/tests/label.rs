//! A fabric that gets another label.

use super::Rig;

#[tokio::test]
async fn every_node_learns_it_those_that_are_away_later_even_over_a_restart() {
    let rig = Rig::start(|config| config.fabric.label = "Home".to_owned()).await;
    let (near, _) = rig.with_device().await;
    let far = rig.home.plug_in(8, 3841, 20_202_021);
    rig.commission("34970112332").await;
    rig.home.unplug(&far);
    let garden = |config: &mut crate::config::Config| config.fabric.label = "Garden".to_owned();
    let rig = rig.restart(garden).await;
    rig.spawn_followers();
    rig.until("the first telling", async || near.label() == "Garden").await;
    assert_eq!(far.label(), "Home");
    let rig = rig.restart(garden).await;
    rig.spawn_followers();
    rig.until("listening", async || rig.home.has_listener()).await;
    rig.home.plug_in_again(&far);
    rig.until("the second telling", async || far.label() == "Garden").await;
}
