//! Verification and policy with the trust store that is loaded now: the driver's [`AttestationJudge`].

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

use crate::attestation::{self, Evidence, TrustStore, csr, policy};
use crate::commissioning::ports::{AttestationJudge, AttestationOverride, CollectedEvidence, CsrResponse, Judgement};
use crate::config::{AttestationConfig, Config};
use crate::journal::{Event, EventSink, Level};
use crate::paa;
use crate::store::JournalHandle;

/// See the module.
pub(super) struct Judge {
    trust: RwLock<Arc<TrustStore>>,
    policy: AttestationConfig,
}

impl Judge {
    /// Loads the PAA directories; each bad file is named in the admin log and the rest counts.
    pub(super) fn load(config: &Config, journal: &JournalHandle) -> Self {
        let judge = Self { trust: RwLock::default(), policy: config.attestation.clone() };
        judge.reload(config, journal);
        judge
    }

    /// Loads again, for instance after `attestation update-paa`.
    pub(super) fn reload(&self, config: &Config, journal: &JournalHandle) {
        let directories = paa::paa_dirs(&config.attestation, &config.state_dir);
        let loaded = paa::load(&directories, Some(&paa::revocation_dir(&config.state_dir)));
        for bad in &loaded.quarantined {
            let message = format!("left out of the trust store: {bad}");
            journal.record(Event::new(Timestamp::now(), Level::Warn, "paa-quarantined", message));
        }
        if loaded.trust.paa_count() == 0 {
            tracing::warn!("no PAA is trusted: every device will be refused until `matterbind attestation update-paa`");
        }
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded.trust);
    }

    fn trust(&self) -> Arc<TrustStore> {
        Arc::clone(&self.trust.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AttestationJudge for Judge {
    fn judge(&self, collected: &CollectedEvidence, overridden: Option<&AttestationOverride>) -> Judgement {
        let evidence = Evidence {
            dac: collected.response.dac.clone(),
            pai: collected.response.pai.clone(),
            attestation_elements: collected.response.elements.clone(),
            signature: collected.response.signature.clone(),
            attestation_challenge: collected.challenge,
            nonce: collected.nonce,
            basic_vendor_id: collected.vendor_id,
            basic_product_id: collected.product_id,
            at: collected.at,
        };
        let report = attestation::verify(&evidence, &self.trust());
        let overridden = overridden.map(|by| policy::Override { who: by.who.clone(), why: by.why.clone() });
        let verdict = policy::decide(&report, &self.policy, overridden);
        let summary = verdict.summary(&report);
        let kept = serde_json::json!({ "evidence": evidence, "report": report, "verdict": verdict });
        Judgement {
            accepted: verdict.is_accepted(),
            verdict: summary.verdict,
            findings: summary.findings,
            reasons: verdict.reasons(),
            evidence: kept.to_string(),
        }
    }

    fn verify_csr(
        &self,
        dac: &[u8],
        response: &CsrResponse,
        challenge: &[u8; 16],
        nonce: &[u8; 32],
    ) -> Result<Vec<u8>, String> {
        csr::verify_csr(dac, &response.elements, challenge, nonce, &response.signature).map_err(|e| e.to_string())
    }
}
