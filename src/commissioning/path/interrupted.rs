//! Back onto the path: a device that an interrupted attempt has left on our fabric, its fail-safe armed. Over a new PASE session it
//! could not be taken further, for that belongs to no fabric; over CASE it can (Matter Core 11.10.7.2, 11.18.6.8). Not here: finding it.

use std::sync::Arc;
use std::time::Duration;

use super::{Breadcrumb, OperationalCommissionee, at};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::ports::{DeviceDescription, OperationalSession};
use crate::commissioning::step::Step;
use crate::failpoint;

/// It has answered as our node, by the certificate that the interrupted attempt gave it.
pub(crate) struct InterruptedCommissionee<C> {
    session: Arc<C>,
    description: Box<DeviceDescription>,
}

/// Whether a device is where we left it.
pub(crate) enum FoundAgain<C> {
    /// Its breadcrumb is one of ours: its fail-safe is the one that we have armed.
    Here(InterruptedCommissionee<C>),
    /// It says something else, 0 where it has nothing left to finish.
    Elsewhere {
        /// What it says.
        breadcrumb: u64,
    },
}

impl<C: OperationalSession> InterruptedCommissionee<C> {
    /// Reads what the device is, and Breadcrumb.
    ///
    /// # Errors
    /// The link's.
    pub(crate) async fn find(session: C) -> Result<FoundAgain<C>, CommissioningError> {
        failpoint::reach("resume.met");
        let description = session.describe().await.map_err(at(Step::ReadInfo))?;
        let breadcrumb = description.facts.breadcrumb;
        Ok(match Breadcrumb::read(breadcrumb) {
            Some(_) => FoundAgain::Here(Self { session: Arc::new(session), description: Box::new(description) }),
            None => FoundAgain::Elsewhere { breadcrumb },
        })
    }

    /// What it says of itself.
    pub(crate) fn description(&self) -> &DeviceDescription {
        &self.description
    }

    /// ArmFailSafe over CASE, which covers what is left of the way.
    ///
    /// # Errors
    /// The link's.
    pub(crate) async fn rearm(self, expiry: Duration) -> Result<OperationalCommissionee<C>, CommissioningError> {
        let Self { session, description } = self;
        let expiry = expiry.min(description.max_cumulative_fail_safe);
        session.arm_fail_safe(expiry, Breadcrumb::Resumed.value()).await.map_err(at(Step::ArmFailSafe))?;
        failpoint::reach("resume.armed");
        let fabric_index = session.current_fabric_index().await.map_err(at(Step::Operational))?;
        Ok(OperationalCommissionee { session, fabric_index })
    }
}
