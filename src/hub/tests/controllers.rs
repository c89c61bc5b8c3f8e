//! Other controllers: who gets which certificate, who is shut out when, and what a stranger with a code comes to.

use std::sync::Arc;

use der::EncodePem;
use der::pem::LineEnding;
use jiff::{SignedDuration, Timestamp};
use p256::ecdsa::SigningKey;

use super::Rig;
use crate::commissioning::tests::home::{Device, Home};
use crate::controller::invite::{InviteCode, InviteRefused};
use crate::controller::{ControllerState, ON_ITS_WAY, csr};
use crate::fabric::{Cat, CatGrant, Privilege, granted_cats};
use crate::hub::clock;
use crate::hub::controllers::{
    ControllerBundle, ControllerOrder, ControllerView, ControllersDoor, EnrolRequest, Front, Invitation, InviteOrder,
    InvitesDoor, RenewOrder, refused,
};
use crate::hub::doors::AccessDoor;
use crate::hub::refusal::Refusal;
use crate::secret::OperatorSecret;
use crate::store::Store;

const OPERATE: u16 = 0x0002;

fn request(key: u16) -> String {
    let mut secret = [7; 32];
    secret[..2].copy_from_slice(&key.to_be_bytes());
    csr::request(&SigningKey::from_slice(&secret).unwrap()).unwrap().to_pem(LineEnding::LF).unwrap()
}

async fn rig() -> Rig {
    Rig::start(|config| {
        config.access.grants = vec![CatGrant { cat: Cat::new(0x0002_0001).unwrap(), privilege: Privilege::Operate }];
        config.admin.enrolment = true;
    })
    .await
}

impl Rig {
    async fn add(&self, name: &str, key: u16) -> Result<ControllerBundle, Refusal> {
        let order = ControllerOrder {
            name: name.to_owned(),
            csr: request(key),
            cats: vec![OPERATE],
            admin: false,
            valid_s: Some(3600),
        };
        self.hub.add_controller(order, "somebody".to_owned()).await
    }

    async fn renew(&self, name: &str, key: u16) -> Result<ControllerBundle, Refusal> {
        self.hub.renew_controller(name, RenewOrder { csr: request(key), valid_s: None }, "somebody".to_owned()).await
    }

    async fn controller(&self, name: &str) -> ControllerView {
        self.hub.controller(name).await.unwrap()
    }

    async fn invite(&self) -> Invitation {
        let front = Front {
            listens: "192.0.2.1:8480".parse().unwrap(),
            path: "/v1/enrol",
            certificate_sha256: "00".repeat(32),
        };
        let _ = self.hub.front.set(front);
        let order = InviteOrder { cats: vec![OPERATE], name: None, for_s: 600, valid_s: None };
        self.hub.invite(order, "somebody".to_owned()).await.unwrap()
    }

    async fn enrol(&self, code: &str, key: u16) -> Result<ControllerBundle, Refusal> {
        let request = EnrolRequest { code: OperatorSecret::new(code), csr: request(key), name: None };
        self.hub.enrol(request, "192.0.2.9".to_owned()).await
    }

    fn asked_for(&self, device: &Device) -> Vec<u32> {
        granted_cats(&device.acl()).iter().map(|grant| grant.cat.value()).filter(|cat| cat >> 16 == 2).collect()
    }
}

/// A hub that does not know what time it is gives certificates that are good whatever it turns out to be.
#[tokio::test]
async fn a_certificate_of_a_hub_without_a_clock_has_no_end() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    // Seen from a time that has certainly passed, the wall clock of this machine is as wrong as one of 1970.
    let passed = Timestamp::now() + SignedDuration::from_hours(24 * 365);
    store.save_blob(clock::BLOB, passed.to_string().as_bytes()).await.unwrap();
    store.close().await;
    let configure = |config: &mut crate::config::Config| {
        config.access.grants = vec![CatGrant { cat: Cat::new(0x0002_0001).unwrap(), privilege: Privilege::Operate }];
    };
    let rig = Rig::start_in(state, Home::new(), Arc::default(), configure).await;
    let bundle = rig.add("panel", 1).await.unwrap();
    assert_eq!(bundle.expires_at, None);
    assert!(bundle.notes[0].contains("clock is not set"), "{:?}", bundle.notes);
    let certificate = <x509_cert::Certificate as der::DecodePem>::from_pem(bundle.noc.pem.as_bytes()).unwrap();
    let validity = certificate.tbs_certificate().validity();
    assert_eq!(validity.not_before.to_date_time().year(), 2000);
    assert_eq!(validity.not_after.to_date_time().year(), 9999);
    assert!(!rig.controller("panel").await.expires_soon);
}

/// However an enrolment meets a removal: who is enrolled has a version that nodes let in, or is waited for.
#[tokio::test]
async fn nobody_is_enrolled_into_a_tag_that_was_just_raised() {
    let rig = rig().await;
    let (device, _) = rig.with_device().await;
    for round in 1u16..=10 {
        let key = 100 * round;
        rig.add("phone", key).await.unwrap();
        let others: Vec<String> = (1..=5).map(|other| format!("other {round}.{other}")).collect();
        let enrolled =
            futures_util::future::join_all(others.iter().zip(1..).map(|(name, other)| rig.add(name, key + other)));
        let removal = rig.hub.remove_controller("phone", false, "somebody".to_owned());
        let (removal, enrolled) = futures_util::future::join(removal, enrolled).await;
        assert!(enrolled.iter().all(Result::is_ok), "{enrolled:?}");
        for name in &others {
            let view = rig.controller(name).await;
            assert_ne!(view.certificate, "shut-out", "{view:?} after {removal:?}");
        }
        let waits_for = rig.controller("phone").await.waits_for;
        for (other, fresh) in waits_for.iter().zip(10..) {
            rig.renew(&other.name, key + fresh).await.unwrap();
        }
        if rig.controller("phone").await.state == ControllerState::Leaving {
            rig.hub.remove_controller("phone", false, "somebody".to_owned()).await.unwrap();
        }
        assert_eq!(rig.controller("phone").await.state, ControllerState::Removed);
    }
    assert_eq!(rig.asked_for(&device), [0x0002_000b]);
}

