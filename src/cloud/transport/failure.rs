//! What a request that got no answer says to a person: one sentence, from the chain of causes that the HTTP client gives. Pure.

use std::error::Error;
use std::io;

use jiff::Timestamp;
use rustls::CertificateError as Certificate;

use crate::outbox::ports::CloudError;
use crate::plain;

/// Connection, name or TLS failed: nothing left the hub. Anything later may have arrived.
pub(super) fn judge(error: reqwest::Error, at: &str, now: Timestamp) -> CloudError {
    let (not_sent, late) = (error.is_connect() || error.is_builder(), error.is_timeout());
    // The URL may hold a device key, and says nothing that the operator did not configure.
    let error = error.without_url();
    if let Some(rustls::Error::InvalidCertificate(found)) = find::<rustls::Error>(&error) {
        return untrusted(found, at, now);
    }
    let why = match find_io(&error) {
        Some(io) if io.kind() != io::ErrorKind::Other => plain::cause(io),
        _ if late => "no answer in time".to_owned(),
        _ => plain::cause(innermost(&error)),
    };
    if not_sent {
        CloudError::NotSent { cause: format!("the cloud at {at} does not answer: {why}") }
    } else {
        CloudError::Ambiguous { cause: format!("the connection to {at} broke before the answer was there: {why}") }
    }
}

/// The machine has nothing to trust a server by.
pub(super) fn no_trust_store(error: &(dyn Error + 'static)) -> CloudError {
    CloudError::Untrusted {
        cause: format!("the hub cannot check the cloud's certificate: {}", innermost(error)),
        hint: "install the ca-certificates package, or name a file with SSL_CERT_FILE: it goes on by itself then"
            .to_owned(),
    }
}

/// The certificate of whoever answers is found wanting. Where that is a matter of time, both times are said.
fn untrusted(error: &Certificate, at: &str, now: Timestamp) -> CloudError {
    let date = |seconds: u64| {
        Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX)).map_or_else(
            |_| "a time beyond all calendars".to_owned(),
            |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        )
    };
    let clock = format!("the hub's clock says {}", now.strftime("%Y-%m-%d %H:%M UTC"));
    let set_it =
        "set the hub's clock (NTP): it goes on by itself then; if the clock is right, the cloud's certificate is not";
    let (cause, hint) = match error {
        Certificate::NotValidYetContext { not_before, .. } => {
            (format!("the certificate of {at} is valid from {} on, and {clock}", date(not_before.as_secs())), set_it)
        }
        Certificate::NotValidYet => (format!("the certificate of {at} is not valid yet: {clock}"), set_it),
        Certificate::ExpiredContext { not_after, .. } => {
            (format!("the certificate of {at} was valid until {}, and {clock}", date(not_after.as_secs())), set_it)
        }
        Certificate::Expired => (format!("the certificate of {at} is not valid any more: {clock}"), set_it),
        Certificate::UnknownIssuer => (
            format!("the certificate of {at} was issued by nobody whom this machine trusts"),
            "something may stand between hub and cloud; if it is meant to, add its CA to the machine's trust store",
        ),
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => (
            format!("the certificate that {at} shows is for another name"),
            "check cloud.base_url; a network that asks for a sign-in does the same",
        ),
        other => (
            format!("the certificate of {at} cannot be trusted: {}", rustls::Error::from(other.clone())),
            "check cloud.base_url, and what stands between hub and cloud; it goes on by itself then",
        ),
    };
    CloudError::Untrusted { cause, hint: hint.to_owned() }
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut last = error;
    while let Some(inner) = last.source() {
        last = inner;
    }
    last
}

fn find_io<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An I/O error shows what it carries, but not as its source.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let carried = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        if let Some(found) = carried.and_then(|carried| find::<E>(carried)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::*;

    fn said(error: Certificate) -> (String, String) {
        let carried = io::Error::other(rustls::Error::InvalidCertificate(error));
        let Some(rustls::Error::InvalidCertificate(found)) = find::<rustls::Error>(&carried) else { panic!() };
        match untrusted(found, "cloud.test", Timestamp::UNIX_EPOCH) {
            CloudError::Untrusted { cause, hint } => (cause, hint),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn time_is_said_in_dates_and_the_clock_comes_first() {
        let time = UnixTime::since_unix_epoch(Duration::ZERO);
        let not_before = UnixTime::since_unix_epoch(Duration::from_secs(1_795_000_000));
        let (cause, hint) = said(Certificate::NotValidYetContext { time, not_before });
        assert_eq!(
            cause,
            "the certificate of cloud.test is valid from 2026-11-18 11:06 UTC on, and the hub's clock says 1970-01-01 00:00 UTC"
        );
        assert!(hint.starts_with("set the hub's clock"), "{hint}");
        let (cause, hint) = said(Certificate::ExpiredContext { time, not_after: not_before });
        assert!(
            cause.contains("was valid until 2026-11-18") && hint.starts_with("set the hub's clock"),
            "{cause} {hint}"
        );
        let (cause, hint) = said(Certificate::UnknownIssuer);
        assert!(!cause.contains("clock") && !hint.contains("clock"), "{cause} {hint}");
    }
}
