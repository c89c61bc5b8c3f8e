//! What a device is told of its place and time before it gets credentials (Matter Core 5.5, steps 8 to 11): terms, regulatory
//! domain, clock. Not here: its network (`path::network`).

use jiff::Timestamp;
use jiff::tz::{Dst, TimeZone};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Breadcrumb;
use crate::commissioning::error::CommissioningError;
use crate::commissioning::ports::{DeviceDescription, LinkError, LocalTime, PaseSession};
use crate::commissioning::step::Step;

/// CommissioningErrorEnum (11.10.5.1).
const VALUE_OUTSIDE_RANGE: u8 = 1;
/// The country of those who do not say.
const NO_COUNTRY: &str = "XX";

/// The terms and conditions that a person has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptedTerms {
    /// TCVersion.
    pub version: u16,
    /// TCUserResponse: one bit for each of the terms.
    pub bits: u16,
}

/// What the hub knows of the place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preparation {
    /// ISO 3166-1 alpha-2; `None` where none is configured.
    pub country: Option<String>,
    /// The time, where the hub's own clock is set, and the zone that it keeps.
    pub time: Option<(Timestamp, TimeZone)>,
    /// What a person has accepted.
    pub terms: Option<AcceptedTerms>,
}

/// Tells the device all of it that it can take.
///
/// # Errors
/// The link's, or terms that are required and not accepted.
pub(super) async fn prepare<S: PaseSession>(
    session: &S,
    description: &DeviceDescription,
    place: &Preparation,
) -> Result<(), CommissioningError> {
    let at = |cause| CommissioningError::Link { step: Step::ReadInfo, cause };
    if let Some(terms) = description.facts.terms.filter(|terms| terms.required) {
        match place.terms {
            Some(accepted) if accepted.version >= terms.minimum_version => {
                session.acknowledge_terms(accepted.version, accepted.bits).await.map_err(at)?;
            }
            other => {
                let accepted = other.map(|accepted| accepted.version);
                return Err(CommissioningError::TermsRequired { version: terms.minimum_version, accepted });
            }
        }
    }
    if description.needs_regulatory_config {
        let (country, breadcrumb) = (place.country.as_deref().unwrap_or(NO_COUNTRY), Breadcrumb::Armed.value());
        match session.set_regulatory_config(country, breadcrumb).await {
            Err(LinkError::Commissioning { code: VALUE_OUTSIDE_RANGE, .. }) if country != NO_COUNTRY => {
                tracing::warn!(country, "the device does not know the country; it is told none");
                session.set_regulatory_config(NO_COUNTRY, breadcrumb).await.map_err(at)?;
            }
            told => told.map_err(at)?,
        }
    }
    if let (true, Some((now, zone))) = (description.facts.keeps_time, &place.time) {
        // No reason to fail: a device without the time asks for it later.
        if let Err(error) = session.set_time(local_time(*now, zone)).await {
            tracing::warn!(%error, "the device was not told the time");
        }
    }
    Ok(())
}

/// The time as the device wants it: the standard offset now, and the summer time that holds and that comes.
pub(super) fn local_time(now: Timestamp, zone: &TimeZone) -> LocalTime {
    let info = zone.to_offset_info(now);
    let next = zone.following(now).next();
    let summer = |info_offset: i32, standard: i32| info_offset - standard;
    let standard = match info.dst() {
        Dst::No => info.offset().seconds(),
        // The offset without summer time is the one that follows or came before it.
        Dst::Yes => next
            .as_ref()
            .filter(|next| next.dst() == Dst::No)
            .map_or(info.offset().seconds(), |next| next.offset().seconds()),
    };
    LocalTime {
        utc: now,
        offset_s: standard,
        summer_s: summer(info.offset().seconds(), standard),
        summer_until: next.filter(|_| info.offset().seconds() != standard).map(|next| next.timestamp()),
        zone: zone.iana_name().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summer_time_is_told_apart_from_the_zone() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let at = |text: &str| local_time(text.parse().unwrap(), &zone);
        let winter = at("2026-01-15T12:00:00Z");
        assert_eq!((winter.offset_s, winter.summer_s, winter.summer_until), (3600, 0, None));
        let summer = at("2026-07-15T12:00:00Z");
        assert_eq!((summer.offset_s, summer.summer_s), (3600, 3600));
        assert_eq!(summer.summer_until, Some("2026-10-25T01:00:00Z".parse().unwrap()));
    }
}
