//! Who has logged in on the page: a session is a random word in a cookie, of which only the digest is kept, in memory. A restart
//! of the daemon ends them all. Not here: what a log-in takes (`auth`), the form (`page`).

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::wire::SessionView;
use crate::secret::OperatorSecret;

/// A session ends when nobody has used it for this long.
const IDLE: SignedDuration = SignedDuration::from_hours(24);
/// A session ends after this however much it is used.
const LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// More people do not look after one hub; one more ends the session that was used least lately.
const MOST: usize = 64;
/// Of what a browser says of itself.
const BROWSER: usize = 160;

/// The session that lets a request in.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) id: String,
    /// What is still being answered then ends.
    pub(super) ended: CancellationToken,
}

#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Vec<Session>>);

/// Its streams end with it.
impl Drop for Session {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

#[derive(Debug)]
struct Session {
    digest: [u8; 32],
    view: SessionView,
    ended: CancellationToken,
}

impl Sessions {
    /// Begins a session; the word for its cookie.
    pub(super) fn begin(&self, from: IpAddr, browser: &str, now: Timestamp) -> OperatorSecret {
        let word = OperatorSecret::new(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        let view = SessionView {
            id: format!("{:016x}", rand::random::<u64>()),
            from: from.to_canonical().to_string(),
            browser: crate::plain::clean(browser, BROWSER),
            began_at: now,
            used_at: now,
            current: false,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|session| session.is_open(now));
        if all.len() >= MOST
            && let Some((oldest, _)) = all.iter().enumerate().min_by_key(|(_, session)| session.view.used_at)
        {
            all.remove(oldest);
        }
        all.push(Session { digest: digest(word.expose()), view, ended: CancellationToken::new() });
        word
    }

    /// The open session whose word this is; it is used by this.
    pub(super) fn admit(&self, word: &str, now: Timestamp) -> Option<Known> {
        let wanted = digest(word);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter_mut().find(|session| session.digest == wanted && session.is_open(now))?;
        found.view.used_at = now;
        Some(Known { id: found.view.id.clone(), ended: found.ended.clone() })
    }

    /// All that are open, the latest first; `current` is the id of the session that asks.
    pub(super) fn list(&self, current: Option<&str>, now: Timestamp) -> Vec<SessionView> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.iter().filter(|session| session.is_open(now));
        let mut views: Vec<SessionView> = open
            .map(|Session { view, .. }| SessionView { current: current == Some(view.id.as_str()), ..view.clone() })
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.used_at));
        views
    }

    /// Ends one; whether it was there.
    pub(super) fn end(&self, id: &str) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.len();
        all.retain(|session| session.view.id != id);
        all.len() < before
    }
}

impl Session {
    fn is_open(&self, now: Timestamp) -> bool {
        // A clock that was set back ends nothing.
        now.duration_since(self.view.used_at) < IDLE && now.duration_since(self.view.began_at) < LIFE
    }
}

fn digest(word: &str) -> [u8; 32] {
    Sha256::digest(word.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    #[test]
    fn a_session_lasts_while_it_is_used_and_not_for_ever() {
        let (sessions, from) = (Sessions::default(), "192.0.2.1".parse().unwrap());
        let word = sessions.begin(from, "A browser\u{1b}[2J", at(0));
        assert!(sessions.admit("another word", at(0)).is_none());
        let Known { id, ended } = sessions.admit(word.expose(), at(23)).unwrap();
        assert_eq!(sessions.list(Some(&id), at(23))[0].browser, "A browser");
        assert!(sessions.list(Some(&id), at(23))[0].current);
        assert_eq!(sessions.admit(word.expose(), at(46)).unwrap().id, id);
        assert!(sessions.admit(word.expose(), at(46 + 24)).is_none(), "nobody used it for a day");
        assert!(!ended.is_cancelled());
        let word = sessions.begin(from, "", at(70));
        assert!(ended.is_cancelled(), "its streams end with it");
        for hour in (70..790).step_by(20) {
            assert!(sessions.admit(word.expose(), at(hour)).is_some(), "{hour}");
        }
        assert!(sessions.admit(word.expose(), at(790)).is_none(), "a month is over");
    }

    #[test]
    fn one_is_ended_and_the_others_go_on() {
        let (sessions, from) = (Sessions::default(), "2001:db8::1".parse().unwrap());
        let [one, other] = [0, 1].map(|hour| sessions.begin(from, "", at(hour)));
        let Known { id, ended } = sessions.admit(one.expose(), at(2)).unwrap();
        assert!(sessions.end(&id) && !sessions.end(&id) && ended.is_cancelled());
        assert!(sessions.admit(one.expose(), at(2)).is_none());
        assert!(sessions.admit(other.expose(), at(2)).is_some());
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let (sessions, from) = (Sessions::default(), "192.0.2.1".parse().unwrap());
        let words: Vec<_> = (0..=MOST).map(|n| sessions.begin(from, "", at(n as i64 / 10))).collect();
        assert_eq!(sessions.list(None, at(7)).len(), MOST);
        assert!(sessions.admit(words[0].expose(), at(7)).is_none());
        assert!(sessions.admit(words[MOST].expose(), at(7)).is_some());
    }
}
