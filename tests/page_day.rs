//! An installer's day on the page, by a telephone's browser: real devices, a real daemon, a real cloud, and nobody touches the
//! command line.
//!
//! ```text
//! Chromium ── HTTP, log-in ──► daemon ══ mDNS, PASE, CASE ══► virtual devices
//!   (scans, clicks, types)        └────── HTTP ──────► reference cloud
//! ```

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "shared by several test binaries, none of which uses all of it")]
mod support {
    pub mod chromium;
    pub mod daemon;
    pub mod lab;
}

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use qrcode::QrCode;
use serde_json::json;

use support::chromium::{self, Browser};
use support::daemon::{Hub, Options, VirtualDevice};
use support::lab::{Families, Lab, skipped};

const ADDRESS: &str = "http://127.0.0.1:8480";
const TOKEN: &str = "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA";

/// A photo of a QR code, as a telephone takes it: not straight, with a border of table around it. An uncompressed BMP.
fn photo(text: &str, file: &Path) {
    const SIDE: i32 = 900;
    let code = QrCode::new(text).unwrap();
    let width = i32::try_from(code.width()).unwrap();
    let modules = code.to_colors();
    let mut pixels = Vec::new();
    for y in (0..SIDE).rev() {
        for x in 0..SIDE {
            // Turned by some degrees around the middle.
            let (dx, dy) = (f64::from(x - SIDE / 2), f64::from(y - SIDE / 2));
            let (sin, cos) = 0.13_f64.sin_cos();
            let size = 520.0 / f64::from(width);
            let at = |v: f64| (v / size + f64::from(width) / 2.0).floor() as i32;
            let (column, row) = (at(dx * cos + dy * sin), at(dy * cos - dx * sin));
            let within = |v: i32, margin: i32| (-margin..width + margin).contains(&v);
            let shade = if within(column, 0) && within(row, 0) {
                if modules[(row * width + column) as usize] == qrcode::Color::Dark { 30 } else { 225 }
            } else if within(column, 4) && within(row, 4) {
                225
            } else {
                120 + (x % 13) as u8
            };
            pixels.extend([shade, shade, shade]);
        }
    }
    let mut bmp = b"BM".to_vec();
    let size = u32::try_from(54 + pixels.len()).unwrap();
    for value in [size, 0, 54, 40, SIDE as u32, SIDE as u32, 1 | (24 << 16), 0, 0, 2835, 2835, 0, 0] {
        bmp.extend(value.to_le_bytes());
    }
    bmp.extend(pixels);
    fs::write(file, bmp).unwrap();
}

/// What a camera sees that looks at a QR code: one frame of YUV4MPEG2, which Chromium plays again and again.
fn film(text: &str, file: &Path) {
    let (width, height) = (640_usize, 480_usize);
    let code = QrCode::new(text).unwrap();
    let (modules, count) = (code.to_colors(), code.width());
    let size = 400 / (count + 8);
    let mut luma = vec![230_u8; width * height];
    for (place, color) in modules.iter().enumerate() {
        if *color == qrcode::Color::Light {
            continue;
        }
        let (column, row) = (place % count, place / count);
        for y in 0..size {
            for x in 0..size {
                luma[(40 + (row + 4) * size + y) * width + 120 + (column + 4) * size + x] = 20;
            }
        }
    }
    let mut y4m = format!("YUV4MPEG2 W{width} H{height} F10:1 Ip C420jpeg\nFRAME\n").into_bytes();
    y4m.extend(luma);
    y4m.extend(vec![128_u8; width * height / 2]);
    fs::write(file, y4m).unwrap();
}

/// A hub whose page can be reached at loopback, in its own namespace.
fn hub<'a>(lab: &'a Lab, directory: &Path) -> Hub<'a> {
    let token = directory.join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let more = format!("[admin]\ntcp = \"127.0.0.1:8480\"\ntoken_file = {token:?}\n");
    let commissioning = "discover_timeout = \"4s\"\ndeadline = \"60s\"".to_owned();
    Hub::start(lab, Options { more, commissioning, ..Options::default() })
}

/// A telephone's browser beside the hub; its camera looks at a code.
fn telephone(lab: &Lab, program: &str, sees: &Path) -> Browser {
    let flags = [
        "--use-fake-device-for-media-stream".to_owned(),
        "--use-fake-ui-for-media-stream".to_owned(),
        format!("--use-file-for-fake-video-capture={}", sees.display()),
    ];
    let mut browser = Browser::start(lab.hub_command("sh"), program, &flags);
    browser.size(390, 844);
    browser
}

fn open(browser: &mut Browser, path: &str) {
    browser.open(&format!("{ADDRESS}{path}"));
    browser.live();
}

