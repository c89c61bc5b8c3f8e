//! The page in a real browser, with a daemon behind it that only pretends: how it looks with no, one, twelve and a thousand devices,
//! on a telephone and a desk, by day and by night; that everything has a label, a contrast and its turn by keyboard.
//! Pictures of all that are in target/page. What is done on it with real devices is in page_day.rs.

use std::process::Command;

use crate::support::chromium::{self, Browser};
use crate::support::fake_backend::{Running, TERMS, TOKEN, WAITS, entry, node, start};
use matterbind::facade::admin::wire::BluetoothStatus;
use matterbind::facade::bind::BindState;
use matterbind::facade::journal::Level;
use matterbind::facade::node::{NodeRecord, NodeState};

/// A browser that shows the page of a pretended daemon.
struct Shown {
    browser: Browser,
    running: Running,
    address: String,
}

impl Shown {
    /// Logged in, or not yet.
    async fn start(log_in: bool) -> Option<Self> {
        let Some(program) = chromium::program() else {
            let in_ci = std::env::var("CI").as_deref() == Ok("true");
            assert!(!in_ci, "skipping is not allowed with CI=true: there is no Chromium (apt-get install chromium)");
            eprintln!("skipped: there is no Chromium (apt-get install chromium)");
            return None;
        };
        let running = start().await;
        let address = format!("http://{}", running.tcp);
        let browser = Browser::start(Command::new("sh"), program, &[]);
        let mut shown = Self { browser, running, address };
        if log_in {
            tokio::task::block_in_place(|| {
                shown.open("/login");
                shown.browser.fill("input[name=token]", TOKEN);
                shown.browser.key("Enter");
                shown.browser.see("Devices");
            });
        }
        Some(shown)
    }

    fn open(&mut self, path: &str) {
        let address = format!("{}{path}", self.address);
        self.browser.open(&address);
    }

    fn home(&self, nodes: Vec<NodeRecord>) {
        *self.running.fake.nodes.lock().unwrap() = nodes;
    }

    /// What can be said against the view as it is: words too faint, cut off, or without a label.
    fn assert_readable(&mut self, view: &str) {
        let faults = self.browser.eval(READABLE);
        assert_eq!(faults, serde_json::json!([]), "{view}");
        let tree = self.browser.call("Accessibility.getFullAXTree", serde_json::json!({}));
        for node in tree["nodes"].as_array().unwrap() {
            let role = node["role"]["value"].as_str().unwrap_or_default();
            let acts =
                ["button", "link", "textbox", "searchbox", "combobox", "checkbox", "radio", "switch", "img", "dialog"];
            if node["ignored"] != true && acts.contains(&role) {
                let name = node["name"]["value"].as_str().unwrap_or_default();
                assert!(!name.trim().is_empty(), "{view}: a {role} has no name: {node:#}");
            }
        }
    }
}

