//! A headless Chromium, driven by the DevTools protocol over a pipe: no port, no library. It looks, clicks and types as people
//! do, and keeps pictures of what it saw.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Whatever is waited for comes long before this, or never.
const PATIENCE: Duration = Duration::from_secs(60);
/// What Debian and others call it.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The program's name, if there is one.
pub fn program() -> Option<&'static str> {
    let path = std::env::var_os("PATH")?;
    PROGRAMS.into_iter().find(|name| std::env::split_paths(&path).any(|directory| directory.join(name).is_file()))
}

/// A browser with one tab; killed when dropped.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    last: u64,
    /// What a page complained of: exceptions, and what the policy did not let it do.
    pub complaints: Vec<String>,
    pictures: PathBuf,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it; `command` runs a program where the hub can be reached. Pictures go to target/page.
    pub fn start(mut command: Command, program: &str, flags: &[String]) -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../page");
        fs::create_dir_all(&pictures).expect("target can be written");
        // Chromium reads commands from descriptor 3 and answers on 4.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", program]);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args(["--no-first-run", "--disable-background-networking", "--disable-component-update"]);
        command.args(["--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).args(flags);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the browser can be started");
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut browser = Self {
            child,
            to,
            from: messages(from),
            session: String::new(),
            last: 0,
            complaints: Vec::new(),
            pictures,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "DOM.enable", "Accessibility.enable"] {
            browser.call(domain, json!({}));
        }
        browser.size(1280, 900);
        browser
    }

    /// One call of the protocol, and its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The same, where the browser may refuse it.
    fn try_call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser runs");
        let give_up = Instant::now() + PATIENCE;
        loop {
            let wait = give_up.saturating_duration_since(Instant::now());
            let answer =
                self.from.recv_timeout(wait).unwrap_or_else(|_| panic!("the browser does not answer {method}"));
            self.note(&answer);
            if answer["id"] == self.last {
                let error = &answer["error"];
                return if error.is_null() { Ok(answer["result"].clone()) } else { Err(error.clone()) };
            }
        }
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(params["exceptionDetails"].to_string()),
            // That the hub refuses something is no fault of the page.
            Some("Log.entryAdded") if params["entry"]["level"] == "error" && params["entry"]["source"] != "network" => {
                self.complaints.push(params["entry"].to_string());
            }
            _ => {}
        }
    }

    /// Runs an expression in the page; its value.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true, whatever page there is meanwhile.
    pub fn wait(&mut self, expression: &str) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let params = json!({ "expression": format!("Boolean({expression})"), "returnByValue": true });
            // Refused while one page gives way to the next.
            let answer = self.try_call("Runtime.evaluate", params);
            if answer.is_ok_and(|answer| answer["result"]["value"] == true) {
                return;
            }
            if Instant::now() > give_up {
                self.picture("given-up");
                let text = self.eval("document.body.innerText");
                panic!("it never came: {expression}\n{text}\n{:#?}", self.complaints);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a text can be read.
    pub fn see(&mut self, text: &str) {
        self.wait(&format!("document.body?.innerText.replace(/\\s+/g, ' ').includes({})", json!(text)));
    }

    /// Waits until the page follows what happens.
    pub fn live(&mut self) {
        self.wait("document.getElementById('link')?.dataset.state === 'live'");
    }

    /// Opens an address and waits until its scripts have run.
    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": address }));
        self.wait(&format!("location.href.startsWith({}) && document.readyState === 'complete'", json!(address)));
    }

    /// The size of its window; narrow ones are telephones.
    pub fn size(&mut self, width: u32, height: u32) {
        let mobile = width < 600;
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    /// What the user prefers.
    pub fn scheme(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// Clicks into the middle of an element, as a finger does; what lies above it gets the click.
    pub fn click(&mut self, selector: &str) {
        let selector = json!(selector);
        self.wait(&format!("document.querySelector({selector})?.getClientRects().length"));
        let place = self.eval(&format!(
            "(() => {{ const e = document.querySelector({selector}); e.scrollIntoView({{ block: 'center' }}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", params);
        }
    }

    /// Types into a field, in place of what it holds.
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.click(selector);
        self.eval(&format!("document.querySelector({}).select()", json!(selector)));
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key.
    pub fn key(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            other => panic!("no key {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Chooses a file, as the telephone's camera app does after a photo.
    pub fn choose(&mut self, selector: &str, file: &Path) {
        let document = self.call("DOM.getDocument", json!({}));
        let params = json!({ "nodeId": document["root"]["nodeId"], "selector": selector });
        let node = self.call("DOM.querySelector", params);
        self.call("DOM.setFileInputFiles", json!({ "files": [file], "nodeId": node["nodeId"] }));
    }

    /// Keeps what is seen.
    pub fn picture(&mut self, name: &str) {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let bytes = STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64");
        fs::write(self.pictures.join(format!("{name}.png")), bytes).expect("target can be written");
    }

    /// Where they are.
    pub fn pictures(&self) -> &Path {
        &self.pictures
    }

    /// Keeps a file beside the pictures.
    pub fn keep(&self, name: &str, base64: &str) {
        fs::write(self.pictures.join(name), STANDARD.decode(base64).expect("base64")).expect("target can be written");
    }

    /// Nothing may have gone wrong on any page so far.
    pub fn assert_content(&self) {
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }
}

fn messages(from: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for message in BufReader::new(from).split(0).map_while(Result::ok) {
            let Ok(message) = serde_json::from_slice(&message) else { continue };
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
