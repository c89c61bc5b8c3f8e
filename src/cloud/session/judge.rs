//! What the answers to sign-in and refresh mean (cloud-contract 2.3). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::TokensData;
use crate::cloud::tokens::{SignInBlock, TokenPair};
use crate::outbox::ports::CloudError;

/// Lifetime of the access token where the answer does not say.
const ACCESS_LIFETIME: SignedDuration = SignedDuration::from_hours(2);
/// Lifetime of the refresh token where the answer does not say.
const REFRESH_LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Reads both tokens; `None` where one is missing or empty.
pub(super) fn tokens(data: Value, now: Timestamp) -> Option<TokenPair> {
    let data: TokensData = serde_json::from_value(data).ok()?;
    let (access, refresh) = (data.access_token, data.refresh_token);
    let (access_text, refresh_text) = (access.token.expose(), refresh.token.expose());
    if access_text.is_empty() || refresh_text.is_empty() {
        return None;
    }
    Some(TokenPair {
        access_expires_at: now + lifetime(access_text, access.expiration_time, ACCESS_LIFETIME, now),
        refresh_expires_at: now + lifetime(refresh_text, refresh.expiration_time, REFRESH_LIFETIME, now),
        access: access.token,
        refresh: refresh.token,
    })
}

/// How long a token lives: between the two times in the token itself, both by the service's clock. Else from the
/// expiration time and the local clock, if that gives a life no longer than usual.
fn lifetime(token: &str, expiration: Option<i64>, usual: SignedDuration, now: Timestamp) -> SignedDuration {
    let own = claims(token).map(|claims| SignedDuration::from_secs(claims.exp.saturating_sub(claims.iat)));
    let by_local_clock = expiration.map(|time| SignedDuration::from_secs(time.saturating_sub(now.as_second())));
    let sane = |life: &SignedDuration| life.is_positive() && *life <= REFRESH_LIFETIME * 12;
    own.filter(sane).or(by_local_clock.filter(|life| sane(life) && *life <= usual)).unwrap_or(usual)
}

/// The registered claims of a JWT that we use; its signature is the service's business.
#[derive(Deserialize)]
struct Claims {
    iat: i64,
    exp: i64,
}

fn claims(token: &str) -> Option<Claims> {
    let payload = token.trim_start_matches("Bearer ").split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// What follows from a refused sign-in: how long to stay away, and what to tell the operator.
pub(super) fn refusal(code: i64, cloud_message: &str, credentials: String, now: Timestamp) -> SignInBlock {
    let minutes = |count: i64| Some(now + SignedDuration::from_mins(count));
    let (advice, not_before) = match code {
        5583..=5586 => ("wrong email or password, and the account will be locked: correct password_file", None),
        5028 | 5097 | 5353 => ("wrong email or password: correct password_file", None),
        5022 | 5026 | 5031 | 5040 | 5056 => ("correct cloud.email or password_file", None),
        5420 | 5550 => ("correct user_domain_secret_file: it does not belong to cloud.user_domain", None),
        5013 | 5015 | 5023 => ("correct cloud.user_domain", None),
        5147 | 5148 => ("the account is locked for 20 minutes", minutes(20)),
        5325 => ("the cloud blocks this network for 24 hours", minutes(24 * 60)),
        5104 => ("the user domain is disabled: ask its operator", minutes(60)),
        6084 | 6085 => ("the account belongs to another region: correct cloud.base_url", minutes(60)),
        _ => ("the cloud refused the sign-in for now", minutes(1)),
    };
    let said = format!("{code} {cloud_message}");
    let message = format!("{advice} (the cloud says: {})", said.trim_end());
    SignInBlock { code, message, not_before, credentials }
}

/// The error of every call while the block stands.
pub(super) fn blocked(block: &SignInBlock) -> CloudError {
    CloudError::SignIn { code: Some(block.code), message: block.message.clone(), not_before: block.not_before }
}

/// A sign-in without an answer: the call that needed it was certainly not sent.
pub(super) fn without_answer(error: CloudError) -> CloudError {
    match error {
        CloudError::Ambiguous { cause } | CloudError::NotSent { cause } => {
            CloudError::NotSent { cause: format!("signing in to the cloud did not end: {cause}") }
        }
        CloudError::Foreign { answer, .. } => CloudError::Foreign { answer, sent: false },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn data(token: &str, expiration: i64) -> Value {
        let token = json!({ "token": token, "expirationTime": expiration });
        json!({ "accessToken": token, "refreshToken": token })
    }

    #[test]
    fn a_wrong_local_clock_does_not_change_the_lifetime() {
        let payload = URL_SAFE_NO_PAD.encode(json!({ "iat": 1_000_000, "exp": 1_007_200 }).to_string());
        let token = format!("Bearer x.{payload}.y");
        for now in ["1970-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "2090-01-01T00:00:00Z"] {
            let now: Timestamp = now.parse().unwrap();
            let pair = tokens(data(&token, 1_007_200), now).unwrap();
            assert_eq!(pair.access_expires_at.duration_since(now), SignedDuration::from_secs(7200));
        }
    }

    #[test]
    fn an_opaque_token_lives_as_announced_but_never_longer_than_usual() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let life = |expiration| {
            let pair = tokens(data("opaque", expiration), now).unwrap();
            pair.access_expires_at.duration_since(now).as_secs()
        };
        assert_eq!(life(1_000_600), 600);
        for odd in [0, 999_999, 9_000_000, i64::MAX, i64::MIN] {
            assert_eq!(life(odd), 7200, "{odd}");
        }
    }

    #[test]
    fn answers_without_tokens_are_no_sign_in() {
        for bad in [json!(null), json!({}), json!({ "accessToken": { "token": "a" } }), data("", 1)] {
            assert_eq!(tokens(bad, Timestamp::UNIX_EPOCH), None);
        }
    }

    #[test]
    fn the_documented_waits_are_kept() {
        let now = Timestamp::UNIX_EPOCH;
        let wait =
            |code| refusal(code, "", String::new(), now).not_before.map(|time| time.duration_since(now).as_secs() / 60);
        for code in [5583, 5584, 5585, 5586, 5028, 5097, 5420, 5031, 5015] {
            assert_eq!(wait(code), None, "{code}");
        }
        assert_eq!((wait(5147), wait(5148), wait(5325), wait(5000)), (Some(20), Some(20), Some(1440), Some(1)));
    }
}
