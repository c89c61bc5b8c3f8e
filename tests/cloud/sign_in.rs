//! Tokens: kept, renewed, replayed, shared, and never asked for too often.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use matterbind::facade::cloud::{Client, MemoryTokens};
use matterbind::facade::outbox::ports::{BindApi, CloudError};
use matterbind::facade::sim::cloud::{Fault, FaultKind};

use crate::rig::{Rig, device, request};

#[tokio::test]
async fn many_calls_at_once_sign_in_once_and_refresh_once() {
    let rig = Rig::demo().await;
    let client = Arc::new(rig.client());
    let bind_all = async |from: usize| {
        let requests: Vec<_> = (from..from + 16).map(|n| request(&device("p11abc", &format!("AAAA{n:04}")))).collect();
        join_all(requests.iter().map(|request| client.bind(request))).await
    };
    assert!(bind_all(0).await.iter().all(Result::is_ok));
    assert_eq!((rig.cloud.counters().logins, rig.cloud.counters().refreshes), (1, 0));
    // Expired there: each call meets 5032, one refreshes, all are replayed.
    rig.cloud.advance(SignedDuration::from_hours(3));
    assert!(bind_all(16).await.iter().all(Result::is_ok));
    assert_eq!((rig.cloud.counters().logins, rig.cloud.counters().refreshes), (1, 1));
    // The refresh token has expired too: one sign-in.
    rig.cloud.advance(SignedDuration::from_hours(24 * 31));
    assert!(bind_all(32).await.iter().all(Result::is_ok));
    assert_eq!((rig.cloud.counters().logins, rig.cloud.counters().refreshes), (2, 1));
    assert_eq!(rig.cloud.counters().commits.len(), 48);
}

#[tokio::test]
async fn those_who_wait_for_a_sign_in_share_its_failure() {
    let rig = Rig::demo().await;
    let client = rig.client();
    rig.cloud.fault(Fault::of_bind(FaultKind::Drop).on("emailPwdLogin"));
    let outcomes = join_all((0..16).map(|_| client.list())).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(CloudError::NotSent { .. }))), "{outcomes:?}");
    assert_eq!(rig.cloud.counters().requests["emailPwdLogin"], 1);
    client.list().await.unwrap();
}

#[tokio::test]
async fn tokens_survive_a_restart_and_are_not_used_for_another_account() {
    let rig = Rig::demo().await;
    rig.client().list().await.unwrap();
    rig.client().list().await.unwrap();
    assert_eq!(rig.cloud.counters().logins, 1);
    let mut kept = rig.tokens.current().unwrap();
    kept.account = "another".to_owned();
    Client::new(&rig.config, MemoryTokens::holding(kept)).unwrap().list().await.unwrap();
    assert_eq!(rig.cloud.counters().logins, 2);
}

#[tokio::test]
async fn a_token_near_its_end_is_refreshed_ahead_of_time() {
    let rig = Rig::demo().await;
    rig.client().list().await.unwrap();
    let mut kept = rig.tokens.current().unwrap();
    kept.pair.as_mut().unwrap().access_expires_at = Timestamp::now();
    let client = Client::new(&rig.config, Arc::new(MemoryTokens::holding(kept))).unwrap();
    client.list().await.unwrap();
    let counters = rig.cloud.counters();
    assert_eq!((counters.logins, counters.refreshes, counters.requests["userDeviceList"]), (1, 1, 2));
}

#[tokio::test]
async fn a_clock_that_is_years_ahead_still_signs_in_once() {
    let rig = Rig::demo().await;
    rig.cloud.advance(SignedDuration::from_hours(-24 * 365 * 20));
    let client = rig.client();
    for _ in 0..3 {
        client.list().await.unwrap();
    }
    let left = client.health().token_expires_at.unwrap().duration_since(Timestamp::now());
    assert!(left <= SignedDuration::from_hours(2) && left > SignedDuration::from_hours(1), "{left}");
    assert_eq!(rig.cloud.counters().logins, 1);
}

#[tokio::test]
async fn a_token_that_stays_refused_ends_after_one_refresh_and_one_sign_in() {
    let rig = Rig::demo().await;
    let client = rig.client();
    client.list().await.unwrap();
    rig.cloud.fault(Fault { times: 100, ..Fault::of_bind(FaultKind::Code { code: 5032 }) });
    let outcome = client.bind(&request(&device("p11abc", "AAAA0001"))).await;
    assert!(matches!(outcome, Err(CloudError::Code { code: 5032, .. })), "{outcome:?}");
    let counters = rig.cloud.counters();
    assert_eq!((counters.requests["deviceBindingByWifi"], counters.refreshes, counters.logins), (3, 1, 2));
}

