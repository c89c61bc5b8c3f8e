//! Invitations, and apps on the network that enrol by one. Not here: when a code is good (`controller::invite`), TLS and how fast
//! codes may be tried (`admin`).

use std::net::{IpAddr, SocketAddr};

use jiff::{SignedDuration, Timestamp};

use super::{Answer, ControllerBundle, EnrolRequest, Invitation, InviteOrder, VALID, Wish, checked, no_name, tags};
use crate::commissioning::error::Disposition;
use crate::config::NetworkConfig;
use crate::controller::invite::{Invite, InviteCode, InviteRefused, Offer, TRIES};
use crate::discovery::interfaces::takes_part;
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
    /// Where the admin API listens.
    pub(crate) listens: SocketAddr,
    /// The path of the enrolment there.
    pub(crate) path: &'static str,
    /// SHA-256 of the certificate that answers there, hex.
    pub(crate) certificate_sha256: String,
}

impl Front {
    /// The enrolment's URL on each address that the hub has now; the first is the one that is shown as a picture.
    fn urls(&self, config: &NetworkConfig) -> Vec<String> {
        let urls = self.addresses(config).into_iter().map(|address| {
            let address = SocketAddr::new(address, self.listens.port());
            format!("https://{address}{}", self.path)
        });
        urls.collect()
    }

    fn addresses(&self, config: &NetworkConfig) -> Vec<IpAddr> {
        if !self.listens.ip().is_unspecified() {
            return vec![self.listens.ip()];
        }
        let usable = |address: &IpAddr| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            // A link-local address means nothing without the app's own interface.
            IpAddr::V6(v6) => self.listens.is_ipv6() && !v6.is_loopback() && !v6.is_unicast_link_local(),
        };
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let taking_part = interfaces.iter().filter(|interface| takes_part(config, interface));
        let mut found: Vec<IpAddr> = taking_part.map(if_addrs::Interface::ip).filter(usable).collect();
        // IPv4 first: every phone can type it.
        found.sort_by_key(|address| (address.is_ipv6(), *address));
        found.dedup();
        found
    }
}

/// What an app scans: one URL, whose fragment never leaves the app.
fn payload(url: &str, code: &OperatorSecret, certificate_sha256: &str) -> OperatorSecret {
    OperatorSecret::new(format!("{url}#code={}&sha256={certificate_sha256}", code.expose()))
}

impl<W: World> Hub<W> {
    pub(super) async fn make_invite(&self, order: InviteOrder, who: String) -> Result<Invitation, Refusal> {
        let Some(front) = self.front.get().filter(|_| self.config.admin.enrolment) else {
            let message = "apps cannot enrol over the network on this hub";
            let hint = "set `admin.tcp`, `admin.tls` and `admin.enrolment = true`, then restart the daemon";
            return Err(Refusal::new("enrolment-off", Disposition::UserAction, message, hint));
        };
        if !GOOD_FOR.contains(&order.for_s) {
            let message = "a code is good for one minute to one day";
            return Err(Refusal::new("bad-request", Disposition::UserAction, message, "for instance `--for 10m`"));
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
            return Err(no_name());
        }
        let urls = front.urls(&self.config.network);
        let Some(url) = urls.first() else {
            let message = format!("no app finds this hub: it listens on {}, and has no address there", front.listens);
            let hint = "look at `ip address`, and at `network.interfaces` and `admin.tcp` in the configuration";
            return Err(Refusal::new("no-address", Disposition::Retry, message, hint));
        };
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
            qr_payload: payload(url, &text, &front.certificate_sha256),
            code: text,
            urls,
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
                tracing::debug!(peer = %from, invite = %id, %why, "an app was refused");
                // Once for each invitation: whoever guesses on must not push everything else out of the log.
                if why == (InviteRefused::Wrong { left: 0 }) {
                    let message = format!(
                        "invitation {id} is closed: a wrong code was shown {TRIES} times, the last from {from}"
                    );
                    let event = Event::new(Timestamp::now(), Level::Warn, "invite-closed", message);
                    self.journal.record(event.with("invite", id));
                }
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
        self.bundle(&controller, Answer::of(new)).await
    }
}

/// What a stranger is told, whatever was wrong with the code.
pub(crate) fn refused() -> Refusal {
    let message = "this code cannot be used: it is wrong, used, taken back or too old";
    let hint = "ask for another one: `matterbind controller invite` on the hub";
    Refusal::new("code-refused", Disposition::UserAction, message, hint)
}
