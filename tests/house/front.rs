//! The front on the network: TLS, and the one door in it for apps that show the code of an invitation instead of a token. The real
//! server, and behind it a daemon that only pretends (`support/fake_backend.rs`).

use crate::support::fake_backend::fake_controllers::CODE;
use crate::support::fake_backend::{Running, TOKEN, start_with};
use matterbind::facade::admin::tls::{KeyPair, Tls};
use serde_json::{Value, json};

const CSR: &str = "-----BEGIN CERTIFICATE REQUEST-----";

/// Trusts whoever is there, as an app does before it looks at the fingerprint.
fn app() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap()
}

async fn enrol(app: &reqwest::Client, running: &Running, code: &str) -> (u16, Value) {
    let url = format!("https://{}/v1/enrol", running.tcp);
    let answer = app.post(url).json(&json!({ "code": code, "csr": CSR })).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn an_invited_app_comes_as_far_as_its_bundle() {
    let pair = KeyPair::make("87E1B004E235A130").unwrap();
    let running = start_with(|server| server.with_tls(Tls::new(pair.acceptor().unwrap())).with_enrolment()).await;
    let app = app();
    let (status, bundle) = enrol(&app, &running, CODE).await;
    assert_eq!((status, &bundle["name"]), (200, &json!("Phone")), "{bundle}");
    let (status, refusal) = enrol(&app, &running, "123Z-0000-0000").await;
    assert_eq!((status, &refusal["code"]), (403, &json!("code-refused")));
    // The same door, another method; another door, the same code; the token opens those that it opened before.
    let url = |path: &str| format!("https://{}{path}", running.tcp);
    assert_eq!(app.get(url("/v1/enrol")).send().await.unwrap().status(), 401);
    assert_eq!(app.get(url("/v1/nodes")).bearer_auth(CODE).send().await.unwrap().status(), 401);
    assert_eq!(app.get(url("/v1/nodes")).bearer_auth(TOKEN).send().await.unwrap().status(), 200);
    let invites = app.post(url("/v1/invites")).bearer_auth(TOKEN).json(&json!({ "cats": [2], "for_s": 600 }));
    assert_eq!(invites.send().await.unwrap().status(), 403, "who invites is on the hub");
    // Whoever speaks without TLS is not understood.
    assert!(app.get(format!("http://{}/healthz", running.tcp)).send().await.is_err());
}

/// Whoever guesses is slowed down; whoever was invited is not.
#[tokio::test]
async fn wrong_codes_cost_time_and_right_ones_none() {
    let pair = KeyPair::make("87E1B004E235A130").unwrap();
    let running = start_with(|server| server.with_tls(Tls::new(pair.acceptor().unwrap())).with_enrolment()).await;
    let app = app();
    let guesses = futures_util::future::join_all((0..30).map(|_| enrol(&app, &running, "123Z-0000-0000")));
    let begun = std::time::Instant::now();
    let invited = async {
        tokio::task::yield_now().await;
        let (status, _) = enrol(&app, &running, CODE).await;
        (status, begun.elapsed())
    };
    let (guesses, (status, waited)) = tokio::join!(guesses, invited);
    let statuses: Vec<u16> = guesses.iter().map(|(status, _)| *status).collect();
    assert!(statuses.contains(&403) && statuses.contains(&429) && !statuses.contains(&200), "{statuses:?}");
    assert_eq!(status, 200);
    assert!(begun.elapsed() > waited * 2, "the invited app waited {waited:?} of {:?}", begun.elapsed());
}

#[tokio::test]
async fn nobody_enrols_where_that_is_not_configured() {
    let pair = KeyPair::make("87E1B004E235A130").unwrap();
    let running = start_with(|server| server.with_tls(Tls::new(pair.acceptor().unwrap()))).await;
    let (status, refusal) = enrol(&app(), &running, CODE).await;
    assert_eq!((status, &refusal["code"]), (401, &json!("forbidden")), "{refusal}");
}