#[tokio::test]
async fn http_401_without_a_code_is_a_refused_token_too() {
    let rig = Rig::demo().await;
    let client = rig.client();
    rig.cloud.fault(Fault::of_bind(FaultKind::Http { status: 401 }));
    client.bind(&request(&device("p11abc", "AAAA0001"))).await.unwrap();
    assert_eq!(rig.cloud.counters().refreshes, 1);
}

fn blocked(
    outcome: Result<Vec<matterbind::facade::bind::CloudRecord>, CloudError>,
) -> (Option<i64>, Option<Timestamp>) {
    match outcome {
        Err(CloudError::SignIn { code, not_before, .. }) => (code, not_before),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_until_it_is_changed_even_over_a_restart() {
    let rig = Rig::demo().await;
    rig.set_password("wrong");
    let client = rig.client();
    for _ in 0..5 {
        assert_eq!(blocked(client.list().await), (Some(5586), None));
    }
    assert_eq!(blocked(rig.client().list().await), (Some(5586), None));
    assert_eq!(rig.cloud.counters().requests["emailPwdLogin"], 1);
    assert!(client.health().sign_in_blocked.unwrap().contains("password_file"));
    rig.set_password("also-wrong");
    assert_eq!(blocked(client.list().await), (Some(5585), None));
    // An operator who insists.
    client.forget_refusals().await;
    assert_eq!(blocked(client.list().await), (Some(5584), None));
    rig.set_password(crate::rig::PASSWORD);
    client.list().await.unwrap();
    assert_eq!(client.health().sign_in_blocked, None);
}

#[tokio::test]
async fn the_lock_times_are_honoured() {
    for (code, minutes) in [(5147, 20), (5148, 20), (5325, 24 * 60)] {
        let rig = Rig::demo().await;
        let client = rig.client();
        rig.cloud.fault(Fault::of_bind(FaultKind::Code { code }).on("emailPwdLogin"));
        let before = Timestamp::now();
        let (seen, not_before) = blocked(client.list().await);
        assert_eq!(seen, Some(code));
        let wait = not_before.unwrap().duration_since(before).as_secs();
        assert!((minutes * 60..=minutes * 60 + 10).contains(&wait), "{code}: {wait}");
        assert_eq!(blocked(client.list().await), (Some(code), not_before));
        assert_eq!(rig.cloud.counters().requests["emailPwdLogin"], 1);
        // When the time has come, it tries again.
        let mut kept = rig.tokens.current().unwrap();
        kept.block.as_mut().unwrap().not_before = Some(before);
        Client::new(&rig.config, MemoryTokens::holding(kept)).unwrap().list().await.unwrap();
    }
}

#[tokio::test]
async fn the_reference_cloud_counts_down_locks_and_opens_again() {
    let rig = Rig::demo().await;
    let client = rig.client();
    rig.set_password("wrong");
    for expected in [5586, 5585, 5584, 5583, 5147, 5147] {
        client.forget_refusals().await;
        assert_eq!(blocked(client.list().await).0, Some(expected));
    }
    rig.set_password(crate::rig::PASSWORD);
    assert_eq!(blocked(client.list().await).0, Some(5147));
    rig.cloud.advance(SignedDuration::from_mins(21));
    client.forget_refusals().await;
    client.list().await.unwrap();
}

#[tokio::test]
async fn what_the_operator_has_to_correct_is_named() {
    type Wrong = fn(&mut matterbind::facade::config::CloudConfig);
    let cases: [(i64, Wrong, &str); 4] = [
        (5015, |config| config.user_domain = "unknown".to_owned(), "cloud.user_domain"),
        (5031, |config| config.email = "nobody@example.com".to_owned(), "cloud.email"),
        (5040, |config| config.email = "nobody".to_owned(), "cloud.email"),
        (5420, |config| config.user_domain_secret_file = config.password_file.clone(), "user_domain_secret_file"),
    ];
    for (expected, make_wrong, named) in cases {
        let rig = Rig::demo().await;
        let mut config = rig.config.clone();
        make_wrong(&mut config);
        let client = Client::new(&config, MemoryTokens::default()).unwrap();
        match client.list().await {
            Err(CloudError::SignIn { code, message, not_before: None }) => {
                assert_eq!(code, Some(expected));
                assert!(message.contains(named), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    let rig = Rig::demo().await;
    std::fs::remove_file(&rig.config.password_file).unwrap();
    assert_eq!(blocked(rig.client().list().await), (None, None));
    assert_eq!(rig.cloud.counters().requests.get("emailPwdLogin"), None);
}