/// Step by step, as people do it.
#[tokio::test]
async fn an_orderly_removal_shuts_nobody_else_out() {
    let rig = rig().await;
    let (device, _) = rig.with_device().await;
    rig.add("panel", 1).await.unwrap();
    rig.add("bridge", 2).await.unwrap();
    let removal = rig.hub.remove_controller("panel", false, "somebody".to_owned()).await.unwrap();
    assert_eq!((removal.state, removal.renew[0].name.as_str()), (ControllerState::Leaving, "bridge"));
    assert_eq!(rig.asked_for(&device), [0x0002_0001]);
    assert_eq!(rig.controller("panel").await.waits_for[0].name, "bridge");
    // One who comes now is ahead already, and nobody waits for it.
    assert_eq!(rig.add("phone", 3).await.unwrap().cats, [0x0002_0002]);
    assert_eq!(rig.renew("panel", 4).await.unwrap_err().code, "controller-leaving");
    let renewed = rig.renew("bridge", 5).await.unwrap();
    assert_eq!(rig.renew("bridge", 5).await.unwrap().noc, renewed.noc, "whoever asks again did not get the answer");
    // The bridge may still use the certificate that it had.
    let waits = rig.controller("panel").await;
    assert_eq!((waits.state, waits.settles_at), (ControllerState::Leaving, Some(renewed.issued_at + ON_ITS_WAY)));
    assert_eq!(rig.asked_for(&device), [0x0002_0001]);
    let removal = rig.hub.remove_controller("panel", false, "somebody".to_owned()).await.unwrap();
    assert!(removal.complete, "{removal:?}");
    assert_eq!(rig.asked_for(&device), [0x0002_0002]);
    for name in ["bridge", "phone"] {
        assert_eq!(rig.controller(name).await.certificate, "current");
    }
    assert_eq!(rig.controller("panel").await.state, ControllerState::Removed);
    // Its name is free again, its key is not.
    assert_eq!(rig.add("panel", 1).await.unwrap_err().code, "key-in-use");
    rig.add("panel", 6).await.unwrap();
}

#[tokio::test]
async fn a_node_that_was_away_shuts_it_out_on_its_return() {
    let rig = rig().await;
    let (device, _) = rig.with_device().await;
    rig.add("panel", 1).await.unwrap();
    rig.spawn_followers();
    rig.home.unplug(&device);
    let removal = rig.hub.remove_controller("panel", false, "somebody".to_owned()).await.unwrap();
    assert_eq!((removal.state, removal.complete), (ControllerState::Removed, false), "{removal:?}");
    assert_eq!(rig.controller("panel").await.pending_nodes.len(), 1);
    rig.home.plug_in_again(&device);
    rig.until("the telling", async || rig.controller("panel").await.pending_nodes.is_empty()).await;
    assert_eq!(rig.asked_for(&device), [0x0002_0002]);
    assert_eq!(rig.hub.access().await.unwrap().nodes[0].state, "as-wanted");
}

#[tokio::test]
async fn a_code_is_good_for_one_app_in_its_time() {
    let rig = rig().await;
    let invitation = rig.invite().await;
    let code = invitation.code.expose();
    let first = rig.enrol(code, 1).await.unwrap();
    assert_eq!(
        (first.cats.as_slice(), first.name.as_str()),
        (&[0x0002_0001][..], format!("app {}", invitation.id).as_str())
    );
    let again = rig.enrol(&code.to_lowercase().replace('-', " "), 1).await.unwrap();
    assert_eq!((&again.noc, again.node_id), (&first.noc, first.node_id), "its answer was lost");
    assert_eq!(rig.enrol(code, 2).await.unwrap_err().code, "code-refused", "somebody else with the same code");

    // Time is over.
    let invitation = rig.invite().await;
    let code = InviteCode::read(invitation.code.expose()).unwrap();
    let tried = rig.hub.store.try_code(code, "key".to_owned(), invitation.expires_at).await.unwrap();
    assert_eq!(tried.unwrap_err(), InviteRefused::Expired);
    assert_eq!(rig.hub.controllers().await.unwrap().controllers.len(), 1, "nothing was given away");
}

/// A stranger who guesses is told nothing and fills nobody's log.
#[tokio::test]
async fn guesses_close_one_invitation_and_are_told_once() {
    let rig = rig().await;
    let (guessed, other) = (rig.invite().await, rig.invite().await);
    let before = rig.logged().await.len();
    let wrong = format!("{}-0000-0000", guessed.id);
    for key in 0..20 {
        assert_eq!(rig.enrol(&wrong, key).await.unwrap_err(), refused());
        assert_eq!(rig.enrol("0000-0000-0000", key).await.unwrap_err(), refused());
    }
    assert_eq!(rig.enrol(guessed.code.expose(), 50).await.unwrap_err().code, "code-refused", "it is closed");
    assert_eq!(rig.logged().await[before..], ["invite-closed"]);
    rig.enrol(other.code.expose(), 51).await.unwrap();
}