/// WCAG 2's contrast of every word that is shown, and nothing wider than the window.
const READABLE: &str = r#"(() => {
  const faults = [];
  const light = c => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const parse = text => text.match(/[\d.]+/g).map(Number);
  const over = (top, below) => { const a = top[3] ?? 1; return [0, 1, 2].map(i => top[i] * a + below[i] * (1 - a)); };
  const back = element => {
    if (!element) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return (own[3] ?? 1) === 1 ? own : over(own, back(element.parentElement));
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest(".hidden, .skip, noscript, option, datalist, :disabled, script")) continue;
    const style = getComputedStyle(element);
    const [text, under] = [parse(style.color), back(element)];
    const [a, b] = [luminance(over(text, under)), luminance(under)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const enough = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < enough) faults.push(`contrast ${ratio.toFixed(2)}: ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) {
    const wide = [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll"));
    faults.push(`wider than the window: ${wide.slice(0, 3).map(e => e.outerHTML.slice(0, 120)).join(" | ")}`);
  }
  return faults;
})()"#;

const LONG: &str = "六十四文字の名前をもつとても長い名前の玄関の照明器具で一階の廊下の突き当たりの右側の壁にあるもので家族みんなが使います灯り";

/// Devices of all kinds, with names as people give them.
fn nodes(count: u64) -> Vec<NodeRecord> {
    let names = [
        "Hall lamp",
        "玄関の照明",
        LONG,
        "Kitchen – left",
        "Schlafzimmer Rolladen",
        "Küche",
        "<b>Attic</b> & \"cellar\"",
        "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW",
        "居間のエアコン",
        "Garage",
        "Garden 1",
        "Garden 2",
    ];
    (0..count)
        .map(|n| {
            let (state, bind) = match n % 12 {
                3 => (NodeState::Unreachable, BindState::Bound),
                5 => (NodeState::Operational, BindState::Pending),
                8 => (NodeState::Operational, BindState::Rejected),
                10 => (NodeState::Removing, BindState::Bound),
                _ => (NodeState::Operational, BindState::Bound),
            };
            let name = names[(n % 12) as usize].to_owned();
            let mut node = node(1000 + n, if n < 12 { &name } else { "" }, state, bind);
            if n >= 12 {
                node.name = format!("Light {n}");
            }
            node.room_id = (n % 3 == 0).then(|| "12".to_owned());
            node
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_readable_everywhere() {
    let Some(mut shown) = Shown::start(true).await else { return };
    tokio::task::block_in_place(|| {
        let views = [
            ("/add", "add"),
            ("/nodes/1002", "node"),
            ("/sync", "sync"),
            ("/outbox", "outbox"),
            ("/log", "log"),
            ("/discover", "discover"),
            ("/controllers", "controllers"),
            ("/doctor", "doctor"),
            ("/more", "more"),
            ("/sessions", "sessions"),
            ("/nodes/7", "unknown-node"),
        ];
        for (width, height, device) in [(1280, 900, "desk"), (390, 844, "phone")] {
            for scheme in ["light", "dark"] {
                shown.browser.size(width, height);
                shown.browser.scheme(scheme);
                for count in [0, 1, 12, 1000] {
                    shown.home(nodes(count));
                    shown.open("/");
                    shown.browser.live();
                    let name = format!("nodes-{count}-{device}-{scheme}");
                    shown.browser.picture(&name);
                    shown.assert_readable(&name);
                }
                shown.home(nodes(12));
                for (path, view) in views {
                    shown.open(path);
                    shown.browser.live();
                    shown.browser.wait("!document.querySelector('[aria-busy]')");
                    let name = format!("{view}-{device}-{scheme}");
                    shown.browser.picture(&name);
                    shown.assert_readable(&name);
                }
            }
        }
        shown.browser.assert_content();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_leaves_what_fits_and_a_change_shows_without_a_reload() {
    let Some(mut shown) = Shown::start(true).await else { return };
    tokio::task::block_in_place(|| {
        shown.home(nodes(12));
        shown.open("/");
        shown.browser.live();
        let left = "[...document.querySelectorAll('#list > li')].filter(row => !row.hidden).length";
        shown.browser.fill("input[type=search]", "kitchen");
        shown.browser.wait(&format!("{left} === 1"));
        shown.browser.fill("input[type=search]", "玄関");
        shown.browser.wait(&format!("{left} === 2"));
        shown.browser.fill("input[type=search]", "nobody has this name");
        shown.browser.see("No device fits.");
        shown.browser.fill("input[type=search]", "");
        shown.browser.click(".chip input[value=silent]");
        shown.browser.wait(&format!("{left} === 2"));
        shown.browser.click(".chip input[value=all]");
        // One row is another, one is new, one is gone; the page is the same document as before.
        shown.browser.eval("window.sameDocument = true");
        let mut home = nodes(13);
        home[0].name = "Renamed lamp".to_owned();
        home.remove(9);
        shown.home(home);
        let event = |id: i64, node: u64| entry(id, Level::Info, node, "something happened");
        for (id, node) in [(1, 1000), (2, 1012), (3, 1009)] {
            shown.running.fake.events.send(event(id, node)).unwrap();
        }
        shown.browser.see("Renamed lamp");
        shown.browser.see("Light 12");
        shown.browser.wait("!document.getElementById('node-1009')");
        assert_eq!(shown.browser.eval("window.sameDocument"), true);
        shown.browser.assert_content();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_has_its_turn_by_keyboard() {
    let Some(mut shown) = Shown::start(true).await else { return };
    tokio::task::block_in_place(|| {
        shown.home(nodes(3));
        for path in ["/", "/add", "/nodes/1000", "/outbox", "/log", "/controllers"] {
            shown.open(path);
            shown.browser.live();
            shown.browser.wait("!document.querySelector('[aria-busy], #scan[hidden]')");
            // In the order of the document; of radio buttons with one name one has the turn.
            let expected = shown.browser.eval(
                "window.turns = [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')]\
                 .filter(e => e.checkVisibility({ visibilityProperty: true }) && !e.disabled && e.type !== 'hidden' && !e.closest('dialog')\
                   && !(e.type === 'radio' && !e.checked)); window.turns.length",
            );
            assert!(expected.as_u64().unwrap() > 8, "{path}");
            shown.browser.eval("document.activeElement.blur(); window.scrollTo(0, 0)");
            for turn in 0..expected.as_u64().unwrap() {
                shown.browser.key("Tab");
                let found = shown.browser.eval(&format!(
                    "(() => {{ const e = document.activeElement; const place = window.turns.indexOf(e); \
                     const rings = [e, e.parentElement, e.closest('.device'), e.nextElementSibling].filter(Boolean) \
                       .some(r => getComputedStyle(r).outlineStyle !== 'none'); \
                     return place === {turn} && rings ? '' : `${{place}} ${{rings}} ${{e.outerHTML.slice(0, 200)}}`; }})()"
                ));
                assert_eq!(found, "", "{path}, turn {turn}");
            }
        }
        // A dialog keeps the keyboard, and gives it back where it was.
        shown.open("/nodes/1000");
        shown.browser.live();
        shown.browser.eval("document.querySelector('[data-opens=rename]').focus()");
        shown.browser.key("Enter");
        shown.browser.wait("document.getElementById('rename').open");
        shown.browser.picture("rename-desk-dark");
        shown.browser.key("Escape");
        shown
            .browser
            .wait("!document.getElementById('rename').open && document.activeElement.dataset.opens === 'rename'");
        shown.browser.assert_content();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_sees_the_log_in_and_nothing_else() {
    let Some(mut shown) = Shown::start(false).await else { return };
    tokio::task::block_in_place(|| {
        shown.browser.size(390, 844);
        let address = format!("{}/nodes/1000", shown.address);
        shown.browser.call("Page.navigate", serde_json::json!({ "url": address }));
        shown.browser.wait("location.pathname === '/login' && document.readyState === 'complete'");
        assert!(!shown.browser.eval("document.documentElement.outerHTML").as_str().unwrap().contains("Hall lamp"));
        shown.assert_readable("login");
        shown.browser.picture("login-phone");
        shown.browser.fill("input[name=token]", "a wrong word");
        shown.browser.key("Enter");
        shown.browser.see("This is not the token.");
        assert_eq!(shown.running.fake.wrong_tokens.load(std::sync::atomic::Ordering::SeqCst), 1);
        shown.browser.picture("login-wrong-phone");
        shown.browser.fill("input[name=token]", TOKEN);
        shown.browser.key("Enter");
        // Where somebody wanted to go.
        shown.browser.see("Hall lamp");
        assert_eq!(shown.browser.eval("document.cookie"), "", "no script reads the cookie");
        shown.open("/sessions");
        shown.browser.see("this one");
        shown.browser.click("form[action='/logout'] button");
        shown.browser.wait("location.pathname === '/login'");
        shown.browser.call("Page.navigate", serde_json::json!({ "url": format!("{}/log", shown.address) }));
        shown.browser.wait("location.pathname === '/login' && document.readyState === 'complete'");
    });
}

/// A code whose device is on Bluetooth only, and one whose device is on the network.
const ON_BLUETOOTH: &str = "MT:Y.K9042C00KA0648G00";
const ON_NETWORK: &str = "MT:Y.K90AFN00KA0648G00";

#[tokio::test(flavor = "multi_thread")]
async fn a_device_out_of_its_box_is_told_its_network_and_what_is_in_the_way_is_said() {
    let Some(mut shown) = Shown::start(true).await else { return };
    tokio::task::block_in_place(|| {
        let missing = Some("BlueZ (bluetoothd) is not running".to_owned());
        let hint = Some("`systemctl enable --now bluetooth` (package bluez)".to_owned());
        let radio = |shown: &Shown, status| *shown.running.fake.bluetooth.lock().unwrap() = status;
        let present = shown.running.fake.bluetooth.lock().unwrap().clone();
        for (width, height, device) in [(1280, 900, "desk"), (390, 844, "phone")] {
            for scheme in ["light", "dark"] {
                shown.browser.size(width, height);
                shown.browser.scheme(scheme);
                let look = |shown: &mut Shown, what: &str| {
                    let name = format!("box-{what}-{device}-{scheme}");
                    shown.browser.picture(&name);
                    shown.assert_readable(&name);
                };
                // Without Bluetooth only a code that needs it says so.
                radio(
                    &shown,
                    BluetoothStatus { missing: missing.clone(), hint: hint.clone(), ..BluetoothStatus::default() },
                );
                shown.open("/discover");
                shown.browser.live();
                shown.browser.see("Over Bluetooth nothing can be heard: BlueZ (bluetoothd) is not running.");
                shown.open("/add");
                shown.browser.live();
                shown.browser.fill("#code", ON_BLUETOOTH);
                shown.browser.see("the hub cannot use it: BlueZ (bluetoothd) is not running");
                shown.browser.wait(
                    "document.querySelector('#in-the-way code').textContent === 'systemctl enable --now bluetooth'",
                );
                look(&mut shown, "no-radio");
                shown.browser.fill("#code", ON_NETWORK);
                shown.browser.wait("!document.querySelector('#in-the-way .problem')");
                radio(&shown, present.clone());

                // A network is chosen by its name; what the device waits for is said with what to do and the time left.
                shown.open("/add");
                shown.browser.live();
                assert_eq!(shown.browser.eval("document.querySelector('[name=network]').options.length"), 3);
                assert_eq!(
                    shown.browser.eval("document.querySelector('[name=network]').selectedOptions[0].text"),
                    "the usual one: Home"
                );
                shown.browser.eval("document.querySelector('[name=network]').value = 'Home'");
                shown.browser.fill("#code", WAITS);
                look(&mut shown, "network");
                shown.browser.click("#add .primary");
                shown.browser.see("The device could not join");
                shown.browser.wait("/^\\d+ (s|min)$/.test(document.querySelector('#waits [data-until]').textContent)");
                shown.browser.wait("document.querySelector('[data-step=network]').matches('.now:not([hidden])')");
                look(&mut shown, "waits");
                shown.running.fake.go_on.notify_one();
                shown.browser.see("Light is here");
                let request = shown.running.fake.last_request.lock().unwrap().take().unwrap();
                assert_eq!((request.network.as_deref(), request.wait_network_ms), (Some("Home"), 180_000));

                // The vendor's terms: said, and answered where the code was.
                shown.browser.click("[data-slot=again]");
                shown.browser.fill("#code", TERMS);
                shown.browser.click("#add .primary");
                shown.browser.see("read-info · terms-required");
                shown.browser.wait("document.querySelector('[data-step=network]').hidden");
                look(&mut shown, "terms");
                shown.browser.click("#outcome .row .button:nth-child(2)");
                shown.browser.wait("document.activeElement.name === 'terms'");
                shown.browser.fill("[name=terms]", "1:0x3");
                shown.browser.click("#add .primary");
                shown.browser.see("Light is here");
                let request = shown.running.fake.last_request.lock().unwrap().take().unwrap();
                let terms = request.accept_terms.unwrap();
                assert_eq!((terms.version, terms.bits, request.network), (1, 3, None));
            }
        }
        shown.browser.assert_content();
    });
}