#[test]
fn an_installer_does_a_day_on_the_page() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(program) = chromium::program() else { return skipped("there is no Chromium (apt-get install chromium)") };
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { directory.path().join(name) };
    let device = |name: &str, more: &[&str]| {
        VirtualDevice::start(&lab, &path(name), &[&["--serial-number", name, "--port", "0"], more].concat())
    };
    let first = device("DAY0001", &["--discriminator", "1001", "--passcode", "20202021"]);
    let second = device("DAY0002", &["--discriminator", "1002", "--passcode", "20202023"]);
    film(&first.qr, &path("camera.y4m"));
    photo(&second.qr, &path("photo.bmp"));
    let mut hub = hub(&lab, directory.path());
    let mut browser = telephone(&lab, program, &path("camera.y4m"));
    let browser = &mut browser;

    browser.open(&format!("{ADDRESS}/login"));
    browser.fill("input[name=token]", TOKEN);
    browser.key("Enter");
    browser.see("No devices yet");
    browser.picture("day-00-empty");

    // What can be heard, then the first of them by the camera.
    open(browser, "/discover");
    browser.wait("document.querySelectorAll('#nearby .device').length === 2");
    browser.picture("day-01-nearby");
    open(browser, "/add");
    browser.click("#scan");
    browser.wait(&format!("document.getElementById('code').value === {}", json!(first.qr)));
    browser.picture("day-02-scanned");
    browser.fill("#add input[name=name]", "玄関の照明");
    browser.click("#add .primary");
    browser.wait("document.querySelector('.steps .done')");
    browser.picture("day-03-progress");
    browser.see("玄関の照明 is here");
    browser.see("The cloud knows it.");
    browser.picture("day-04-added");
    browser.click("[data-slot=identify]");

    // The second from a photo; a code of nothing that is there fails with what to do.
    browser.click("[data-slot=again]");
    browser.choose("#photo", &path("photo.bmp"));
    browser.wait(&format!("document.getElementById('code').value === {}", json!(second.qr)));
    browser.click("#add .primary");
    browser.see("is here");
    browser.click("[data-slot=again]");
    browser.fill("#code", "3497-011-2332");
    browser.click("#add .primary");
    browser.see("discover · device-not-found");
    browser.see("Try again");
    browser.picture("day-05-not-found");
    browser.click("#outcome .row .button:nth-child(2)");
    browser.fill("#code", "3497-011-2331");
    browser.click("#add .primary");
    browser.see("parse ·");
    browser.picture("day-06-mistyped");

    // One device: device, record and cloud agree; it blinks, gets another name, is shared for a while.
    let nodes = hub.nodes();
    let [lamp, other] = [0, 1].map(|n: usize| nodes[n]["node_id"].to_string());
    open(browser, "/");
    browser.click(&format!("#node-{lamp} .name a"));
    browser.see("all agree");
    browser.see("test-paa");
    browser.picture("day-07-node");
    browser.click("[data-body*=identify] .button");
    browser.see("It identifies itself for 15 s.");
    browser.click("[data-opens=rename]");
    browser.fill("#rename input[name=name]", "Hall <b>lamp</b>");
    browser.key("Enter");
    browser.wait("document.querySelector('h1').textContent === 'Hall <b>lamp</b>'");
    browser.click("[data-opens=move]");
    browser.fill("#move input[name=room_id]", "12");
    browser.key("Enter");
    // The test's configuration names no family.
    browser.see("no-family");
    browser.picture("day-08-refused");
    browser.click("#move [data-closes]");
    browser.click("[data-opens=share]");
    browser.click("#share-form .primary");
    browser.wait("document.querySelector('#shared-qr path') && /^\\d{4}-\\d{3}-\\d{4}$/.test(document.getElementById('shared-code').textContent)");
    browser.wait("/^\\d+ (s|min)$/.test(document.getElementById('shared-left').textContent)");
    browser.picture("day-09-shared");
    browser.click("#shared [data-closes]");
    browser.see("A commissioning window is open for");
    browser.click(".banner .button");
    browser.see("The window is closed.");

    // The same again for all of them, only looking and mending.
    open(browser, "/sync");
    browser.click("[data-sync=look_only]");
    browser.see("All agree.");
    browser.wait("!document.querySelector('[data-sync]').disabled");
    browser.click("[data-sync='']");
    browser.wait("document.querySelector('[data-sync]').disabled");
    browser.wait("!document.querySelector('[data-sync]').disabled && document.getElementById('sync-bar').hidden");
    browser.see("All agree.");
    browser.picture("day-10-sync");

    // What happened can be found.
    open(browser, "/log?q=renamed");
    browser.see("node-renamed");
    browser.picture("day-11-log");

    // Removed, after asking.
    open(browser, &format!("/nodes/{other}"));
    browser.click("[data-opens=remove]");
    browser.picture("day-12-remove");
    browser.click("#remove button.danger");
    browser.wait("location.pathname === '/' && document.querySelectorAll('#list > li').length === 1");
    assert_eq!(hub.nodes().len(), 1);
    assert!(hub.binding("DAY0002").is_null());

    // The cloud is away: what it should know waits, shows by itself, and is tried or given up by hand.
    open(browser, "/outbox");
    browser.see("Nothing waits");
    hub.stop_cloud();
    assert_eq!(hub.cli(["node", "rename", &lamp, "Without cloud"]).code, 0);
    browser.see("Rename Without cloud");
    browser.click(".cards form .button");
    browser.see("It is tried now.");
    browser.picture("day-13-outbox");
    browser.click("[data-opens^=drop]");
    browser.click("dialog[open] button.danger");
    browser.see("Nothing waits");
    assert!(hub.outbox().is_empty());

    open(browser, "/sessions");
    browser.see("this one");
    browser.picture("day-14-sessions");
    browser.assert_content();
    let told = hub.cli(["logs", "--json"]).stdout;
    assert!(told.contains("logged-in") && !told.contains(TOKEN), "{told}");
}
