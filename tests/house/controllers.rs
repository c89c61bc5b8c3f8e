//! Other controllers of the household: an independent one (matter.js) gets a certificate from the hub for a key that it made itself,
//! and is let in for as long and as far as its tag goes.
//!
//! ```text
//! panel ── CSR ──► hub ── bundle ──► panel ── CASE ──► light        Operate toggles, View looks, no tag is let in nowhere
//!                  hub ── remove panel: bridge renews, then the light asks for the later version
//! ```

use std::path::{Path, PathBuf};

use matterbind::facade::backup::Identity;
use matterbind::facade::controller::csr;
use matterbind::facade::fabric::Cat;
use matterbind::facade::keystore::Keystore;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use serde_json::{Value, json};
use x509_cert::Certificate;

use crate::support::daemon::{Hub, Options};
use crate::support::lab::{Families, Lab};
use crate::support::matterjs::{Lights, installed};
use crate::support::panel::Panel;

/// IM status UnsupportedAccess (Matter Core 8.10.1).
const UNSUPPORTED_ACCESS: u64 = 0x7E;

fn refused(answer: &Value) -> bool {
    answer["status"] == UNSUPPORTED_ACCESS
}

fn list<'a>(view: &'a Value, name: &str) -> &'a Value {
    let controllers = view["controllers"].as_array().unwrap();
    controllers.iter().rfind(|it| it["name"] == name).unwrap()
}

