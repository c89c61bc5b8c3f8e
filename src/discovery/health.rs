//! Whether discovery works, as far as the hub can tell from itself.

use std::fmt;

/// What there is to say about discovery now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// The interfaces on which the hub listens and asks.
    pub interfaces: Vec<String>,
    /// Interfaces that the configuration names and the system does not have, or that are down.
    pub missing: Vec<String>,
    /// Why it cannot work at all; absent where it does.
    pub failure: Option<String>,
}

impl Health {
    /// Devices can be found.
    pub fn is_well(&self) -> bool {
        self.failure.is_none()
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Some(failure) => write!(f, "{failure}")?,
            None => write!(f, "discovery runs on {}", self.interfaces.join(", "))?,
        }
        if !self.missing.is_empty() && !self.interfaces.is_empty() {
            write!(f, "; configured but not there: {}", self.missing.join(", "))?;
        }
        Ok(())
    }
}

/// Why nothing can be heard, where no interface takes part. `missing` are the configured ones that are not there.
pub(crate) fn no_interface(missing: &[String]) -> String {
    if missing.is_empty() {
        "no network interface is up, has an address and can multicast".to_owned()
    } else if missing.iter().all(|name| name == "lo") {
        "network.interfaces names only the loopback interface lo, on which no device can be heard (network.loopback allows it)"
            .to_owned()
    } else {
        format!("none of the interfaces in network.interfaces is up: {}", missing.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_wrong_in_one_sentence() {
        let lan = || vec!["eth0".to_owned()];
        let well = Health { interfaces: lan(), ..Health::default() };
        assert_eq!((well.is_well(), well.to_string().as_str()), (true, "discovery runs on eth0"));
        let half = Health { missing: vec!["eth7".to_owned()], ..well };
        assert_eq!(half.to_string(), "discovery runs on eth0; configured but not there: eth7");
        let deaf = Health { failure: Some(no_interface(&half.missing)), interfaces: Vec::new(), missing: half.missing };
        assert!(!deaf.is_well());
        assert_eq!(deaf.to_string(), "none of the interfaces in network.interfaces is up: eth7");
        assert!(no_interface(&[]).contains("no network interface"));
        assert!(no_interface(&["lo".to_owned()]).contains("only the loopback interface"));
    }
}
