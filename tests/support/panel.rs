//! An independent controller (tests/interop/panel.mjs): makes its own key, and uses the bundle that the hub gave for it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Map, Value};

use super::lab::{INTERFACE, Lab};
use super::matterjs::{PANEL, installed};

/// See the module.
pub struct Panel<'a> {
    lab: &'a Lab,
    directory: PathBuf,
    bundle: String,
    csr: String,
    /// What the hub said when it was enrolled or renewed.
    pub added: Value,
}

impl<'a> Panel<'a> {
    /// Makes the key; the lights of the same test show that Node is there.
    pub fn new(lab: &'a Lab, directory: &Path, name: &str) -> Self {
        let directory = directory.join(format!("panel-{name}"));
        std::fs::create_dir_all(&directory).unwrap();
        let at = |file: &str| directory.join(file).to_str().unwrap().to_owned();
        let (bundle, csr) = (at("bundle.json"), at("csr.der"));
        let panel = Self { lab, directory, bundle, csr, added: Value::Null };
        let request = panel.run(&["key"], &[]);
        let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, request.trim()).unwrap();
        std::fs::write(&panel.csr, der).unwrap();
        panel
    }

    /// Where its bundle belongs.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// Its request.
    pub fn csr(&self) -> &str {
        &self.csr
    }

    /// Does these things to a node; what came of each.
    pub fn ask(&self, node: &str, deeds: &[&str]) -> Value {
        let said = self.run(&["run"], &[&[self.bundle(), node], deeds].concat());
        let answers = said.lines().filter_map(|line| line.split_once(' '));
        let answers: Map<String, Value> =
            answers.map(|(deed, answer)| (deed.to_owned(), serde_json::from_str(answer).unwrap_or_default())).collect();
        assert_eq!(answers.len(), deeds.len(), "{said}");
        Value::Object(answers)
    }

    fn run(&self, what: &[&str], more: &[&str]) -> String {
        let script = installed().unwrap().join(PANEL);
        let mut command = self.lab.hub_command("node");
        command.arg(script).args(what).arg(self.directory.join("key.json")).args(more);
        // It keeps its key and its bundle and nothing else: matter.js would want its peers back before it has a fabric.
        let storage = tempfile::tempdir().unwrap();
        command.env("STORAGE", storage.path()).env("IFACE", INTERFACE);
        let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().expect("ip netns exec");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        said
    }
}