#[test]
fn a_tag_is_good_until_its_holder_is_removed_and_a_backup_brings_nobody_back() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "TAGS01")]) else { return };
    let mut hub = Hub::start(&lab, Options::default());
    let light = hub.commission_and_bind(&lights.lights[0].qr)["node_id"].to_string();
    let add = |name: &str, cats: &[&str]| {
        let mut panel = Panel::new(&lab, hub.path(), name);
        panel.added =
            hub.ask(&[&["controller", "add", name, "--out", panel.bundle(), "--csr", panel.csr()], cats].concat());
        panel
    };
    let (panel, viewer) = (add("panel", &["--cat", "0x0002"]), add("viewer", &["--cat", "0x0003_0001"]));
    let (stranger, bridge) = (add("stranger", &[]), add("bridge", &["--cat", "2"]));
    let ids: Vec<u64> = [&panel, &viewer, &stranger, &bridge].map(|it| it.added["node_id"].as_u64().unwrap()).to_vec();
    let first: u64 = light.parse().unwrap();
    assert_eq!(ids, [first + 1, first + 2, first + 3, first + 4], "one counter for devices and controllers");

    // Each as far as its tag goes.
    let answers = panel.ask(&light, &["toggle", "onoff", "acl"]);
    assert_eq!(answers["toggle"]["ok"], json!(true), "{answers:#}");
    assert_eq!(answers["onoff"]["ok"], json!(true), "{answers:#}");
    assert!(refused(&answers["acl"]), "{answers:#}");
    let answers = viewer.ask(&light, &["onoff", "toggle"]);
    assert!(answers["onoff"]["ok"] == json!(true) && refused(&answers["toggle"]), "{answers:#}");
    let answers = stranger.ask(&light, &["onoff", "toggle"]);
    assert!(refused(&answers["onoff"]) && refused(&answers["toggle"]), "{answers:#}");
    // A controller that announces itself is nobody's stray node.
    assert_eq!(hub.ask(&["nodes"])["foreign"], json!([]));
    let holders = hub.ask(&["access", "show"])["tags"][1].clone();
    let held: Vec<&Value> = holders["holders"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!((&holders["cat"], held), (&json!(0x0002_0001), vec![&json!("panel"), &json!("bridge")]), "{holders:#}");

    let (word, file) = (hub.path().join("word"), hub.path().join("hub.age"));
    let identity = Identity::generate();
    std::fs::write(&word, identity.secret_text().expose()).unwrap();
    let (word, file) = (word.to_str().unwrap().to_owned(), file.to_str().unwrap().to_owned());
    let recipient = identity.recipient_text();
    let made = hub.cli(["fabric", "backup", file.as_str(), "--recipient", recipient.as_str()]);
    assert_eq!(made.code, 0, "{made:?}");

    // The bridge first: nobody is locked out meanwhile, nor let in any longer than that.
    let leaving = hub.cli(["controller", "remove", "panel", "--json"]);
    assert_eq!((leaving.code, &leaving.json["state"]), (6, &json!("leaving")), "{leaving:?}");
    assert_eq!(leaving.json["renew"], json!([{ "node_id": ids[3], "name": "bridge" }]), "{leaving:?}");
    assert_eq!(bridge.ask(&light, &["onoff"])["onoff"]["ok"], json!(true));
    let mut renewed = Panel::new(&lab, hub.path(), "bridge-2");
    renewed.added = hub.ask(&["controller", "renew", "bridge", "--out", renewed.bundle(), "--csr", renewed.csr()]);
    assert_eq!((&renewed.added["node_id"], &renewed.added["cats"]), (&json!(ids[3]), &json!([0x0002_0002])));
    for certificate in [&bridge, &renewed] {
        assert_eq!(
            certificate.ask(&light, &["onoff"])["onoff"]["ok"],
            json!(true),
            "both are good until it uses the new one"
        );
    }
    // It does. While the node is told it is used, and stays reachable for the bridge and for the hub.
    let removal = hub.spawn_cli(["controller", "remove", "panel", "--json"]);
    let (toggled, check) = (renewed.ask(&light, &["toggle"]), hub.ask(&["node", "check", &light]));
    assert_eq!((&toggled["toggle"]["ok"], &check["reachable"]), (&json!(true), &json!(true)), "{toggled:#} {check:#}");
    let removed = removal.answer().json;
    assert_eq!((&removed["state"], &removed["complete"]), (&json!("removed"), &json!(true)), "{removed:#}");
    let answers = panel.ask(&light, &["onoff", "toggle"]);
    assert!(refused(&answers["onoff"]) && refused(&answers["toggle"]), "{answers:#}");
    assert_eq!(renewed.ask(&light, &["toggle"])["toggle"]["ok"], json!(true));
    assert!(refused(&bridge.ask(&light, &["onoff"])["onoff"]), "the certificate before has the earlier version");
    let check = hub.ask(&["node", "check", &light]);
    assert_eq!((&check["reachable"], &check["differences"]), (&json!(true), &json!([])), "{check:#}");
    assert!(viewer.ask(&light, &["onoff"])["onoff"]["ok"].is_boolean(), "another tag is as it was");

    // The hub is gone; its backup is from before all that.
    hub.stop_daemon();
    std::fs::remove_dir_all(hub.state_dir()).unwrap();
    let config = hub.config();
    let line = ["fabric", "restore", file.as_str(), "--identity", word.as_str(), "--config", config.to_str().unwrap()];
    let restored = hub.cli(line);
    assert_eq!(restored.code, 0, "{restored:?}");
    hub.start_daemon();
    assert_eq!(hub.ask(&["node", "check", &light])["reachable"], json!(true));
    assert!(refused(&panel.ask(&light, &["onoff"])["onoff"]), "it stays out");
    assert!(renewed.ask(&light, &["onoff"])["onoff"]["ok"].is_boolean(), "it stays in");
    let sync = hub.ask_any(&["sync", "--node", &light]);
    let note = sync["nodes"][0]["notes"][0].as_str().unwrap_or_default();
    assert!(note.contains("0x00020002") && note.contains("nobody holds"), "{sync:#}");
    let mut after = Panel::new(&lab, hub.path(), "after");
    after.added = hub.ask(&["controller", "add", "after", "--cat", "2", "--out", after.bundle(), "--csr", after.csr()]);
    let id = after.added["node_id"].as_u64().unwrap();
    assert!(!ids.contains(&id) && id > ids[3] + 900, "{id} was perhaps given away after the backup");
    assert_eq!(after.ask(&light, &["toggle"])["toggle"]["ok"], json!(true), "ahead of whatever the light asks for");
    // The restored hub believes that the panel is one of ours, and can be told again.
    let removed = hub.ask(&["controller", "remove", "panel", "--now"]);
    assert_eq!(removed["state"], json!("removed"), "{removed:#}");
    assert!(refused(&panel.ask(&light, &["onoff"])["onoff"]));
    assert!(refused(&renewed.ask(&light, &["onoff"])["onoff"]), "at once means that the others wait");
    assert!(after.ask(&light, &["onoff"])["onoff"]["ok"].is_boolean());
    assert_eq!(list(&hub.ask(&["controller", "list"]), "bridge")["certificate"], json!("shut-out"));
}

/// `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-384 -subj /CN=panel`
const P384: &[u8] = include_bytes!("../interop/p384.csr");

