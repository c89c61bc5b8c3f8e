//! Invitations, and apps on the network that enrol by one. Not here: when a code is good (`controller::invite`), TLS and how fast
//! codes may be tried (`admin`).

use jiff::{SignedDuration, Timestamp};

use super::{ControllerBundle, EnrolRequest, Invitation, InviteOrder, VALID, Wish, checked, tags};
use crate::commissioning::error::Disposition;
use crate::controller::invite::{Invite, InviteCode, InviteRefused, Offer};
use crate::hub::Hub;
use crate::hub::refusal::Refusal;
use crate::hub::world::World;
use crate::journal::{Event, EventSink, Level};
use crate::secret::OperatorSecret;

/// How long a code may be good, seconds.
const GOOD_FOR: std::ops::RangeInclusive<u64> = 60..=86_400;

/// Where apps on the network find this hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Front {
    /// The enrolment's address, on each address of the hub.
    pub(crate) urls: Vec<String>,
    /// SHA-256 of the certificate that answers there, hex.
    pub(crate) certificate_sha256: String,
}

impl Front {
    /// What an app scans: one URL, whose fragment never leaves the app.
    fn payload(&self, code: &OperatorSecret) -> OperatorSecret {
        let url = self.urls.first().map_or("", String::as_str);
        OperatorSecret::new(format!("{url}#code={}&sha256={}", code.expose(), self.certificate_sha256))
    }
}

impl<W: World> Hub<W> {
    pub(super) async fn make_invite(&self, order: InviteOrder, who: String) -> Result<Invitation, Refusal> {
        let Some(front) = self.front.get().filter(|_| self.config.admin.enrolment) else {
            let message = "apps cannot enrol over the network on this hub";
            let hint = "set `admin.tcp`, `admin.tls` and `admin.enrolment = true`, then restart the daemon";
            return Err(Refusal::new("enrolment-off", Disposition::UserAction, message, hint));
        };
        if !GOOD_FOR.contains(&order.for_s) {
            return Err(Refusal::bad_request("a code is good for one minute to one day"));
        }
        let valid_s = order.valid_s.unwrap_or(VALID);
        let name = order.name.clone();
        // What cannot be had now is refused now, and not when somebody stands there with an app.
        let wish = Wish {
            name: name.clone().unwrap_or_default(),
            cats: order.cats.clone(),
            admin: false,
            valid_s,
            invite: None,
        };
        let cats = self.tags_for(&wish)?;
        self.validity(valid_s)?;
        if name.as_deref().is_some_and(|name| !crate::controller::is_name(name)) {
            return Err(Refusal::bad_request(
                "a controller's name has 1 to 64 characters, none of them a control character",
            ));
        }
        let code = InviteCode::new(rand::random());
        let now = self.clock.now();
        let expires_at = now + SignedDuration::from_secs(order.for_s.cast_signed());
        let offer = Offer { cats: order.cats, name, valid_s };
        self.store.add_invite(Invite::new(&code, offer, now, expires_at)).await?;
        let message = format!("{who} invites an app with {} until {expires_at:.0}", tags(&cats));
        let event = Event::new(Timestamp::now(), Level::Info, "controller-invited", message);
        self.journal.record(event.with("invite", code.id()));
        let text = code.text();
        Ok(Invitation {
            id: code.id().to_owned(),
            qr_payload: front.payload(&text),
            code: text,
            urls: front.urls.clone(),
            certificate_sha256: front.certificate_sha256.clone(),
            expires_at,
        })
    }

    pub(super) async fn drop_invite(&self, invite: &str, who: String) -> Result<(), Refusal> {
        if !self.store.drop_invite(invite).await? {
            let hint = "`matterbind controller list` lists those that are open";
            let message = format!("there is no invitation {invite}");
            return Err(Refusal::new("not-found", Disposition::UserAction, message, hint));
        }
        let message = format!("{who} takes invitation {invite} back");
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "invite-withdrawn", message));
        Ok(())
    }

    pub(super) async fn enrol_by_code(&self, request: EnrolRequest, from: String) -> Result<ControllerBundle, Refusal> {
        if !self.config.admin.enrolment {
            return Err(refused());
        }
        // A request that could never be answered costs the invitation nothing.
        let csr = checked(&request.csr)?;
        let code = InviteCode::read(request.code.expose()).ok_or_else(refused)?;
        let id = code.id().to_owned();
        let tried = self.store.try_code(code, csr.fingerprint(), self.clock.now()).await?;
        let offer = match tried {
            Ok(offer) => offer,
            Err(why) => {
                let message = format!("{from} asked for a certificate and was refused: {why}");
                let level = if why == InviteRefused::Unknown { Level::Info } else { Level::Warn };
                let event = Event::new(Timestamp::now(), level, "enrolment-refused", message);
                self.journal.record(event.with("invite", id));
                return Err(refused());
            }
        };
        let name = offer.name.or(request.name).unwrap_or_else(|| format!("app {id}"));
        let wish = Wish { name, cats: offer.cats, admin: false, valid_s: offer.valid_s, invite: Some(id.clone()) };
        let (controller, new) = self.certify(wish, &csr).await?;
        if new {
            let (node, name) = (controller.node_id, &controller.name);
            let message = format!(
                "controller {node} ({name}) has enrolled by invitation {id} from {from} with {}",
                tags(&controller.cats)
            );
            self.tell_of(Level::Info, "controller-enrolled", message, &controller);
        }
        self.bundle(&controller).await
    }
}

/// What a stranger is told, whatever was wrong with the code.
pub(super) fn refused() -> Refusal {
    let message = "this code cannot be used: it is wrong, used, taken back or too old";
    let hint = "ask for another one: `matterbind controller invite` on the hub";
    Refusal::new("code-refused", Disposition::UserAction, message, hint)
}
