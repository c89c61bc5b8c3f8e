//! The active dataset of the border router on this machine, over D-Bus (OpenThread's `io.openthread.BorderRouter`). Not here: its
//! REST interface, which answers on the network as well (`client`).

use std::time::Duration;

use zbus::{Connection, Proxy};
use zeroize::Zeroizing;

use super::super::exit::CliError;
use crate::plain;
use crate::secret::OperatorSecret;

/// What `--from-otbr` says for D-Bus; an interface's name may follow after a colon.
pub(super) const DBUS: &str = "dbus";
/// The Thread interface, where nobody names another.
const INTERFACE: &str = "wpan0";
/// Local, and quick.
const ANSWER: Duration = Duration::from_secs(5);

/// Which Thread interface's dataset is meant, where the value of `--from-otbr` means D-Bus at all.
pub(super) fn interface(from: &str) -> Option<&str> {
    match from.strip_prefix(DBUS)? {
        "" => Some(INTERFACE),
        rest => rest.strip_prefix(':').filter(|name| !name.is_empty()),
    }
}

/// Asks the border router of that interface.
///
/// # Errors
/// There is no D-Bus, no border router, or no network that it is on.
pub(super) async fn active_dataset(interface: &str) -> Result<OperatorSecret, CliError> {
    let failed = |what: String| {
        CliError::Usage(format!(
            "the border router of {interface} did not tell its dataset over D-Bus: {what}. Check that otbr-agent runs here and that you \
             may ask it (root may), or take the dataset from its REST interface: --from-otbr URL"
        ))
    };
    let asked = tokio::time::timeout(ANSWER, ask(interface)).await;
    let answer = asked.map_err(|_| failed(format!("no answer within {} s", ANSWER.as_secs())))?;
    let tlvs = Zeroizing::new(answer.map_err(|error| failed(error.to_string()))?);
    if tlvs.is_empty() {
        return Err(failed("it is on no network".to_owned()));
    }
    Ok(OperatorSecret::new(plain::lower_hex(&tlvs)))
}

async fn ask(interface: &str) -> zbus::Result<Vec<u8>> {
    let (service, path) =
        (format!("io.openthread.BorderRouter.{interface}"), format!("/io/openthread/BorderRouter/{interface}"));
    let bus = Connection::system().await?;
    let router = Proxy::new(&bus, service, path, "io.openthread.BorderRouter").await?;
    router.get_property("ActiveDatasetTlvs").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_is_not_d_bus() {
        assert_eq!((interface("dbus"), interface("dbus:wpan1")), (Some("wpan0"), Some("wpan1")));
        for other in ["http://dbus:8081", "dbus:", "dbus.local", ""] {
            assert_eq!(interface(other), None, "{other}");
        }
    }
}
