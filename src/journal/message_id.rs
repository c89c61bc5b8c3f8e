//! The events that people alert on, each with the MESSAGE_ID by which journald finds it.
//!
//! An id is random and never changes; `systemd/matterbind.catalog` says for each what it means and what to do. Events that only
//! tell how work goes on have none.

/// Kind and MESSAGE_ID.
const IDS: &[(&str, &str)] = &[
    ("daemon-ready", "3973f071fa244e0b8facc0242e8ed62a"),
    ("daemon-stopped", "5f2cc53268074802a2837e6927a61822"),
    ("start-failed", "b586acf234fd44f9ba3e0e2ff727c626"),
    ("part-failed", "a36b547e95b34f76b5b5e1712db10eef"),
    ("clock-not-set", "f56cd90fb72c43aaa9f1c841d5a3b26a"),
    ("journal-gap", "1f59812220d94d2598ac1f1380641bb1"),
    ("commissioning-failed", "b78e92ccbc5c4521b62ac6fb4308235a"),
    ("attestation-override", "439105938d7548d99a4f1dd8fd5fcff8"),
    ("attestation-changed", "36648892c7f344d6b1f368d4b466675f"),
    ("paa-refresh-failed", "1cd3c1575f014013bd96e32c3624cc53"),
    ("paa-quarantined", "cdbaf528760c4b36924d05d77a7c1237"),
    ("node-commissioned", "db9215d7c6bd497981c1485f561e0afa"),
    ("node-removed", "23b3c20289d046a49f76a70f0e511545"),
    ("node-unreachable", "6bd283041ccc4e3a875b6ce855a2a1da"),
    ("node-off-fabric", "f7421be30b124bb8b9334fd9d32b6d04"),
    ("node-decommissioned", "15dad53997e7413d979247bbe591fdb4"),
    ("node-left-behind", "28072d50c43a4f268eeeb52996047720"),
    ("unknown-node", "d7ac4743c1a64f6099f070b9498434a1"),
    ("bind-rejected", "750f14321a764dd78dc41dd0ef3f8a9d"),
    ("cloud-work-rejected", "26074296efac4cbcad15b62652424f3c"),
    ("needs-operator", "c0808880de6b4104b4ee9b6fbddb7543"),
    ("outbox-dropped", "d4070d741dce4e28b18c325eb9b00606"),
    ("outbox-worker-failed", "92e8cd99c75348728c73782dd5da1920"),
    ("cloud-ids-differ", "653bcfbe2d4f433cb9c145a673b3c685"),
    ("cloud-access-stale", "d5554c5802b944e494958a56fd95ef60"),
    ("sync-difference", "81142ccf97754bac9b3939cf6e8aafc7"),
    ("sync-mend-failed", "126ac9a96e4c468e92b96293a893cb5a"),
    ("access-refused", "5382ccc81d4e439ea428b3e38d3863c2"),
    ("cat-rotated", "ee2cf4d3188f4575976e0eaedd4bce71"),
    ("root-key-exported", "ea3eba0463404ce8bcd810cf8c6693ec"),
    ("root-key-offline", "e78af34dd67d438888dd6ff81ec68411"),
    ("root-key-imported", "d2cc29fe7e6b45d892d6f63045215cc4"),
];

/// The MESSAGE_ID of a kind of event.
pub(crate) fn message_id(kind: &str) -> Option<&'static str> {
    IDS.iter().find(|(known, _)| *known == kind).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_id_is_one_of_its_own_and_in_the_catalogue() {
        let catalogue = include_str!("../../systemd/matterbind.catalog");
        let described: BTreeSet<&str> = catalogue.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        let known: BTreeSet<&str> = IDS.iter().map(|(_, id)| *id).collect();
        assert_eq!(known, described);
        assert_eq!(known.len(), IDS.len());
        assert!(known.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }

    /// A kind that nobody records any more would be alerted on in vain.
    #[test]
    fn every_kind_is_recorded_somewhere() {
        fn sources(directory: &std::path::Path, text: &mut String) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    sources(&path, text);
                } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("message_id.rs") {
                    text.push_str(&std::fs::read_to_string(path).unwrap());
                }
            }
        }
        let mut text = String::new();
        sources(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut text);
        for (kind, _) in IDS {
            assert!(text.contains(&format!("\"{kind}\"")), "{kind}");
        }
    }
}
