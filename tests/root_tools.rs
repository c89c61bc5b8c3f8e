//! What root runs on the service's directory: it gets the service's rights there and no others, whatever lies in it, what it
//! makes belongs to the service, and it needs none of the secrets that only the unit has.
//!
//! The service's user is a number that no account has; the tests need root.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use jiff::Timestamp;
use matterbind::facade::backup::{Identity, make};
use matterbind::facade::fabric::Cat;
use matterbind::facade::matter::{Credentials, mint};
use matterbind::facade::node::{FabricId, NodeId};
use matterbind::facade::sim::evidence::TEST_PAA_NOVID_CERT;
use matterbind::facade::store::{NewFabric, Store};

const SERVICE: u32 = 60_020;

struct House {
    directory: tempfile::TempDir,
}

impl House {
    /// A configuration as the README recommends it, whose secrets are credentials of the unit; `None` without root.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can act for another user");
            return None;
        }
        let house = Self { directory: tempfile::tempdir().unwrap() };
        fs::set_permissions(house.directory.path(), Permissions::from_mode(0o755)).unwrap();
        let text = "state_dir = \"state\"\nsocket = \"admin.sock\"\n[cloud]\nbase_url = \"https://cloud.example.com\"\n\
                    user_domain = \"demo\"\nuser_domain_secret_file = \"cloud-domain-secret\"\nemail = \"hub@example.com\"\n\
                    password_file = \"cloud-password\"\n";
        fs::write(house.at("matterbind.toml"), text).unwrap();
        fs::create_dir(house.at("paas")).unwrap();
        fs::write(house.at("paas/paa.der"), TEST_PAA_NOVID_CERT).unwrap();
        // Nobody but root may read what root gives to its commands.
        fs::set_permissions(house.at("paas"), Permissions::from_mode(0o700)).unwrap();
        fs::write(house.at("precious"), "precious").unwrap();
        fs::set_permissions(house.at("precious"), Permissions::from_mode(0o600)).unwrap();
        house.backup();
        Some(house)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `hub.age`, and `identity` that opens it.
    fn backup(&self) {
        let identity = Identity::generate();
        fs::write(self.at("identity"), identity.secret_text().expose()).unwrap();
        let mut file = fs::File::create(self.at("hub.age")).unwrap();
        let keys = mint(FabricId(77), NodeId(10), &[Cat::new(0x0001_0001).unwrap()], Timestamp::now()).unwrap();
        let new = NewFabric {
            fabric_id: keys.fabric_id,
            compressed_id: Credentials::new(keys.clone()).unwrap().compressed_fabric_id(),
            root_fingerprint: keys.root_fingerprint(),
            label: "Home".to_owned(),
            hub_node_id: keys.hub_node,
            next_node_id: 11,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(&self.at("old")).unwrap();
            store.begin_fabric(new).await.unwrap();
            store.finish_fabric(&keys.root_fingerprint()).await.unwrap();
            make(&keys, store.snapshot().await.unwrap(), Timestamp::now(), &identity.recipient(), &mut file).unwrap();
            store.close().await;
        });
        for name in ["identity", "hub.age"] {
            fs::set_permissions(self.at(name), Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// A state directory of the service's.
    fn state(&self) -> PathBuf {
        let state = self.at("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
        self.give(&state);
        state
    }

    fn give(&self, path: &Path) {
        std::os::unix::fs::lchown(path, Some(SERVICE), Some(SERVICE)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_matterbind"));
        command.args(arguments).arg("--config").arg(self.at("matterbind.toml"));
        command.env_remove("CREDENTIALS_DIRECTORY").stdin(Stdio::null()).output().unwrap()
    }

    fn restore(&self, more: &[&str]) -> Output {
        let (file, identity) = (self.at("hub.age"), self.at("identity"));
        let line = ["fabric", "restore", file.to_str().unwrap(), "--identity", identity.to_str().unwrap()];
        self.run(&[&line, more].concat())
    }

    fn update_paa(&self) -> Output {
        self.run(&["attestation", "update-paa", "--from", self.at("paas").to_str().unwrap()])
    }

    /// Root's file is as it was.
    fn precious_is_untouched(&self, after: &str) {
        let found = fs::metadata(self.at("precious")).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o600), "{after}");
        assert_eq!(fs::read_to_string(self.at("precious")).unwrap(), "precious", "{after}");
    }
}

fn owners(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        found.push((path.clone(), metadata.uid()));
        if metadata.is_dir() {
            found.extend(owners(&path));
        }
    }
    found
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_restore_and_a_trust_store_belong_to_the_service() {
    let Some(house) = House::new() else { return };
    let state = house.state();
    for ended in [house.restore(&[]), house.update_paa(), house.restore(&["--force"])] {
        assert!(ended.status.success(), "{}", text(&ended));
    }
    let owners = owners(&state);
    for name in ["matterbind.db", "fabric.keys", "matterbind.lock", "paa"] {
        assert!(owners.iter().any(|(path, _)| path == &state.join(name)), "{name} is in {owners:?}");
    }
    assert!(owners.iter().all(|(_, uid)| *uid == SERVICE), "{owners:?}");
    let checked = house.run(&["check-config"]);
    assert!(checked.status.success() && text(&checked).contains("note: cloud.password_file"), "{}", text(&checked));
}

#[test]
fn before_the_first_start_the_directory_is_made() {
    let Some(house) = House::new() else { return };
    let ended = house.update_paa();
    assert!(ended.status.success(), "{}", text(&ended));
    assert_eq!(fs::metadata(house.at("state")).unwrap().mode() & 0o777, 0o700);
    assert!(fs::read_dir(house.at("state/paa")).unwrap().count() >= 2);
}

/// The service's user puts links to root's file wherever a command of root's may open, write, move or give away something.
#[test]
fn links_in_the_directory_lead_nowhere() {
    let names = [
        "matterbind.lock",
        "matterbind.db",
        "matterbind.db-wal",
        "matterbind.db-shm",
        "fabric.keys",
        "restore.new",
        "paa",
        "trust-refresh.json",
        "revocations",
    ];
    for name in names {
        let Some(house) = House::new() else { return };
        let state = house.state();
        symlink(house.at("precious"), state.join(name)).unwrap();
        house.give(&state.join(name));
        let (restored, updated) = (house.restore(&["--force"]), house.update_paa());
        house.precious_is_untouched(&format!("{name}\n{}{}", text(&restored), text(&updated)));
    }
    // A directory of root's in the place of one of ours.
    for name in ["restore.new", "restore.ready", "paa"] {
        let Some(house) = House::new() else { return };
        let state = house.state();
        fs::create_dir(house.at("roots")).unwrap();
        fs::set_permissions(house.at("roots"), Permissions::from_mode(0o755)).unwrap();
        fs::write(house.at("roots/aside"), "before-restore-1").unwrap();
        symlink(house.at("roots"), state.join(name)).unwrap();
        let (restored, updated) = (house.restore(&["--force"]), house.update_paa());
        let left: Vec<_> = owners(&house.at("roots"));
        assert_eq!(left, [(house.at("roots/aside"), 0)], "{name}: {}{}", text(&restored), text(&updated));
        assert_eq!(fs::metadata(house.at("roots")).unwrap().uid(), 0);
    }
}

#[test]
fn a_decided_restore_moves_nothing_out_of_the_directory() {
    let Some(house) = House::new() else { return };
    let state = house.state();
    let ready = state.join("restore.ready");
    fs::create_dir(&ready).unwrap();
    for (path, content) in [
        (state.join("fabric.keys"), "old".to_owned()),
        (ready.join("fabric.keys"), "new".to_owned()),
        (ready.join("aside"), house.at("elsewhere").display().to_string()),
    ] {
        fs::write(&path, content).unwrap();
        chown(&path, Some(SERVICE), Some(SERVICE)).unwrap();
    }
    house.give(&ready);
    let ended = house.restore(&["--force"]);
    assert!(!ended.status.success() && text(&ended).contains("restore.ready/aside"), "{}", text(&ended));
    assert!(!house.at("elsewhere").exists());
}
