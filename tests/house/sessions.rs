//! Logging in on TCP, as a browser does it and as somebody who would like to: what a stranger gets, what a cookie is good for, what
//! another page cannot make a browser do. A daemon that only pretends is behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::support::fake_backend::{Fake, Running, TOKEN, start};
use matterbind::facade::admin::server::{AdminOptions, AdminServer};
use matterbind::facade::admin::tls::{KeyPair, Tls};
use matterbind::facade::admin::wire::BluetoothStatus;
use matterbind::facade::secret::OperatorSecret;
use matterbind::facade::telemetry::metrics::Metrics;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A browser as far as HTTP sees one.
struct Browser {
    http: Client,
    address: String,
    cookie: Option<String>,
}

impl Browser {
    fn new(address: String) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder().redirect(Policy::none()).tls_danger_accept_invalid_certs(true);
        Self { http: builder.tls_info(true).build().unwrap(), address, cookie: None }
    }

    fn at(running: &Running) -> Self {
        Self::new(format!("http://{}", running.tcp))
    }

    async fn send(&self, method: Method, path: &str, more: &[(&'static str, &str)]) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(cookie) = &self.cookie {
            headers.insert("cookie", cookie.parse().unwrap());
        }
        for (name, value) in more {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        self.http.request(method, format!("{}{path}", self.address)).headers(headers).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, &[("accept", "text/html")]).await
    }

    async fn fill_in(&self, token: &str, next: &str) -> Response {
        let form = [("token", token), ("next", next)];
        let request = self.http.post(format!("{}/login", self.address)).header("origin", &self.address);
        request.header("user-agent", "A telephone").form(&form).send().await.unwrap()
    }

    /// Logs in; the cookie as it was set.
    async fn log_in(&mut self) -> String {
        let answer = self.fill_in(TOKEN, "/log?level=warn").await;
        assert_eq!(
            (answer.status(), answer.headers()["location"].to_str().unwrap()),
            (StatusCode::SEE_OTHER, "/log?level=warn")
        );
        let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        self.cookie = Some(set.split(';').next().unwrap().to_owned());
        set
    }
}

#[tokio::test]
async fn a_stranger_gets_the_form_and_nothing_else() {
    let running = start().await;
    let stranger = Browser::at(&running);
    for path in ["/", "/nodes/1000", "/add", "/log?node=1", "/sessions"] {
        let answer = stranger.get(path).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path}");
        assert!(answer.headers()["location"].to_str().unwrap().starts_with("/login?next=%2F"), "{path}");
    }
    for path in
        ["/assets/app.js", "/v1/nodes", "/v1/openapi.json", "/v1/events", "/metrics", "/v1/sessions", "/nowhere"]
    {
        let answer = stranger.send(Method::GET, path, &[("cookie", "matterbind=x; __Host-matterbind=y")]).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        // A browser opens a box of its own for `Basic`.
        assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"matterbind\"");
    }
    let form = stranger.get("/login").await;
    assert_eq!(form.status(), StatusCode::OK);
    let policy = form.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let text = form.text().await.unwrap();
    assert!(text.contains("Token") && !text.contains("<script>") && !text.contains("Hall lamp"), "{text}");
}

