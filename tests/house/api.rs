//! The admin API and the command line as their users meet them: the real server on a real Unix socket, the real binary,
//! and behind them a daemon that only pretends (`support/fake_backend.rs`).

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::fake_backend::fake_controllers::CODE;
use crate::support::fake_backend::{ABSENT, Fake, GOOD, PENDING, REJECTED, Running, SLOW, TOKEN, entry, start};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use matterbind::facade::admin::auth::Guard;
use matterbind::facade::admin::server::{AdminOptions, AdminServer, BindError};
use matterbind::facade::backup::{Identity, Lock, Unlock, decrypt, encrypt};
use matterbind::facade::cli::client::{self, AdminClient};
use matterbind::facade::journal::Level;
use matterbind::facade::secret::OperatorSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a command left behind.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {:?}", self.stdout))
    }
}

/// Runs the real binary against the server; it is another process, so it must not hold up this one.
async fn matterbind(running: &Running, line: &[&str], stdin: &str) -> Ran {
    let mut command = assert_cmd::Command::cargo_bin("matterbind").unwrap();
    command.env_clear().arg("--socket").arg(&running.socket).args(line).write_stdin(stdin.to_owned());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        // An encrypted file on stdout is no text.
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_goes_away() {
    let running = start().await;
    let mode = std::fs::metadata(&running.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let again = AdminServer::bind(AdminOptions { socket: running.socket.clone(), tcp: None, hosts: Vec::new() }).await;
    assert!(matches!(again, Err(BindError::InUse(_))));
    running.stop.cancel();
    running.served.await.unwrap();
    assert!(!running.socket.exists());
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_file_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    AdminServer::bind(AdminOptions { socket: socket.clone(), tcp: None, hosts: Vec::new() }).await.unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let refused = AdminServer::bind(AdminOptions { socket: file.clone(), tcp: None, hosts: Vec::new() }).await;
    assert!(matches!(refused, Err(BindError::Socket { .. })));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
}

/// Asks for the status from a thread of another user. Credentials belong to the thread on Linux, so the rest of this
/// process stays who it is.
fn status_as(user: u32, socket: std::path::PathBuf) -> String {
    use std::io::{Read, Write};
    let asking = std::thread::spawn(move || {
        let (uid, gid) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(user));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    asking.join().unwrap()
}

#[tokio::test]
async fn only_root_the_service_and_the_group_come_in() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can act as another user");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let server =
        AdminServer::bind(AdminOptions { socket: socket.clone(), tcp: None, hosts: Vec::new() }).await.unwrap();
    // Open to all, so that it is the guard that decides and not the file system.
    for (path, mode) in [(directory.path(), 0o755), (socket.as_path(), 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let server = server.with_guard(Guard::for_ids(60_001, Some(60_002), None));
    let fake = std::sync::Arc::new(Fake::default());
    tokio::spawn(server.serve(fake, Default::default(), Default::default()));
    for (user, status) in [(0, 200), (60_001, 200), (60_002, 200), (60_003, 403)] {
        let socket = socket.clone();
        let answer = tokio::task::spawn_blocking(move || status_as(user, socket)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "user {user}: {answer}");
        assert_eq!(answer.contains("\"code\":\"forbidden\""), status == 403);
    }
}

#[tokio::test]
async fn tcp_needs_the_token() {
    let running = start().await;
    let http = reqwest_client();
    let url = |path: &str| format!("http://{}{path}", running.tcp);
    assert_eq!(http.get(url("/v1/nodes")).send().await.unwrap().status(), 401);
    assert_eq!(http.get(url("/healthz")).send().await.unwrap().status(), 200);
    assert_eq!(http.get(url("/v1/nodes")).bearer_auth("wrong").send().await.unwrap().status(), 401);
    let good = http.get(url("/v1/nodes")).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(good.status(), 200);
    // What is refused has the same headers, and a body that says what to do.
    let bad = http.get(url("/v1/nodes")).bearer_auth("wrong").send().await.unwrap();
    for header in ["cache-control", "content-security-policy", "x-content-type-options", "referrer-policy"] {
        assert_eq!(bad.headers()[header], good.headers()[header]);
    }
    let refusal: Value = bad.json().await.unwrap();
    assert!(refusal["hint"].as_str().unwrap().contains("admin.token_file"), "{refusal}");
    let metrics = http.get(url("/metrics")).bearer_auth(TOKEN).send().await.unwrap().text().await.unwrap();
    for line in ["matterbind_admin_refused_total{reason=\"wrong-token\"} 2", "{reason=\"no-token\"} 1"] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

/// Whoever guesses is slowed down; whoever knows the token is not.
#[tokio::test]
async fn wrong_tokens_cost_time_and_right_ones_none() {
    let running = start().await;
    let (http, url) = (reqwest_client(), format!("http://{}/v1/nodes", running.tcp));
    let guess = || async { http.get(&url).bearer_auth("wrong").send().await.unwrap().status().as_u16() };
    let guesses = futures_util::future::join_all((0..30).map(|_| guess()));
    let begun = std::time::Instant::now();
    let honest = async {
        tokio::task::yield_now().await;
        let status = http.get(&url).bearer_auth(TOKEN).send().await.unwrap().status();
        (status, begun.elapsed())
    };
    let (guesses, (status, waited)) = tokio::join!(guesses, honest);
    assert!(guesses.contains(&401) && guesses.contains(&429) && !guesses.contains(&200), "{guesses:?}");
    assert_eq!(status, 200);
    assert!(begun.elapsed() > waited * 2, "the honest client waited {waited:?} of {:?}", begun.elapsed());
}

fn reqwest_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn every_path_of_the_description_answers() {
    let running = start().await;
    let http = reqwest_client();
    let url = |path: &str| format!("http://{}{path}", running.tcp);
    let document: Value =
        http.get(url("/v1/openapi.json")).bearer_auth(TOKEN).send().await.unwrap().json().await.unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 18);
    for (path, operations) in paths {
        let real = path.replace("{node}", "1000").replace("{id}", "12");
        let real = real.replace("{controller}", "1002").replace("{invite}", "123Z").replace("{network}", "Home");
        for (method, operation) in operations.as_object().unwrap() {
            let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            // The next test says more.
            let local = operation["summary"].as_str().unwrap().contains("not on TCP");
            let mut request = http.request(method.clone(), url(&real)).bearer_auth(TOKEN);
            match path.as_str() {
                "/v1/commission" => request = request.json(&json!({ "setup_code": GOOD })),
                "/v1/nodes/{node}/action" => request = request.json(&json!({ "action": "check" })),
                "/v1/controllers/{controller}/remove" => request = request.json(&json!({ "now": true })),
                "/v1/enrol" => {
                    request = request.json(&json!({ "code": CODE, "csr": "-----BEGIN CERTIFICATE REQUEST-----" }))
                }
                "/v1/access" if method == reqwest::Method::POST => {
                    request = request.json(&json!({ "action": "apply" }))
                }
                _ => {}
            }
            // Only the head of the answer: /v1/events goes on for ever.
            let status = request.send().await.unwrap().status();
            // No token makes up for TLS: whoever enrols is given keys.
            let off = local || path == "/v1/enrol";
            assert!(if off { status == 403 } else { status.is_success() }, "{method} {path} answers {status}");
        }
    }
}

#[tokio::test]
async fn keys_stay_off_the_network() {
    let running = start().await;
    let http = reqwest_client();
    let unix = AdminClient::new(&running.socket).unwrap();
    let once = Identity::generate();
    let file = encrypt(b"root key", &Lock::Recipient(once.recipient())).unwrap();
    let bodies = [
        ("backup", json!({ "recipient": once.recipient_text() })),
        ("export-root", json!({ "recipient": once.recipient_text() })),
        ("import-root", json!({ "file": STANDARD.encode(file), "identity": once.secret_text().expose() })),
        ("remove-root", json!({ "sha256": "0".repeat(64) })),
        ("backup-kept", json!({ "sha256": "0".repeat(64) })),
    ];
    let csr = "-----BEGIN CERTIFICATE REQUEST-----";
    let bodies = bodies.map(|(name, body)| (format!("fabric/{name}"), body)).into_iter().chain([
        ("controllers".to_owned(), json!({ "name": "Phone", "csr": csr, "cats": [2] })),
        ("controllers/1002/renew".to_owned(), json!({ "csr": csr })),
        ("invites".to_owned(), json!({ "cats": [2], "for_s": 600 })),
    ]);
    for (name, body) in bodies {
        let url = format!("http://{}/v1/{name}", running.tcp);
        assert_eq!(http.post(&url).json(&body).send().await.unwrap().status(), 401, "{name} without the token");
        let answer = http.post(&url).bearer_auth(TOKEN).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{name}");
        let error: Value = answer.json().await.unwrap();
        assert_eq!(error["code"], "local-only");
        assert!(error["hint"].as_str().unwrap().contains("matterbind fabric"), "{error}");
        let path: Vec<&str> = name.split('/').collect();
        unix.post_bytes(&path, &body, client::SLOW).await.unwrap();
    }
}

#[tokio::test]
async fn wrong_requests_get_the_error_document() {
    let running = start().await;
    let http = reqwest_client();
    let url = |path: &str| format!("http://{}{path}", running.tcp);
    let rename =
        |name: &str| http.post(url("/v1/nodes/1000/action")).json(&json!({ "action": "rename", "name": name }));
    let name = |name: &str| http.post(url("/v1/commission")).json(&json!({ "setup_code": GOOD, "name": name }));
    for (request, status, code) in [
        (http.get(url("/v1/nodes/nobody")), 404, "unknown-node"),
        (http.get(url("/v1/frobnicate")), 404, "unknown-path"),
        (http.delete(url("/v1/nodes")), 405, "method-not-allowed"),
        (http.post(url("/v1/outbox/99/retry")), 404, "unknown-outbox-entry"),
        (http.get(url("/v1/logs?colour=red")), 400, "bad-request"),
        (http.get(url("/v1/discover?timeout_ms=999999")), 400, "bad-request"),
        (http.get(url("/v1/discover?ble=true&lan=true")), 400, "bad-request"),
        (http.get(url("/v1/discover?ble=true&operational=true&watch=true")), 400, "bad-request"),
        (http.post(url("/add/in-the-way")).body("{\"setup_code\":1}"), 400, "bad-request"),
        (http.post(url("/v1/commission")).body("{"), 400, "bad-request"),
        (http.post(url("/v1/commission")).body(vec![b' '; 70 * 1024]), 413, "body-too-large"),
        (http.post(url("/v1/outbox/first/retry")), 400, "bad-request"),
        (http.post(url("/v1/nodes/1000/action")).json(&json!({ "action": "share", "seconds": 5 })), 400, "bad-request"),
        (rename(""), 400, "bad-request"),
        (rename("   "), 400, "bad-request"),
        (rename(" Hall lamp"), 400, "bad-request"),
        (rename("0x3E8"), 400, "bad-request"),
        (rename("1000"), 400, "bad-request"),
        (rename(&"x".repeat(65)), 400, "bad-request"),
        (name("   "), 400, "bad-request"),
        (name(&"x".repeat(300)), 400, "bad-request"),
        (http.post(url("/login")).header("origin", url("")).form(&[("nothing", "")]), 400, "bad-request"),
    ] {
        let answer = request.bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), status, "{code}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"], code);
        assert!(body["message"].is_string() && body["hint"].is_string() && body["disposition"].is_string());
    }
    // A body that does not fit must not come back: it may hold a code.
    let body = json!({ "setup_code": 20_202_021, "binding_code": "0123456789ABCDEF" });
    let answer = http.post(url("/v1/commission")).bearer_auth(TOKEN).json(&body).send().await.unwrap();
    let text = answer.text().await.unwrap();
    assert!(!text.contains("20202021") && !text.contains("0123456789ABCDEF"), "{text}");
}

#[tokio::test]
async fn an_attempt_goes_on_when_its_client_leaves() {
    let running = start().await;
    let client = AdminClient::new(&running.socket).unwrap();
    let mut lines = client.post_lines(&["commission"], &json!({ "setup_code": SLOW })).await.unwrap();
    let first: Value = serde_json::from_str(&lines.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(first["event"], "accepted");
    drop(lines);
    drop(client);
    running.fake.go_on.notify_one();
    running.fake.finished.notified().await;
    assert_eq!(running.fake.attempts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stop_waits_for_the_attempt() {
    let running = start().await;
    let client = AdminClient::new(&running.socket).unwrap();
    let mut lines = client.post_lines(&["commission"], &json!({ "setup_code": SLOW })).await.unwrap();
    lines.next().await.unwrap().unwrap();
    running.stop.cancel();
    running.fake.go_on.notify_one();
    let mut last = String::new();
    while let Some(line) = lines.next().await {
        last = line.unwrap();
    }
    assert!(last.contains("\"outcome\":\"commissioned\""), "{last}");
    drop((lines, client));
    running.served.await.unwrap();
}

#[tokio::test]
async fn who_overrides_is_what_the_kernel_says() {
    let running = start().await;
    let client = AdminClient::new(&running.socket).unwrap();
    let body = json!({ "setup_code": GOOD, "attestation_override": { "who": "somebody else", "why": "lab" } });
    client.post_lines(&["commission"], &body).await.unwrap().collect::<Vec<_>>().await;
    let given = running.fake.last_request.lock().unwrap().take().unwrap().attestation_override.unwrap();
    assert!(given.who.contains(&format!("uid {}", rustix::process::geteuid().as_raw())), "{}", given.who);
}

#[tokio::test]
async fn the_log_is_followed_without_gap_or_repetition() {
    let running = start().await;
    let client = AdminClient::new(&running.socket).unwrap();
    let mut lines = client.get_lines(&["logs"], &[("follow", "true"), ("node", "Hall lamp")]).await.unwrap();
    let mut next = async || serde_json::from_str::<Value>(&lines.next().await.unwrap().unwrap()).unwrap()["id"].clone();
    assert_eq!(next().await, 1);
    // The answer has begun, so the server listens.
    for event in
        [entry(1, Level::Info, 1000, "again"), entry(3, Level::Info, 1001, "other"), entry(4, Level::Info, 1000, "new")]
    {
        running.fake.events.send(event).unwrap();
    }
    assert_eq!(next().await, 4);
    running.stop.cancel();
    assert!(lines.next().await.is_none(), "a stream ends when the daemon stops");
}

#[tokio::test]
async fn a_reader_too_slow_for_the_log_is_told_so() {
    let running = start().await;
    let client = AdminClient::new(&running.socket).unwrap();
    let mut lines = client.get_lines(&["logs"], &[("follow", "true"), ("node", "1000")]).await.unwrap();
    lines.next().await.unwrap().unwrap();
    // More than the channel holds, sent without giving the server a turn.
    for id in 10..60 {
        running.fake.events.send(entry(id, Level::Info, 1000, "burst")).unwrap();
    }
    let told: Value = serde_json::from_str(&lines.next().await.unwrap().unwrap()).unwrap();
    assert_eq!((told["kind"].as_str().unwrap(), told["fields"]["missed"].as_u64().unwrap()), ("entries-skipped", 34));
    let after: Value = serde_json::from_str(&lines.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(after["id"], 44);
}

#[tokio::test]
async fn server_sent_events_resume_after_the_last_one_seen() {
    let running = start().await;
    let request = reqwest_client().get(format!("http://{}/v1/events", running.tcp)).bearer_auth(TOKEN);
    let mut answer = request.header("last-event-id", "1").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while !text.contains("\n\n") {
        text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.contains("id: 2") && text.contains("node 1001 does not answer"), "{text}");
}

/// Reads server-sent events until all of these have come.
async fn read_until(answer: &mut reqwest::Response, all: &[&str]) -> String {
    let mut text = String::new();
    while !all.iter().all(|part| text.contains(part)) {
        text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn who_comes_back_to_the_log_misses_nothing() {
    let running = start().await;
    let events = |query: &str, last: i64| {
        let url = format!("http://{}/v1/events{query}", running.tcp);
        reqwest_client().get(url).bearer_auth(TOKEN).header("last-event-id", last)
    };
    // However few were asked for at first.
    let mut answer = events("?limit=1", 0).send().await.unwrap();
    read_until(&mut answer, &["id: 1\n", "id: 2\n"]).await;
    // A restored backup has an older log than the one that was read.
    let mut answer = events("", 99).send().await.unwrap();
    read_until(&mut answer, &["entries-skipped"]).await;
    running.fake.events.send(entry(3, Level::Info, 1000, "after the backup")).unwrap();
    read_until(&mut answer, &["id: 3\n"]).await;
}

/// Every route that takes a body, as its document lists them, and the log-in.
#[tokio::test]
async fn nobody_takes_for_ever_to_send_a_body() {
    let running = start().await;
    let url = format!("http://{}/v1/openapi.json", running.tcp);
    let document: Value = reqwest_client().get(url).bearer_auth(TOKEN).send().await.unwrap().json().await.unwrap();
    let paths = document["paths"].as_object().unwrap();
    let with_body = paths.iter().filter(|(_, methods)| methods["post"]["requestBody"].is_object());
    let mut all: Vec<String> = with_body.map(|(path, _)| path.replace(['{', '}'], "")).collect();
    assert!(all.len() > 8, "{all:?}");
    all.push("/login".to_owned());
    let half = all.iter().map(async |path| {
        let mut stream = tokio::net::UnixStream::connect(&running.socket).await.unwrap();
        let kind = if path == "/login" { "application/x-www-form-urlencoded" } else { "application/json" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: matterbind\r\ncontent-type: {kind}\r\ncontent-length: 50\r\n\r\ntok"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(read.is_ok(), "{path} waits for the rest of its body; it has said {answer:?}");
        assert!(answer.starts_with("HTTP/1.1 408") || answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    });
    futures_util::future::join_all(half).await;
}

#[tokio::test]
async fn page_and_metrics() {
    let running = start().await;
    let http = reqwest_client();
    let get = async |path: &str| {
        let answer = http.get(format!("http://{}{path}", running.tcp)).bearer_auth(TOKEN).send().await.unwrap();
        answer.text().await.unwrap()
    };
    for (path, parts) in [
        ("/", &["Hall lamp", "Attic/1", "One device does", "The cloud does not answer"][..]),
        ("/?q=attic", &["Attic/1"]),
        ("/add", &["Setup code", "checking that it is genuine"]),
        ("/nodes/1000", &["Hall lamp", "VD0001", "0x00010001", "node 1000 is commissioned"]),
        ("/nodes/1000/compared", &["the cloud shows something else", "it is bound again"]),
        ("/nodes/7", &["there is no node 7"]),
        ("/sync", &["One of 2 does not agree", "the device does not answer"]),
        ("/outbox", &["5460", "check that the device reaches the internet"]),
        ("/log", &["node 1001 does not answer"]),
        ("/log?level=warn&node=1000", &["Nothing fits"]),
        ("/discover", &["Light", "0xFFF1"]),
        ("/controllers", &["Wall panel"]),
        ("/assets/style.css", &["prefers-color-scheme"]),
    ] {
        let page = get(path).await;
        for part in parts {
            assert!(page.to_lowercase().contains(&part.to_lowercase()), "{path} does not say {part:?}:\n{page}");
        }
        // The policy allows neither.
        assert!(!page.contains(" style=") && !page.contains("<script>") && !page.contains(" onclick"), "{path}");
    }
    assert!(!get("/?q=attic").await.contains("Hall lamp"));
    let metrics = get("/metrics").await;
    assert!(metrics.contains("matterbind_nodes{state=\"operational\"} 1"), "{metrics}");
    assert!(
        metrics.contains("matterbind_ready 1\n")
            && metrics.contains("# TYPE matterbind_admin_requests_total counter\n")
    );
    // As Prometheus asks.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    let asked = http.get(format!("http://{}/metrics", running.tcp)).bearer_auth(TOKEN).header("accept", accept);
    let answer = asked.send().await.unwrap();
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text;"));
    let metrics = answer.text().await.unwrap();
    assert!(
        metrics.contains("# TYPE matterbind_admin_requests counter\n") && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn commission_prints_its_documents() {
    let running = start().await;
    let ran = matterbind(&running, &["commission", GOOD, "--name", "Hall lamp", "--json"], "").await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let document = ran.document();
    assert_eq!(document["outcome"], "commissioned");
    assert_eq!(document["node"]["node_id"], 1000);
    assert_eq!(document["node"]["cats"][0], json!({ "cat": 65537, "privilege": "Administer" }));
    assert_eq!(document["bind"]["state"], "bound");
    assert_eq!(document["timings_ms"]["total"], 187);

    let ran = matterbind(&running, &["commission", "-", "--events"], &format!("{GOOD}\n")).await;
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["event"], "accepted");
    assert_eq!(lines.last().unwrap()["outcome"], "commissioned");
    assert!(lines.iter().any(|line| line["event"] == "step-finished" && line["step"] == "pase"));

    let ran = matterbind(&running, &["commission", GOOD], "").await;
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("proving the passcode") && ran.stdout.contains("as node 1000"), "{}", ran.stdout);
}

#[tokio::test]
async fn failures_end_as_promised() {
    let running = start().await;
    for (code, exit, word) in
        [(ABSENT, 4, "device-not-found"), ("34970112333", 2, "wrong-check-digit"), ("123", 2, "wrong-code-length")]
    {
        let ran = matterbind(&running, &["commission", code, "--json"], "").await;
        assert_eq!((ran.code, ran.document()["code"].as_str().unwrap()), (exit, word));
        assert_eq!(ran.document()["outcome"], "failed");
        let ran = matterbind(&running, &["commission", code], "").await;
        assert_eq!(ran.code, exit);
        assert!(ran.stderr.contains("hint:"), "{}", ran.stderr);
        assert!(!ran.stdout.contains(code) && !ran.stderr.contains(code), "the code is repeated: {}", ran.stderr);
    }
    assert_eq!(matterbind(&running, &["commission", PENDING, "--json"], "").await.code, 6);
    assert_eq!(matterbind(&running, &["commission", REJECTED, "--json"], "").await.code, 3);
    assert_eq!(matterbind(&running, &["commission", "--json", "-"], "").await.code, 2);
}

#[tokio::test]
async fn a_manifest_is_worked_through_in_order() {
    let running = start().await;
    let manifest = running.directory.path().join("new.csv");
    let path = manifest.to_str().unwrap();
    std::fs::write(&manifest, format!("setup_code,name\n{GOOD},One\n{PENDING},Two\n{GOOD},Three\n")).unwrap();
    let ran = matterbind(&running, &["commission", "--manifest", path, "--jobs", "2", "--json"], "").await;
    assert_eq!(ran.code, 6);
    let names: Vec<Value> =
        ran.document()["results"].as_array().unwrap().iter().map(|result| result["node"]["name"].clone()).collect();
    assert_eq!(names, ["One", "Two", "Three"]);

    std::fs::write(&manifest, format!("setup_code\n{GOOD}\n{ABSENT}\n")).unwrap();
    let ran = matterbind(&running, &["commission", "--manifest", path], "").await;
    assert_eq!(ran.code, 4);
    assert!(ran.stdout.contains("2 devices") && ran.stdout.contains("1 failed"), "{}", ran.stdout);

    std::fs::write(&manifest, "code\n20202021\n").unwrap();
    let ran = matterbind(&running, &["commission", "--manifest", path], "").await;
    assert_eq!(ran.code, 2);
    assert!(!ran.stderr.contains("20202021"));
}

#[tokio::test]
async fn a_manifest_tells_each_row_with_line_and_name() {
    let running = start().await;
    let manifest = running.directory.path().join("new.csv");
    let path = manifest.to_str().unwrap();
    let text = format!("\u{FEFF}Setup-Code;Name;Shelf\r\n{GOOD};One;7\r\n{ABSENT};Two;8\r\n");
    std::fs::write(&manifest, text).unwrap();
    let ran = matterbind(&running, &["commission", "--manifest", path, "--json"], "").await;
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("shelf"), "{}", ran.stderr);
    let rows = ran.document()["results"].clone();
    let told = |row: usize| (rows[row]["line"].clone(), rows[row]["name"].clone(), rows[row]["outcome"].clone());
    assert_eq!(told(0), (json!(2), json!("One"), json!("commissioned")));
    assert_eq!(told(1), (json!(3), json!("Two"), json!("failed")));
}

#[tokio::test]
async fn one_code_in_a_line_and_several_in_one_code() {
    let running = start().await;
    let lines = format!("{GOOD}\n\n{ABSENT}\r\n");
    let ran = matterbind(&running, &["commission", "-", "--json"], &lines).await;
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    let rows = ran.document()["results"].clone();
    assert_eq!(
        (rows[0]["outcome"].as_str(), rows[1]["code"].as_str()),
        (Some("commissioned"), Some("device-not-found"))
    );
    assert_eq!((&rows[0]["line"], &rows[1]["line"]), (&json!(1), &json!(3)), "the empty line counts");
    let ran = matterbind(&running, &["commission", &format!("{PENDING}*ABSENT"), "--json"], "").await;
    assert_eq!((ran.code, ran.document()["results"].as_array().map(Vec::len)), (4, Some(2)));
    let several = format!("{PENDING}*ABSENT");
    let ran = matterbind(&running, &["commission", &several, "--name", "Hall", "--json"], "").await;
    assert_eq!(ran.code, 2, "a name is for one device");
}

/// Ctrl-C in the middle of an attempt: a script learns which it was, how far it was, and that it goes on.
#[test]
fn an_interrupted_command_says_which_attempt_goes_on() {
    use std::io::{Read, Write};
    const ATTEMPT: &str = "0193a1b2-0000-7000-8000-000000000002";
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let events =
        [json!({ "event": "accepted", "attempt_id": ATTEMPT }), json!({ "event": "step-started", "step": "pase" })];
    std::thread::spawn(move || {
        let mut connection = listener.accept().unwrap().0;
        let _ = connection.read(&mut [0; 4096]).unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
        let body: String = events.iter().map(|event| format!("{event}\n")).collect();
        write!(connection, "{head}{:x}\r\n{body}\r\n", body.len()).unwrap();
        // It holds the line until the client has gone.
        let _ = connection.read(&mut [0; 1]);
    });
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_matterbind"));
    command.env_clear().arg("--socket").arg(&socket).args(["commission", GOOD, "--events"]);
    let mut client = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(client.stdout.take().unwrap()));
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((next()["event"].clone(), next()["step"].clone()), (json!("accepted"), json!("pase")));
    rustix::process::kill_process(rustix::process::Pid::from_child(&client), rustix::process::Signal::INT).unwrap();
    let last = next();
    let told = (&last["outcome"], &last["attempt_id"], &last["step"], &last["code"]);
    assert_eq!(told, (&json!("failed"), &json!(ATTEMPT), &json!("pase"), &json!("interrupted")), "{last:#}");
    client.wait().unwrap();
}

/// A daemon that ends in the middle of an attempt: the client tells what is known, what may go on, and how to look.
#[test]
fn a_daemon_that_goes_away_leaves_what_is_known() {
    use std::io::{Read, Write};
    const ATTEMPT: &str = "0193a1b2-0000-7000-8000-000000000001";
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]).unwrap();
            let event = json!({ "event": "accepted", "attempt_id": ATTEMPT }).to_string() + "\n";
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
            write!(connection, "{head}{:x}\r\n{event}\r\n", event.len()).unwrap();
        }
    });
    let manifest = directory.path().join("new.csv");
    std::fs::write(&manifest, format!("setup_code,name\n{GOOD},One\n{GOOD},Two\n")).unwrap();
    let ran = |line: &[&str]| {
        let mut command = assert_cmd::Command::cargo_bin("matterbind").unwrap();
        let output = command.env_clear().arg("--socket").arg(&socket).args(line).output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default())
    };
    let look = format!("matterbind logs --attempt {ATTEMPT}");
    let (code, document) = ran(&["commission", GOOD, "--json"]);
    assert_eq!((code, document["code"].as_str()), (Some(5), Some("daemon-gone")), "{document:#}");
    assert!(document["hint"].as_str().unwrap().contains(&look), "{document:#}");
    assert_eq!(document["attempt_id"], ATTEMPT, "{document:#}");
    let (code, document) = ran(&["commission", "--manifest", manifest.to_str().unwrap(), "--jobs", "1", "--json"]);
    let row = &document["results"][0];
    let told = (code, row["line"].as_u64(), row["name"].as_str(), row["outcome"].as_str());
    assert_eq!(told, (Some(5), Some(2), Some("One"), Some("failed")), "{document:#}");
    assert!(row["hint"].as_str().unwrap().contains(&look), "{document:#}");
}

#[tokio::test]
async fn every_other_command_prints_its_document() {
    let running = start().await;
    for (line, exit, pointer, expected) in [
        ("nodes --json", 0, "/nodes/1/name", json!("Attic/1")),
        ("node show 0x3E8 --json", 0, "/attestation_evidence/dac", json!("MIIB")),
        ("node show Attic/1 --json", 0, "/node_id", json!(1001)),
        ("node check 1000 --json", 0, "/reachable", json!(true)),
        ("node check 1001 --json", 4, "/reachable", json!(false)),
        ("node identify 1000 --json", 0, "/seconds", json!(10)),
        ("node rename 1000 Lamp --json", 0, "/name", json!("Lamp")),
        ("node share 1000 --json", 0, "/manual_code", json!(GOOD)),
        ("node remove 1000 --json", 0, "/record_deleted", json!(true)),
        ("node remove 1001 --json", 6, "/device_removed", json!(false)),
        ("node remove 1001 --force --json", 0, "/record_deleted", json!(true)),
        ("node show nobody --json", 2, "/code", json!("unknown-node")),
        ("outbox --json", 0, "/entries/0/last_code", json!(5460)),
        ("outbox retry 12 --json", 0, "/entries/0/id", json!(12)),
        ("outbox drop 12 --json", 0, "/entries", json!([])),
        ("outbox drop 99 --frobnicate --json", 2, "/code", json!("usage")),
        ("commission --json", 2, "/outcome", json!("failed")),
        ("attestation update-paa --from /typo --json", 2, "/code", json!("usage")),
        ("fabric restore /none --json", 2, "/code", json!("io")),
        ("controller add x --csr /none --json", 2, "/code", json!("io")),
        ("outbox drop 99 --json", 2, "/code", json!("unknown-outbox-entry")),
        ("sync --json", 6, "/nodes/1/verdict", json!("cloud-missing")),
        ("sync --node 1000 --json", 0, "/in_sync", json!(true)),
        ("status --json", 0, "/ready", json!(true)),
        ("fabric show --json", 0, "/compressed_fabric_id", json!(0x87E1_B004_E235_A130_u64)),
        ("access show --json", 0, "/nodes/0/state", json!("as-wanted")),
        ("access show nobody --json", 2, "/code", json!("unknown-node")),
        ("access set 1000 --grant 0x0002_0001=Operate --json", 0, "/complete", json!(true)),
        ("access apply 1001 --json", 6, "/nodes/0/outcome", json!("pending")),
        ("access rotate 0x0002_0001 --json", 6, "/rotated", json!(0x0002_0002)),
        ("discover --json", 0, "/nodes/0/discriminator", json!(3840)),
        ("discover --operational --json", 0, "/nodes", json!([])),
        ("discover --watch --lan --json", 0, "/event", json!("appeared")),
        ("logs --level warn --json", 0, "/id", json!(2)),
        ("logs --node Attic/1 --json", 0, "/node_id", json!(1001)),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let ran = matterbind(&running, &words, "").await;
        assert_eq!(ran.code, exit, "{line}: {}", ran.stderr);
        assert_eq!(ran.document().pointer(pointer), Some(&expected), "{line}: {}", ran.stdout);
        let for_people: Vec<&str> = words.into_iter().filter(|word| *word != "--json").collect();
        let ran = matterbind(&running, &for_people, "").await;
        assert_eq!(ran.code, exit, "{line}");
        assert!(!ran.stdout.contains('\x1b'), "colours where there is no terminal: {}", ran.stdout);
    }
    // What is in the way stands beside what is listed.
    let ran = matterbind(&running, &["discover", "--watch"], "").await;
    assert!(ran.stdout.starts_with("+ discriminator 3840"), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("Nothing is heard over Bluetooth: BlueZ (bluetoothd) is not running."),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn a_backup_is_written_whole_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let running = start().await;
    let file = running.directory.path().join("hub.age");
    let path = file.to_str().unwrap();
    // The passphrase stays in the client: the daemon (the fake) only ever sees recipients.
    let content = || {
        let lock = Unlock::Passphrase(OperatorSecret::new("correct horse"));
        String::from_utf8(decrypt(&std::fs::read(&file).unwrap(), &lock).unwrap().to_vec()).unwrap()
    };
    let ran = matterbind(&running, &["fabric", "backup", path], "correct horse\n").await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(content(), "all of it");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let ran = matterbind(&running, &["fabric", "backup", path, "--recipient", "age1nonsense"], "").await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!(content(), "all of it", "the earlier one stands");
    let ran = matterbind(&running, &["fabric", "export-root", path], "correct horse\n").await;
    assert_eq!((ran.code, content().as_str()), (2, "all of it"), "nor does the root key go over it: {}", ran.stderr);
    assert!(ran.stderr.contains("hint: name a file that is not there"), "{}", ran.stderr);
    std::fs::remove_file(&file).unwrap();
    let ran = matterbind(&running, &["fabric", "export-root", path], "correct horse\n").await;
    assert_eq!((ran.code, content().as_str()), (0, "root key"));
    let age = "age-encryption.org/v1";
    let ran = matterbind(&running, &["fabric", "backup", "-"], "correct horse\n").await;
    assert!(ran.code == 0 && ran.stdout.contains(age) && ran.stderr.contains("to stdout"), "{}", ran.stderr);
    let ran = matterbind(&running, &["fabric", "export-root", "-", "--json"], "correct horse\n").await;
    assert!(ran.code == 2 && ran.document()["code"] == "usage" && !ran.stdout.contains(age), "{}", ran.stderr);
    let ran = matterbind(&running, &["fabric", "import-root", path, "--json"], "wrong horse\n").await;
    assert_eq!((ran.code, &ran.document()["code"]), (2, &json!("wrong-passphrase")), "{}", ran.stderr);
    let ran = matterbind(&running, &["fabric", "import-root", path, "--json"], "correct horse\n").await;
    assert_eq!((ran.code, &ran.document()["root_key_online"]), (0, &json!(true)), "{}", ran.stderr);
    let empty = running.directory.path().join("state");
    let restore = ["fabric", "restore", path, "--state-dir", empty.to_str().unwrap()];
    let ran = matterbind(&running, &restore, "correct horse\n").await;
    assert_eq!((ran.code, empty.exists()), (2, false), "{}", ran.stderr);
    assert!(ran.stderr.contains("no backup of matterbind") && ran.stderr.contains("hint:"), "{}", ran.stderr);
}

#[tokio::test]
async fn without_a_daemon_the_exit_code_is_five() {
    let mut running = start().await;
    running.socket = running.directory.path().join("nobody.sock");
    let ran = matterbind(&running, &["status"], "").await;
    assert_eq!(ran.code, 5);
    assert!(ran.stderr.contains("systemctl status matterbind"), "{}", ran.stderr);
    let ran = matterbind(&running, &["nodes", "--json"], "").await;
    assert_eq!((ran.code, ran.document()["code"].as_str().unwrap()), (5, "daemon-unreachable"));
    let ran = matterbind(&running, &["commission", GOOD, "--events"], "").await;
    assert_eq!((ran.code, ran.document()["outcome"].as_str().unwrap()), (5, "failed"));
}

#[tokio::test]
async fn check_config_shows_every_mistake_and_no_secret() {
    let running = start().await;
    let directory = running.directory.path();
    for name in ["domain", "password"] {
        std::fs::write(directory.join(name), "very-secret").unwrap();
    }
    let file = directory.join("matterbind.toml");
    let path = file.to_str().unwrap();
    let cloud = "[cloud]\nbase_url = \"https://iot-api.acceleronix.io\"\nuser_domain = \"d\"\n\
        user_domain_secret_file = \"domain\"\nemail = \"hub@example.com\"\npassword_file = \"password\"\n";
    std::fs::write(&file, cloud).unwrap();
    let ran = matterbind(&running, &["check-config", "--config", path], "").await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("password_file = ") && !ran.stdout.contains("very-secret"), "{}", ran.stdout);
    std::fs::write(&file, format!("colour = 1\n{cloud}timeout = \"0s\"\n[fabric]\nlabel = \"\"\n")).unwrap();
    let ran = matterbind(&running, &["check-config", "--config", path], "").await;
    assert_eq!(ran.code, 2);
    for key in ["colour", "cloud.timeout", "fabric.label"] {
        assert!(ran.stderr.contains(key), "{key}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn completions_and_man_pages() {
    let running = start().await;
    let ran = matterbind(&running, &["completions", "bash"], "").await;
    assert!(ran.code == 0 && ran.stdout.contains("_matterbind"));
    let directory = running.directory.path().join("man");
    let ran = matterbind(&running, &["man", directory.to_str().unwrap()], "").await;
    assert_eq!(ran.code, 0);
    assert!(directory.join("matterbind-node-share.1").exists());
}