/// As a tool without Matter sees the bundle: three certificates, each signed by the one before.
fn check_chain(bundle: &Value) {
    let [rcac, icac, noc] = ["rcac", "icac", "noc"].map(|which| {
        let pem = bundle[which]["pem"].as_str().unwrap();
        <Certificate as der::DecodePem>::from_pem(pem).unwrap_or_else(|error| panic!("{which}: {error}: {pem}"))
    });
    for (certificate, signer) in [(&rcac, &rcac), (&icac, &rcac), (&noc, &icac)] {
        assert_eq!(certificate.tbs_certificate().issuer(), signer.tbs_certificate().subject());
        let key = signer.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
        let key = VerifyingKey::from_sec1_bytes(key).unwrap();
        let signature = DerSignature::from_bytes(certificate.signature().raw_bytes()).unwrap();
        let signed = der::Encode::to_der(certificate.tbs_certificate()).unwrap();
        key.verify(&signed, &signature).unwrap();
    }
}

/// A request for a key of our choice.
fn request(hub: &Hub<'_>, key: &SigningKey, name: &str) -> String {
    let request = csr::request(key).unwrap();
    let file = hub.path().join(name);
    std::fs::write(&file, der::Encode::to_der(&request).unwrap()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_given_away() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let mut hub = Hub::new(&lab, Options::default());
    hub.start_daemon();
    let key = |byte: u8| SigningKey::from_slice(&[byte; 32]).unwrap();
    let out = hub.path().join("bundle.json");
    let add = |more: &[&str]| {
        let line = ["controller", "add", "panel", "--out", out.to_str().unwrap(), "--json"];
        hub.cli([&line, more].concat())
    };
    let good = request(&hub, &key(7), "good.csr");
    let refusal = |more: &[&str], code: &str| {
        let answer = add(more);
        assert_eq!((answer.code, &answer.json["code"]), (2, &json!(code)), "{more:?}: {answer:?}");
        assert!(!answer.json["hint"].as_str().unwrap().is_empty());
    };
    let bytes = std::fs::read(&good).unwrap();
    let bad = |name: &str, bytes: &[u8]| {
        let file = hub.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file.to_str().unwrap().to_owned()
    };
    refusal(&["--csr", &bad("cut", &bytes[..bytes.len() - 1])], "csr-malformed");
    refusal(&["--csr", &bad("long", &[0x30; 5000])], "csr-too-long");
    let mut broken = bytes.clone();
    *broken.last_mut().unwrap() ^= 1;
    refusal(&["--csr", &bad("broken", &broken)], "csr-wrong-signature");
    refusal(&["--csr", &bad("p384", P384)], "csr-wrong-curve");
    let bundle = Keystore::new(hub.state_dir(), None).load().unwrap().bundle;
    for secret in [&bundle.hub_key, &bundle.icac_key, bundle.rcac_key.as_ref().unwrap()] {
        let own = request(&hub, &SigningKey::from_slice(secret.expose()).unwrap(), "own.csr");
        refusal(&["--csr", &own, "--cat", "2"], "key-in-use");
    }
    refusal(&["--csr", &good, "--cat", "0x0009"], "unknown-tag");
    refusal(&["--csr", &good, "--cat", "0x0001"], "admin-tag");
    assert!(!out.exists(), "nothing was given away");
    assert_eq!(hub.ask(&["controller", "list"])["controllers"], json!([]));

    let made = add(&["--csr", &good, "--cat", "0x0002_0001", "--valid", "20d"]);
    assert_eq!((made.code, &made.json["cats"]), (0, &json!([0x0002_0001])), "{made:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&out).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let document: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!((&document["node_id"], &document["private_key"]), (&made.json["node_id"], &Value::Null));
    check_chain(&document);
    // The answer was lost: the same again is the same.
    let again = add(&["--csr", &good, "--cat", "2"]);
    assert_eq!((again.code, &again.json["node_id"]), (0, &made.json["node_id"]), "{again:?}");
    refusal(&["--csr", &good, "--cat", "3"], "key-in-use");
    refusal(&["--csr", &request(&hub, &key(8), "other.csr"), "--cat", "2"], "name-in-use");
    let nowhere = hub.cli(["controller", "add", "x", "--new-key", "--out", "/nowhere/x.json", "--json"]);
    assert_eq!(nowhere.code, 2, "{nowhere:?}");
    assert!(
        hub.cli(["controller", "show", "x", "--json"]).json["code"] == "unknown-controller",
        "its key would be lost"
    );
    let theirs = hub.cli(["controller", "add", "thief", "--csr", good.as_str(), "--cat", "2", "--json"]);
    assert_eq!((theirs.code, &theirs.json["code"]), (2, &json!("key-in-use")), "another controller's key: {theirs:?}");
    let fresh = request(&hub, &key(9), "new.csr");
    let renew =
        hub.cli(["controller", "renew", "panel", "--csr", fresh.as_str(), "--json", "--out", out.to_str().unwrap()]);
    assert_eq!((renew.code, &renew.json["node_id"]), (0, &made.json["node_id"]), "{renew:?}");
    let back = hub.cli(["controller", "renew", "panel", "--csr", good.as_str(), "--json"]);
    assert_eq!((back.code, &back.json["code"]), (2, &json!("key-in-use")), "a key is used once: {back:?}");

    // An administrator, by explicit word only; and the hub itself stays.
    let admin = ["controller", "add", "admin", "--new-key", "--admin", "--out", "-"];
    let admin: Value = serde_json::from_str(&hub.cli(admin).stdout).unwrap();
    assert_eq!(admin["cats"], json!([0x0001_0001]));
    assert!(admin["private_key"].as_str().unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
    check_chain(&admin);
    let own = admin["hub_node_id"].to_string();
    let last = hub.cli(["controller", "remove", own.as_str(), "--json"]);
    assert_eq!((last.code, &last.json["code"]), (2, &json!("last-admin-holder")), "{last:?}");
    let removed = hub.ask(&["controller", "remove", "admin"]);
    assert_eq!((&removed["complete"], &removed["rotated"]), (&json!(true), &json!([0x0001_0002])), "{removed:#}");
    assert_eq!(hub.ask(&["access", "show"])["hub_cats"], json!([Cat::new(0x0001_0002).unwrap()]));
    // The root key is kept elsewhere; the intermediate's issues all the same.
    let (root, word) = (hub.path().join("root.age"), hub.path().join("word"));
    std::fs::write(&word, "correct horse battery staple\n").unwrap();
    std::fs::set_permissions(&word, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let line = ["fabric", "export-root", root.to_str().unwrap(), "--passphrase-file", word.to_str().unwrap()];
    let exported = hub.cli(line);
    assert_eq!(exported.code, 0, "{exported:?}");
    assert!(Keystore::new(hub.state_dir(), None).load().unwrap().bundle.rcac_key.is_none());
    let later = ["controller", "add", "later", "--new-key", "--cat", "3", "--out", "-"];
    check_chain(&serde_json::from_str(&hub.cli(later).stdout).unwrap());
    let unknown = hub.cli(["controller", "show", "nobody", "--json"]);
    assert_eq!((unknown.code, &unknown.json["code"]), (2, &json!("unknown-controller")), "{unknown:?}");

    // Whose certificate ends soon is named wherever people look; all of it is there after a crash.
    hub.kill_daemon();
    hub.start_daemon();
    let renewed = hub.ask(&["controller", "show", "panel"]);
    assert_eq!((&renewed["certificate"], &renewed["expires_soon"]), (&json!("current"), &json!(false)), "{renewed:#}");
    let short = |out: &str| {
        hub.cli(["controller", "add", "short", "--new-key", "--cat", "3", "--valid", "20d", "--json", "--out", out])
    };
    let over = short(out.to_str().unwrap());
    assert_eq!((over.code, &over.json["code"]), (2, &json!("file-exists")), "another's bundle stays: {over:?}");
    assert_eq!(hub.cli(["controller", "show", "short", "--json"]).json["code"], "unknown-controller");
    let made = short(hub.path().join("short.json").to_str().unwrap());
    assert_eq!(made.code, 0, "{made:?}");
    let status = hub.ask(&["status"]);
    assert_eq!(status["controllers"]["expiring"][0]["name"], json!("short"), "{status:#}");
    hub.kill_daemon();
    hub.start_daemon();
    let mut log = hub.follow();
    let warned = log.wait_for_event("controller-expires");
    assert!(warned["message"].as_str().unwrap().contains("short"), "{warned:#}");
}

/// Writes a program of docs/controllers.md where matter.js is.
fn documented(which: usize, name: &str) -> PathBuf {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/controllers.md")).unwrap();
    let program = page.split("```js\n").nth(which).unwrap().split("```").next().unwrap();
    assert!(program.lines().count() <= 60, "a page, and not a library");
    let script = installed().unwrap().join(name);
    std::fs::write(&script, program).unwrap();
    script
}

/// An app enrols with a code over TLS, and uses the light; nobody else does with that code, or with a guessed one.
#[test]
fn an_app_enrols_by_a_code_as_the_documentation_says() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(mut lights) = Lights::start(&lab, &[("SERIAL", "TAGS02")]) else { return };
    let token = "[admin]\ntcp = \"0.0.0.0:8480\"\ntoken_file = \"token\"\nenrolment = true\n";
    let mut hub = Hub::new(&lab, Options { more: token.to_owned(), ..Options::default() });
    let token_file = hub.path().join("token");
    std::fs::write(&token_file, "Vq3mW8zK1tR6yB0pX5cJ9hN2dG7fL4sA").unwrap();
    std::fs::set_permissions(&token_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    hub.start_cloud();
    hub.start_daemon();
    let light = hub.commission_and_bind(&lights.lights[0].qr)["node_id"].to_string();
    let (program, next_start) = (documented(1, "enrol.mjs"), documented(2, "again.mjs"));
    let run = |script: &Path, argument: &str, storage: &tempfile::TempDir| {
        let mut command = lab.hub_command("node");
        command.arg(script).arg(argument).arg(&light);
        command.env("MATTER_STORAGE_PATH", storage.path()).env("MATTER_LOG_LEVEL", "error");
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let enrol = |payload: &str| run(&program, payload, &tempfile::tempdir().unwrap());
    let invite = || hub.ask(&["controller", "invite", "--cat", "0x0002", "--for", "10m"]);

    let invitation = invite();
    let payload = invitation["qr_payload"].as_str().unwrap().to_owned();
    assert!(payload.starts_with("https://10.77.0.1:8480/v1/enrol#code="), "{invitation:#}");
    let storage = tempfile::tempdir().unwrap();
    let (done, said) = run(&program, &payload, &storage);
    assert!(done && said.contains("has toggled node"), "{said}\n{}", hub.daemon_log());
    assert_eq!(lights.wait_for("LIGHT light onOff=true"), "LIGHT light onOff=true");
    let found = hub.ask(&["controller", "list"]);
    assert_eq!(list(&found, "enrol.mjs")["cats"], json!([0x0002_0001]), "{found:#}");
    assert_eq!(found["invites"], json!([]));
    let (done, said) = run(&next_start, &list(&found, "enrol.mjs")["node_id"].to_string(), &storage);
    assert!(done && said.contains("again"), "{said}");
    assert_eq!(lights.wait_for("LIGHT light onOff=false"), "LIGHT light onOff=false");

    // A code is good once, a certificate is who it says it is, and five guesses are enough.
    let (done, said) = enrol(&payload);
    assert!(!done && said.contains("this code cannot be used"), "{said}");
    let invitation = invite();
    let payload = invitation["qr_payload"].as_str().unwrap().to_owned();
    let (done, said) = enrol(&payload.replace("sha256=", "sha256=00"));
    assert!(!done && said.contains("another certificate"), "{said}");
    assert_eq!(hub.ask(&["controller", "list"])["invites"][0]["tries_left"], json!(5), "nothing was sent");
    let code = invitation["code"].as_str().unwrap();
    let last = if code.ends_with('0') { '1' } else { '0' };
    let guess = payload.replace(code, &format!("{}{last}", &code[..code.len() - 1]));
    for _ in 0..5 {
        let (done, said) = enrol(&guess);
        assert!(!done && said.contains("this code cannot be used"), "{said}");
    }
    let (done, said) = enrol(&payload);
    assert!(!done && said.contains("this code cannot be used"), "{said}");
    assert_eq!(hub.ask(&["controller", "list"])["controllers"].as_array().unwrap().len(), 1);
    // Nothing else is open to whoever has no token, and no code stands in the log.
    let log = hub.cli(["logs", "--json"]).stdout + &hub.whole_daemon_log();
    assert!(!log.contains(code) && log.contains("enrolment-refused"), "{log}");
    let withdrawn = invite()["id"].as_str().unwrap().to_owned();
    assert_eq!(hub.ask(&["controller", "withdraw", &withdrawn])["invites"], json!([]));
    let admin = hub.cli(["controller", "invite", "--cat", "1", "--json"]);
    assert_eq!((admin.code, &admin.json["code"]), (2, &json!("admin-tag")), "{admin:?}");
}
