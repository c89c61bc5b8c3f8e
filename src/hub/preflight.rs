//! Asks the cloud before a device gets credentials whether it could be bound (cloud-contract 3.1), and refuses early where it
//! could not. A cloud that cannot be asked stops nobody. When to ask is the commissioning driver's.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use crate::bind::CloudDevice;
use crate::bind::codes::{self, Remedy};
use crate::commissioning::driver::{Preflight, PreflightAnswer};
use crate::config::BeforeCommissioning;
use crate::outbox::ports::{BindApi, BindPreview, CloudError};

/// Attestation takes about as long on a slow device; nobody waits longer for this.
const PATIENCE: Duration = Duration::from_secs(4);
/// The device key is not what the cloud takes for one (5361).
const BAD_DEVICE_KEY: i64 = 5361;
/// `bindingMode` of a product whose next user evicts the one before.
const ROTATION: u8 = 3;

/// The question as the driver asks it; `None` where the configuration does not want it asked.
pub(crate) fn preflight<C: BindApi>(policy: BeforeCommissioning, cloud: &Arc<C>) -> Option<Preflight> {
    if policy == BeforeCommissioning::Skip {
        return None;
    }
    let cloud = Arc::clone(cloud);
    Some(Arc::new(move |device: CloudDevice| {
        let cloud = Arc::clone(&cloud);
        async move { ask(policy, cloud.as_ref(), &device).await }.boxed()
    }))
}

async fn ask(policy: BeforeCommissioning, cloud: &impl BindApi, device: &CloudDevice) -> PreflightAnswer {
    let asked = async {
        let preview = cloud.preview(device).await;
        // "Already bound" may mean by us: the device was reset, or our record was lost.
        let ours = match &preview {
            Err(CloudError::Code { code, .. }) if is_taken(*code) => matches!(cloud.find(device).await, Ok(Some(_))),
            Ok(BindPreview { binding_mode: Some(ROTATION), .. }) => matches!(cloud.find(device).await, Ok(Some(_))),
            _ => false,
        };
        (preview, ours)
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok((preview, ours)) => answer(policy, preview, ours),
        Err(_) => PreflightAnswer::GoAnd(format!(
            "the cloud did not say within {} s whether the device may be bound",
            PATIENCE.as_secs()
        )),
    }
}

/// Pure. `ours`: our own account has the device already.
fn answer(policy: BeforeCommissioning, preview: Result<BindPreview, CloudError>, ours: bool) -> PreflightAnswer {
    let refuse = |reason: String, strictly: bool| match policy {
        BeforeCommissioning::Strict => PreflightAnswer::Refuse(reason),
        BeforeCommissioning::Refuse if !strictly => PreflightAnswer::Refuse(reason),
        _ => PreflightAnswer::GoAnd(format!("the cloud would refuse or regret this device: {reason}")),
    };
    match preview {
        _ if ours => PreflightAnswer::GoAnd("the hub's account has this device in the cloud already".to_owned()),
        Ok(BindPreview { binding_mode: Some(ROTATION), .. }) => {
            let reason = "the product is in rotation mode: binding it takes it from whoever has it now";
            refuse(reason.to_owned(), true)
        }
        Ok(_) => PreflightAnswer::Go,
        Err(CloudError::Code { code, message }) if is_final(code) => {
            let meaning = codes::meaning_of(code);
            refuse(format!("{code} {message}: {}; {}", meaning.meaning, meaning.hint), false)
        }
        Err(error) => {
            PreflightAnswer::GoAnd(format!("the cloud does not say whether the device may be bound: {error}"))
        }
    }
}

fn is_taken(code: i64) -> bool {
    codes::lookup(code).is_some_and(|row| row.remedy == Remedy::DoneIfReadBack)
}

/// Whether waiting does not help. What passes (not reported yet, a fault, a token) is the outbox's business; an HTTP status
/// says something about the service, and an undocumented code nothing.
fn is_final(code: i64) -> bool {
    let row = codes::lookup(code).filter(|_| code >= 1000);
    row.is_some_and(|row| code == BAD_DEVICE_KEY || matches!(row.remedy, Remedy::DoneIfReadBack | Remedy::Operator))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: i64) -> Result<BindPreview, CloudError> {
        Err(CloudError::Code { code, message: "m".to_owned() })
    }

    fn mode(mode: u8) -> Result<BindPreview, CloudError> {
        Ok(BindPreview { binding_mode: Some(mode), product_name: None })
    }

    #[test]
    fn what_can_never_be_bound_is_refused() {
        for number in [5049, 5412, 5361, 5229, 5327, 5358, 5913, 6040, 6083] {
            let refused = answer(BeforeCommissioning::Refuse, code(number), false);
            assert!(matches!(refused, PreflightAnswer::Refuse(_)), "{number}");
            let warned = answer(BeforeCommissioning::Warn, code(number), false);
            assert!(matches!(warned, PreflightAnswer::GoAnd(_)), "{number}");
        }
    }

    #[test]
    fn what_may_pass_is_said_and_stops_nobody() {
        for number in [5009, 5460, 5465, 5048, 5314, 5032, 404, 429, 4711] {
            let answer = answer(BeforeCommissioning::Strict, code(number), false);
            assert!(matches!(answer, PreflightAnswer::GoAnd(_)), "{number}");
        }
        let down = Err(CloudError::NotSent { cause: "no route".to_owned() });
        assert!(matches!(answer(BeforeCommissioning::Strict, down, false), PreflightAnswer::GoAnd(_)));
        assert_eq!(answer(BeforeCommissioning::Strict, mode(1), false), PreflightAnswer::Go);
    }

    #[test]
    fn a_device_of_our_own_account_may_come_back() {
        assert!(matches!(answer(BeforeCommissioning::Strict, code(5049), true), PreflightAnswer::GoAnd(_)));
        assert!(matches!(answer(BeforeCommissioning::Strict, mode(3), true), PreflightAnswer::GoAnd(_)));
    }

    #[test]
    fn rotation_is_refused_where_the_configuration_is_strict() {
        assert!(matches!(answer(BeforeCommissioning::Strict, mode(3), false), PreflightAnswer::Refuse(_)));
        assert!(matches!(answer(BeforeCommissioning::Refuse, mode(3), false), PreflightAnswer::GoAnd(_)));
    }
}