#[tokio::test]
async fn a_cookie_lets_a_person_in_until_the_session_ends() {
    let running = start().await;
    let mut person = Browser::at(&running);
    let set = person.log_in().await;
    for word in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(word), "{set}");
    }
    assert!(!set.contains("Secure"), "this is no TLS: {set}");
    assert_eq!(person.get("/").await.status(), StatusCode::OK);
    assert_eq!(person.get("/assets/qr/decode.js").await.status(), StatusCode::OK);
    // Keys stay on the machine, whoever has logged in.
    let mut other = Browser::at(&running);
    other.log_in().await;
    let own = [("origin", person.address.as_str())];
    let backup = person.send(Method::POST, "/v1/fabric/backup", &own).await;
    assert_eq!(backup.status(), StatusCode::FORBIDDEN);
    assert_eq!(backup.json::<Value>().await.unwrap()["code"], "local-only");
    let mut stream = other.send(Method::GET, "/v1/events", &[]).await;
    // One sees the other, and ends it.
    let list: Value = person.get("/v1/sessions").await.json().await.unwrap();
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!((&sessions[0]["from"], &sessions[0]["browser"]), (&"127.0.0.1".into(), &"A telephone".into()));
    let theirs = sessions.iter().find(|session| session["current"] == false).unwrap();
    let path = format!("/v1/sessions/{}", theirs["id"].as_str().unwrap());
    assert_eq!(person.send(Method::DELETE, &path, &own).await.status(), StatusCode::OK);
    assert_eq!(other.get("/v1/nodes").await.status(), StatusCode::UNAUTHORIZED);
    // What was being told to it ends, too.
    while stream.chunk().await.unwrap().is_some() {}
    let out = person.send(Method::POST, "/logout", &own).await;
    assert!(out.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(person.get("/v1/nodes").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn another_page_cannot_act_with_somebodys_cookie() {
    let running = start().await;
    let mut person = Browser::at(&running);
    person.log_in().await;
    let own = person.address.clone();
    let post = async |more: &[(&'static str, &str)]| {
        let answer = person.send(Method::POST, "/v1/sync", more).await;
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["code"].clone())
    };
    assert_eq!(post(&[("origin", &own)]).await.0, 200);
    assert_eq!(post(&[("sec-fetch-site", "same-origin")]).await.0, 200);
    for wrong in [
        &[][..],
        &[("origin", "https://evil.example.com")],
        &[("origin", "null")],
        &[("origin", "http://127.0.0.1:1")],
        &[("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(post(wrong).await, (403, "forbidden".into()), "{wrong:?}");
    }
    // Nor can it have a code understood; what the page is told never has the code in it.
    let body = r#"{"setup_code":"MT:Y.K9042C00KA0648G00"}"#;
    let understood = async |origin: &str| {
        let request =
            person.http.post(format!("{own}/add/in-the-way")).header("cookie", person.cookie.as_ref().unwrap());
        let answer = request.header("origin", origin).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    *running.fake.bluetooth.lock().unwrap() =
        BluetoothStatus { missing: Some("it is off".to_owned()), ..BluetoothStatus::default() };
    assert_eq!(understood("https://evil.example.com").await.0, 403);
    let (status, text) = understood(&own).await;
    assert!(status == 200 && text.contains("the hub cannot use it: it is off"), "{text}");
    assert!(!text.contains("Y.K9042C00KA0648G00"), "{text}");
    // A name that is made to stand for this address reads nothing either, and cannot even show the form.
    for path in ["/", "/v1/nodes", "/login"] {
        let answer = person.send(Method::GET, path, &[("host", "rebound.example.com:8480")]).await;
        assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{path}");
    }
    assert_eq!(person.send(Method::GET, "/", &[("host", "hub.example.org")]).await.status(), StatusCode::OK);
    // A program that shows the token is no browser.
    let bearer = format!("Bearer {TOKEN}");
    let program = Browser::at(&running);
    let more = [("authorization", bearer.as_str()), ("host", "any.example.com")];
    assert_eq!(program.send(Method::POST, "/v1/sync", &more).await.status(), StatusCode::OK);
    // The page over a tunnel to the Unix socket has no log-in, and is guarded in the same way.
    let local = Client::builder().unix_socket(running.socket.clone()).build().unwrap();
    let ask = async |name: &'static str, value: &str| {
        let request = local.post("http://localhost/v1/sync").header(name, value);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask("origin", "https://evil.example.com").await, 403);
    assert_eq!(ask("host", "rebound.example.com").await, 421);
    assert_eq!(ask("origin", "http://localhost").await, 200);
}

#[tokio::test]
async fn a_wrong_token_is_slow_and_told() {
    let running = start().await;
    let stranger = Browser::at(&running);
    let begun = Instant::now();
    let answers =
        futures_util::future::join_all((0..28).map(|_| stranger.fill_in("guess", "//evil.example.com"))).await;
    assert!(begun.elapsed().as_secs() >= 3, "{:?}", begun.elapsed());
    let count = |status: StatusCode| answers.iter().filter(|answer| answer.status() == status).count();
    assert!(count(StatusCode::UNAUTHORIZED) >= 16 && count(StatusCode::TOO_MANY_REQUESTS) >= 1);
    assert_eq!(count(StatusCode::UNAUTHORIZED) + count(StatusCode::TOO_MANY_REQUESTS), 28);
    assert!(running.fake.wrong_tokens.load(Ordering::SeqCst) >= 1, "the admin log knows");
    // The right one never waits, and leads nowhere else.
    let answer = stranger.fill_in(TOKEN, "//evil.example.com").await;
    assert_eq!(answer.headers()["location"], "/");
}

#[tokio::test]
async fn under_tls_the_cookie_is_secure_and_a_renewed_certificate_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let tcp = Some(("127.0.0.1:0".parse().unwrap(), OperatorSecret::new(TOKEN)));
    let options = AdminOptions { socket: directory.path().join("admin.sock"), tcp, hosts: Vec::new() };
    let [old, new] = ["old", "new"].map(|name| KeyPair::make(name).unwrap());
    let tls = Tls::new(old.acceptor().unwrap());
    let server = AdminServer::bind(options).await.unwrap().with_tls(tls.clone());
    let mut person = Browser::new(format!("https://{}", server.tcp_address().unwrap()));
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.serve(Arc::new(Fake::default()), Arc::new(Metrics::default()), stop.clone()));
    let set = person.log_in().await;
    assert!(set.starts_with("__Host-matterbind=") && set.contains("; Secure"), "{set}");
    let shown = async |person: &Browser| {
        let answer = person.get("/").await;
        assert_eq!(answer.status(), StatusCode::OK);
        let info = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
        info.peer_certificate().unwrap().to_vec()
    };
    let before = shown(&person).await;
    tls.replace(new.acceptor().unwrap());
    // A connection that is open stays; the next one shows the new certificate, and the session goes on.
    let again = Browser { cookie: person.cookie.clone(), ..Browser::new(person.address.clone()) };
    assert_ne!(shown(&again).await, before);
    stop.cancel();
    drop((person, again));
    served.await.unwrap();
}
