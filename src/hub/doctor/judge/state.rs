//! What lies on the disk: room, database, backup, keys, trust store.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use super::{Findings, size};
use crate::hub::doctor::facts::{Facts, Trust};
use crate::store::{Examined, Integrity};

/// Less is no room for the next commissioning.
const NO_ROOM: u64 = 4 << 20;
const LITTLE_ROOM: u64 = 64 << 20;
const FEW_FILES: u64 = 100;
/// The log is emptied whenever nothing waits: more than this means that it cannot be.
const LONG_LOG: u64 = 64 << 20;
const OLD_BACKUP: SignedDuration = SignedDuration::from_hours(30 * 24);
/// A ledger is asked once a day.
const OLD_TRUST: SignedDuration = SignedDuration::from_hours(7 * 24);

pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    if let Some(state) = &facts.state {
        disk(state, findings);
        database(state, findings);
        backup(state, facts, findings);
    }
    match facts.sealed {
        Some(Some(true)) => findings.well("keys", "The fabric's keys are sealed."),
        Some(Some(false)) => findings.warning(
            "keys-not-sealed",
            "The fabric's keys are protected by their file's mode only.",
            "make the credential matterbind-seal for the unit: docs/operations.md says how",
        ),
        Some(None) if facts.state.as_ref().is_some_and(|state| state.database.is_some()) => findings.error(
            "keys-missing",
            "There is a database, and the fabric's keys beside it are gone.",
            "restore a backup: `matterbind fabric restore --force FILE`; never start from an empty directory",
        ),
        Some(None) | None => {}
    }
    if let Some(trust) = &facts.trust {
        trust_store(trust, facts.at, findings);
    }
}

fn disk(state: &Examined, findings: &mut Findings) {
    let place = state.state_dir.display();
    if !state.exists {
        let hint = "the first start makes it; where there was one, mount it or restore a backup";
        return findings.note("state-missing", format!("There is no {place} yet."), hint);
    }
    if state.read_only {
        let hint = "`dmesg` says why the disk is read-only, often after an error: check it (`fsck`), mount it again, then `systemctl \
                    reset-failed matterbind` and start it. Until then systemd refuses with 226/NAMESPACE";
        findings.error(
            "state-read-only",
            format!("The disk that holds {place} is read-only: nothing can be recorded."),
            hint,
        );
    } else if !state.refused.is_empty() {
        let hint = "check its owner (matterbind) and mode (0700); as another user, run this command as root";
        findings.error("state-refused", format!("{place}: {}.", state.refused), hint);
        return;
    }
    let hint = "free some space: `du -xh --max-depth=2 / | sort -h | tail`; `[journal] max_size` bounds the admin log";
    if state.free < NO_ROOM {
        findings.error("disk-full", format!("The disk that holds {place} has {} left.", size(state.free)), hint);
    } else if state.free < LITTLE_ROOM {
        findings.warning("disk-low", format!("The disk that holds {place} has {} left.", size(state.free)), hint);
    } else if let Some(files) = state.free_files.filter(|files| *files < FEW_FILES) {
        findings.error("disk-full", format!("The disk that holds {place} takes {files} more files."), hint);
    }
}

fn database(state: &Examined, findings: &mut Findings) {
    if let Integrity::Damaged(what) = &state.integrity {
        let seen = format!("The database in {} is damaged: {what}.", state.state_dir.display());
        let hint =
            "stop the daemon, keep the directory, and restore a backup: `matterbind fabric restore --force FILE`";
        findings.error("database-damaged", seen, hint);
    }
    if state.log > LONG_LOG {
        let seen = format!("The database's write-ahead log has {}.", size(state.log));
        let hint =
            "another program reads the database and keeps it from being emptied: end it (`fuser -v` on matterbind.db)";
        findings.warning("log-long", seen, hint);
    }
    let checked = match state.integrity {
        Integrity::Whole => " and is whole",
        Integrity::NotLooked | Integrity::Damaged(_) => "",
    };
    if let Some(bytes) = state.database.filter(|_| !matches!(state.integrity, Integrity::Damaged(_))) {
        findings.well("store", format!("The database has {}{checked}; {} are free.", size(bytes), size(state.free)));
    }
}

fn backup(state: &Examined, facts: &Facts, findings: &mut Findings) {
    let now = facts.at;
    let hint = "`matterbind fabric backup FILE`, and keep the file elsewhere: without it a lost disk means resetting every device";
    if !state.was_read {
        return;
    }
    match state.last_backup {
        None if facts.daemon.as_ref().is_some_and(|daemon| daemon.nodes == 0) => {
            findings.note("no-backup", "No backup of this hub was made yet, and it has no nodes yet.", hint);
        }
        None => findings.warning("no-backup", "No backup of this hub was ever made.", hint),
        Some(at) if now.duration_since(at) > OLD_BACKUP => {
            findings.warning("backup-old", format!("The last backup was made {} days ago.", days(at, now)), hint);
        }
        Some(at) => findings.well("backup", format!("The last backup was made {} days ago.", days(at, now))),
    }
}

fn trust_store(trust: &Trust, now: Timestamp, findings: &mut Findings) {
    let places =
        trust.directories.iter().map(|path: &PathBuf| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let age = trust.fetched_at.map(|at| format!(", fetched {} days ago", days(at, now))).unwrap_or_default();
    if trust.lenient {
        let hint = "set attestation.policy to \"require\" where only genuine devices may join";
        findings.warning(
            "attestation-lenient",
            "Devices that cannot prove to be genuine are let in (attestation.policy).",
            hint,
        );
    }
    if trust.paas == 0 {
        let source = match trust.source.as_str() {
            "" => String::new(),
            source => format!("; {source} is asked by itself as soon as it can be reached"),
        };
        let seen = format!("No PAA certificate is trusted ({places}): every device is refused.");
        return findings.error(
            "trust-store-empty",
            seen,
            format!("`sudo matterbind attestation update-paa` fetches them now{source}"),
        );
    }
    let old = !trust.source.is_empty() && trust.fetched_at.is_some_and(|at| now.duration_since(at) > OLD_TRUST);
    if old {
        let seen = format!("{} PAA certificates are trusted{age}: newer devices may be refused.", trust.paas);
        let hint = "`sudo matterbind attestation update-paa` fetches them now, or says why it cannot";
        findings.warning("trust-store-old", seen, hint);
    } else {
        findings.well("trust-store", format!("{} PAA certificates are trusted{age}.", trust.paas));
    }
    if trust.left_out > 0 {
        let seen = format!("{} files of the trust store are left out.", trust.left_out);
        findings.warning(
            "trust-store-quarantine",
            seen,
            "`matterbind logs --level warn` names them (paa-quarantined): remove or replace them",
        );
    }
}

fn days(at: Timestamp, now: Timestamp) -> i64 {
    (now.duration_since(at).as_hours() / 24).max(0)
}
