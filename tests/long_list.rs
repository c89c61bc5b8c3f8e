//! An account with 120,000 devices, all of which claim to be on the hub's fabric: the list is paged through, and no more of it
//! is kept than a hub can have.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::response::Json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use matterbind::facade::bind::CloudDevice;
use matterbind::facade::cloud::{Client, MemoryTokens};
use matterbind::facade::config::{BeforeCommissioning, CloudConfig, OnAccessDrift, OnCloudMissing, OnRejected};
use matterbind::facade::node::FabricId;
use matterbind::facade::outbox::ports::BindApi;
use serde_json::{Value, json};

/// The system's allocator, which counts what is in use.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DEVICES: usize = 120_000;
/// On top of what was in use before the list was asked for, the pages of both ends included. It was 260 MB.
const MOST: usize = 16 << 20;

fn signed_in() -> Value {
    let now = Timestamp::now().as_second();
    let claims = URL_SAFE_NO_PAD.encode(json!({ "iat": now, "exp": now + 7200 }).to_string());
    let token = json!({ "token": format!("Bearer x.{claims}.y"), "expirationTime": now + 7200 });
    json!({ "accessToken": token, "refreshToken": token })
}

fn record(number: usize) -> Value {
    json!({
        "productKey": "p11abc", "deviceKey": format!("DEV{number:09}"), "deviceName": format!("Device number {number}"),
        "productName": "Light", "productIcon": "https://example.com/icon.png", "deviceType": 1, "isMatter": 1, "status": 1,
        "fid": "f-demo", "frid": "r-hall", "matterInfo": {
            "fabricId": 1_234_567, "nodeId": 1000 + number, "matterVendorId": 0xFFF1, "matterProductId": 0x8000,
            "discriminator": 3840, "matterVersion": "1.4", "catList": [{ "cat": 0x0001_0001, "privilege": "Administer" }] },
    })
}

async fn answer(request: Request) -> Json<Value> {
    let value = |key: &str| {
        let mut pairs = request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).and_then(|(_, value)| value.parse::<usize>().ok())
    };
    let data = match (value("page"), value("pageSize")) {
        (Some(page), Some(size)) => {
            let list: Vec<Value> = ((page - 1) * size..(page * size).min(DEVICES)).map(record).collect();
            json!({ "list": list, "total": DEVICES, "hasNextPage": page * size < DEVICES })
        }
        _ => signed_in(),
    };
    Json(json!({ "code": 200, "msg": "", "data": data }))
}

#[tokio::test]
async fn an_account_with_120_000_devices_fits_into_little_memory() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    let secrets = tempfile::tempdir().unwrap();
    let (password_file, user_domain_secret_file) = (secrets.path().join("password"), secrets.path().join("secret"));
    std::fs::write(&password_file, "a password").unwrap();
    std::fs::write(&user_domain_secret_file, "a secret").unwrap();
    let config = CloudConfig {
        base_url,
        user_domain: "demo".to_owned(),
        user_domain_secret_file,
        email: "hub@example.com".to_owned(),
        password_file,
        family_id: String::new(),
        room_id: String::new(),
        timeout: Duration::from_secs(30),
        before_commissioning: BeforeCommissioning::Skip,
        on_rejected: OnRejected::Keep,
        on_cloud_missing: OnCloudMissing::Report,
        on_access_drift: OnAccessDrift::Report,
    };
    let client = Client::new(&config, MemoryTokens::default()).unwrap();
    let device =
        |number: usize| CloudDevice { product_key: "p11abc".to_owned(), device_key: format!("DEV{number:09}") };
    // The last ones of the list: it has to be walked through to its end.
    let wanted: BTreeSet<CloudDevice> = (DEVICES - 50..DEVICES).map(device).collect();
    for fabric in [None, Some(FabricId(1_234_567))] {
        let (before, begun) = (USED.load(Ordering::Relaxed), Instant::now());
        PEAK.store(before, Ordering::Relaxed);
        let held = client.held(&wanted, fabric).await.unwrap();
        let took = PEAK.load(Ordering::Relaxed) - before;
        println!("{} of {DEVICES} kept in {:?}, {} KiB at the peak", held.len(), begun.elapsed(), took >> 10);
        assert!(wanted.iter().all(|device| held.iter().any(|held| held.device == *device)), "one of ours is missing");
        assert!(held.len() <= 5000, "{}", held.len());
        assert!(took < MOST, "{} MB", took >> 20);
    }
}
