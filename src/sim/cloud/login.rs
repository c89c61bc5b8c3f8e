//! Sign-in with real decryption and signature check, refresh and sign-out (cloud-contract 2).

use jiff::SignedDuration;
use serde_json::Value;

use super::routes::Call;
use super::world::{Refusal, TokenKind, World};
use crate::cloud::login::{decrypt_password, signature};

/// Tries before an account is locked.
const MAX_FAILURES: u32 = 5;
/// For so long.
const LOCK: SignedDuration = SignedDuration::from_mins(20);

pub(super) fn email_pwd_login(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let domain_id = call.required("userDomain", 5023)?;
    if !domain_id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return Err(5013.into());
    }
    let domain = world.scenario.domains.iter().find(|domain| domain.id == domain_id).ok_or(5015)?.clone();
    if domain.disabled {
        return Err(5104.into());
    }
    let email = call.required("email", 5026)?;
    if !email.contains('@') {
        return Err(5040.into());
    }
    let pwd = call.required("pwd", 5022)?;
    let random = call.param("random").unwrap_or_default();
    if call.required("signature", 5550)? != signature(&[email, pwd, random, &domain.secret]) {
        return Err(5420.into());
    }
    let user = world.user(email).filter(|user| user.domain == domain.id).ok_or(5031)?.clone();
    check_password(world, &user.email, &user.password, pwd, random)?;
    if world.switches().single_session {
        world.revoke_tokens(Some(email), None);
    }
    world.counters.logins += 1;
    Ok(world.issue_tokens(email))
}

/// 5583 to 5586 count the tries that are left; then 20 minutes of 5147.
fn check_password(world: &mut World, email: &str, right: &str, pwd: &str, random: &str) -> Result<(), Refusal> {
    let now = world.now();
    let lock = world.locks.entry(email.to_owned()).or_default();
    if let Some(until) = lock.until {
        if now < until {
            return Err(5147.into());
        }
        *lock = super::world::Lock::default();
    }
    let given = decrypt_password(pwd, random).ok_or(5353)?;
    if given.as_str() == right {
        lock.failures = 0;
        return Ok(());
    }
    lock.failures += 1;
    if lock.failures >= MAX_FAILURES {
        lock.until = Some(now + LOCK);
        return Err(5147.into());
    }
    Err((5582 + i64::from(MAX_FAILURES - lock.failures)).into())
}

pub(super) fn refresh_token(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let text = call.required("refreshToken", 5106)?.to_owned();
    let email = world.token(&text, TokenKind::RefreshToken).ok_or(5032)?.email.clone();
    if world.switches().rotate_refresh_tokens {
        world.tokens.remove(&text);
    }
    world.counters.refreshes += 1;
    Ok(world.issue_tokens(&email))
}

pub(super) fn user_logout(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = world.caller(call.token())?;
    world.revoke_tokens(Some(&user.email), None);
    Ok(Value::Null)
}
