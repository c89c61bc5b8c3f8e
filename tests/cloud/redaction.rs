//! Nothing secret appears in what the client logs.

use std::io;
use std::sync::{Arc, Mutex};

use matterbind::facade::outbox::ports::BindApi;
use matterbind::facade::sim::cloud::{Fault, FaultKind};
use tracing_subscriber::fmt::MakeWriter;

use crate::rig::{CODE, DOMAIN_SECRET, PASSWORD, Rig, device, request};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_trace_level() {
    let captured = Captured::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(captured.clone()).finish();
    // While there is just one, tracing asks the thread that comes to a log line first whether anybody wants it, and that may be
    // the thread of another test, which has none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let rig = Rig::demo().await;
    let client = rig.client();
    let light = request(&device("p11abc", "LIGHT001"));
    let mut outcomes = format!("{:?}", client.bind(&light).await);
    rig.cloud.revoke_tokens(false);
    for kind in [FaultKind::Drop, FaultKind::Garbage, FaultKind::Code { code: 5462 }, FaultKind::Http { status: 500 }] {
        rig.cloud.fault(Fault::of_bind(kind));
        outcomes += &format!("{:?}", client.bind(&light).await);
    }
    rig.cloud.revoke_tokens(true);
    rig.cloud.fault(Fault::of_bind(FaultKind::Drop).on("refreshToken"));
    outcomes += &format!("{:?} {:?}", client.find(&light.device).await, client.find(&light.device).await);
    let secrets = rig.cloud.secrets();
    rig.set_password("wrong-password");
    rig.cloud.revoke_tokens(true);
    outcomes += &format!("{:?} {:?} {light:?}", client.list().await, client.health());
    outcomes += &format!("{:?}", rig.tokens.current());

    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("deviceBindingByWifi") && log.contains("emailPwdLogin"), "the log was not captured");
    let mut needles = vec![CODE.to_owned(), DOMAIN_SECRET.to_owned(), PASSWORD.to_owned(), "wrong-password".to_owned()];
    needles.extend(secrets.iter().map(|secret| secret.trim_start_matches("Bearer ").to_owned()));
    assert!(needles.len() > 8, "tokens and a near-field key are among them");
    for text in [log, outcomes] {
        for needle in &needles {
            assert!(!text.contains(needle.as_str()), "{needle} was found");
        }
    }
}
