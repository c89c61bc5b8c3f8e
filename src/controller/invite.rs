//! Invitations: a code that one app may turn into one certificate with certain tags, within a short time.
//!
//! A code is `IDID-SECR-ETSE`: four characters that name the invitation, eight that must be known. So a wrong guess counts
//! against one invitation only, and a flood of guesses closes nobody else's. Kept is a digest of the secret part. Pure: not
//! here, where it is kept (`store::controllers`), who is asked and how fast (`admin`, `hub::controllers`).

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::node::NodeId;
use crate::secret::OperatorSecret;

/// Crockford's base 32: nothing in it can be taken for something else.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const ID: usize = 4;
const SECRET: usize = 8;
/// Wrong codes that an invitation bears.
pub(crate) const TRIES: u8 = 5;

/// A code as it was typed or scanned.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteCode {
    id: String,
    secret: OperatorSecret,
}

impl fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InviteCode({}-..)", self.id)
    }
}

impl InviteCode {
    /// Of random bytes.
    pub fn new(random: [u8; ID + SECRET]) -> Self {
        let text: String = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
        Self { id: text[..ID].to_owned(), secret: OperatorSecret::new(&text[ID..]) }
    }

    /// Reads what a person typed: dashes, blanks and case do not matter, and `O`, `I`, `L` are what they look like.
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let read = |c: char| match c.to_ascii_uppercase() {
            'O' => Some('0'),
            'I' | 'L' => Some('1'),
            c if c.is_ascii() && ALPHABET.contains(&(c as u8)) => Some(c),
            _ => None,
        };
        let typed = text.chars().filter(|c| !matches!(c, '-' | ' '));
        let text: String = typed.map(read).collect::<Option<_>>()?;
        (text.len() == ID + SECRET)
            .then(|| Self { id: text[..ID].to_owned(), secret: OperatorSecret::new(&text[ID..]) })
    }

    /// The part that names the invitation; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// For the person who invites.
    pub fn text(&self) -> OperatorSecret {
        let (first, second) = self.secret.expose().split_at(SECRET / 2);
        OperatorSecret::new(format!("{}-{first}-{second}", self.id))
    }

    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"matterbind invite v1\0");
        hash.update(self.id.as_bytes());
        hash.update(self.secret.expose().as_bytes());
        crate::plain::lower_hex(&hash.finalize())
    }
}

/// An invitation as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The first part of its code.
    pub id: String,
    digest: String,
    /// The identifiers of the tags that its certificate gets.
    pub cats: Vec<u16>,
    /// How the controller is to be called; `None`: as it says.
    pub name: Option<String>,
    /// How long its certificate is valid, seconds.
    pub valid_s: u64,
    /// When it was made.
    pub made_at: Timestamp,
    pub expires_at: Timestamp,
    /// Wrong codes that it bears yet.
    pub tries_left: u8,
    /// Who used it, and with which key.
    pub used_by: Option<(NodeId, String)>,
}

/// Why a code is not taken. A stranger is not told which of these it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteRefused {
    /// No invitation has this name.
    #[error("no invitation has this code")]
    Unknown,
    /// The secret part is another.
    #[error("the code is wrong, and may be wrong {left} times more")]
    Wrong { left: u8 },
    /// It was wrong too often.
    #[error("too many wrong codes were tried for this invitation")]
    Closed,
    /// Its time is over.
    #[error("the invitation has run out")]
    Expired,
    /// It has its controller.
    #[error("the invitation was used already")]
    Used,
}

/// What an invitation offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The identifiers of the tags.
    pub cats: Vec<u16>,
    /// How the controller is to be called.
    pub name: Option<String>,
    /// How long its certificate is valid, seconds.
    pub valid_s: u64,
}

impl Invite {
    /// A fresh one for this code.
    pub fn new(code: &InviteCode, offer: Offer, now: Timestamp, expires_at: Timestamp) -> Self {
        let Offer { cats, name, valid_s } = offer;
        Self {
            id: code.id.clone(),
            digest: code.digest(),
            cats,
            name,
            valid_s,
            made_at: now,
            expires_at,
            tries_left: TRIES,
            used_by: None,
        }
    }

    pub fn offer(&self) -> Offer {
        Offer { cats: self.cats.clone(), name: self.name.clone(), valid_s: self.valid_s }
    }

    /// Whether a code may still be turned into a certificate.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.used_by.is_none() && self.tries_left > 0 && now < self.expires_at
    }

    /// Somebody shows a code, and asks for a certificate of the key with this fingerprint. The caller keeps what changed
    /// before it answers. Whoever asked before and did not get the answer asks with the same key, and is let in again.
    ///
    /// # Errors
    /// See [`InviteRefused`].
    pub fn handle_code(&mut self, code: &InviteCode, key: &str, now: Timestamp) -> Result<(), InviteRefused> {
        if now >= self.expires_at {
            return Err(InviteRefused::Expired);
        }
        if self.tries_left == 0 {
            return Err(InviteRefused::Closed);
        }
        if code.digest() != self.digest {
            self.tries_left -= 1;
            return Err(InviteRefused::Wrong { left: self.tries_left });
        }
        match &self.used_by {
            Some((_, used)) if used != key => Err(InviteRefused::Used),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn invite() -> (InviteCode, Invite) {
        let code = InviteCode::new([1, 2, 3, 31, 5, 6, 7, 8, 9, 10, 11, 12]);
        let offer = Offer { cats: vec![2], name: None, valid_s: 3600 };
        let invite = Invite::new(&code, offer, NOW, NOW + SignedDuration::from_mins(10));
        (code, invite)
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let (code, _) = invite();
        assert_eq!(code.text().expose(), "123Z-5678-9ABC");
        assert_eq!(InviteCode::read(" l23z 5678-9abc"), Some(code.clone()));
        assert_eq!(format!("{code:?}"), "InviteCode(123Z-..)");
        for wrong in ["", "123Z-5678-9AB", "123Z-5678-9ABCD", "123Z-5678-9ABU", "123Z-5678-9AB\u{e4}"] {
            assert_eq!(InviteCode::read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_code_is_good_once_and_for_one_key() {
        let (code, mut invite) = invite();
        assert_eq!(invite.handle_code(&code, "a", NOW), Ok(()));
        invite.used_by = Some((NodeId(1001), "a".to_owned()));
        assert_eq!(invite.handle_code(&code, "b", NOW), Err(InviteRefused::Used));
        assert_eq!(invite.handle_code(&code, "a", NOW), Ok(()), "the answer was lost");
        assert!(!invite.is_open(NOW));
        assert_eq!(invite.handle_code(&code, "a", invite.expires_at), Err(InviteRefused::Expired));
    }

    #[test]
    fn five_guesses_close_an_invitation_for_the_right_code_too() {
        let (code, mut invite) = invite();
        let guess = InviteCode::read("123Z-5678-9ABD").unwrap();
        for left in (0..TRIES).rev() {
            assert_eq!(invite.handle_code(&guess, "a", NOW), Err(InviteRefused::Wrong { left }));
            assert_eq!(invite.tries_left, left);
        }
        assert_eq!(invite.handle_code(&code, "a", NOW), Err(InviteRefused::Closed));
        assert!(!invite.is_open(NOW));
    }
}
