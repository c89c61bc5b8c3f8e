//! The reference cloud as an integrator meets it: `/openapi.json`, the back door, the sample scenarios.

use matterbind::facade::sim::cloud::Scenario;
use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{CODE, DOMAIN_SECRET, PASSWORD, Rig, scenario};

impl Rig {
    pub async fn send(&self, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Value {
        let mut request = reqwest::Client::builder()
            .tls_certs_only([])
            .build()
            .unwrap()
            .request(method, format!("{}{path}", self.config.base_url));
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.unwrap().json().await.unwrap()
    }

    pub async fn post_bind(&self, token: Option<&str>, body: &Value) -> Value {
        self.send(Method::POST, "/v2/binding/enduserapi/v2/deviceBindingByWifi", token, Some(body)).await
    }

    /// As the documents show it: everything in the query.
    pub async fn sign_in_by_hand(&self) -> String {
        use matterbind::facade::cloud::login::{encrypt_password, signature};
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pwd = encrypt_password(PASSWORD, "abcdef");
        let signature = signature(&["hub@example.com", &pwd, "abcdef", DOMAIN_SECRET]);
        let url = reqwest::Url::parse_with_params(
            "http://x/v2/enduser/enduserapi/emailPwdLogin",
            [
                ("email", "hub@example.com"),
                ("pwd", &pwd),
                ("random", "abcdef"),
                ("signature", &signature),
                ("userDomain", "demo"),
            ],
        )
        .unwrap();
        let path = format!("{}?{}", url.path(), url.query().unwrap());
        let answer = self.send(Method::POST, &path, None, None).await;
        answer["data"]["accessToken"]["token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn the_document_names_every_endpoint() {
    let rig = Rig::demo().await;
    rig.sign_in_by_hand().await;
    let document = rig.send(Method::GET, "/openapi.json", None, None).await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/v2/enduser/enduserapi/emailPwdLogin",
        "/v2/enduser/enduserapi/refreshToken",
        "/v2/binding/enduserapi/v2/deviceBindingByWifi",
        "/v2/binding/enduserapi/userDeviceList",
        "/v2/family/enduserapi/setDeviceInfo",
        "/sim/fault",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    let bind = &document["paths"]["/v2/binding/enduserapi/v2/deviceBindingByWifi"]["post"];
    let schema = &bind["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["required"], json!(["bindingCode", "deviceKey", "productKey"]));
    assert_eq!(schema["properties"].as_object().unwrap().len(), 10);
    assert_eq!(rig.send(Method::GET, "/v2/nowhere", None, None).await["error"], "no such endpoint");
}

#[tokio::test]
async fn the_back_door_changes_what_the_front_door_says() {
    let rig = Rig::start(scenario("every-code")).await;
    let token = rig.sign_in_by_hand().await;
    let door = async |path: &str, body: Value| {
        let answer = rig.send(Method::POST, path, None, Some(&body)).await;
        assert_eq!(answer["code"], 200, "{path}: {answer}");
    };
    let bind = async || {
        let body = json!({ "bindingCode": CODE, "deviceKey": "NOCODE01", "productKey": "pstrict" });
        rig.post_bind(Some(&token), &body).await["code"].clone()
    };
    let which = |extra: Value| {
        let mut body = json!({ "product_key": "pstrict", "device_key": "NOCODE01" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    assert_eq!(bind().await, 5460);
    door("/sim/report-code", which(json!({ "binding_code": CODE, "seconds": 60 }))).await;
    door("/sim/expire-code", which(json!({}))).await;
    assert_eq!(bind().await, 5461);
    door("/sim/report-code", which(json!({ "binding_code": CODE, "seconds": 60 }))).await;
    door("/sim/advance-clock", json!({ "seconds": 61 })).await;
    assert_eq!(bind().await, 5461);
    door("/sim/report-code", which(json!({ "binding_code": CODE }))).await;
    door("/sim/change-device", which(json!({ "verified": false }))).await;
    assert_eq!(bind().await, 5009);
    door("/sim/change-device", which(json!({ "verified": true, "secret_reported": false }))).await;
    assert_eq!(bind().await, 5465);
    door("/sim/change-device", which(json!({ "secret_reported": true, "region": "cn" }))).await;
    assert_eq!(bind().await, 6083);
    door("/sim/change-device", which(json!({ "region": "eu" }))).await;
    door("/sim/fault", json!({ "kind": "code", "code": 6040 })).await;
    assert_eq!(bind().await, 6040);
    assert_eq!(bind().await, 200);
    assert_eq!(bind().await, 5049);
    let state = rig.send(Method::GET, "/sim/state", None, None).await;
    assert_eq!(state["data"]["counters"]["commits"]["pstrict/NOCODE01"], 1);
    assert!(state["data"]["bindings"][0].get("auth_key").is_none());
    door("/sim/drop-binding", which(json!({}))).await;
    door("/sim/switches", json!({ "error_status": 400 })).await;
    // Single use: the code went with the first bind.
    assert_eq!(bind().await, 5460);
    door("/sim/revoke-tokens", json!({})).await;
    assert_eq!(bind().await, 5032);
    door("/sim/product", json!({ "key": "pnew", "auto_devices": true, "any_code": true })).await;
    let refused = rig.send(Method::POST, "/sim/fault", None, Some(&json!({ "kind": "unheard-of" }))).await;
    assert_eq!(refused["code"], 5000);
}

#[test]
fn every_sample_scenario_parses_and_a_wrong_key_does_not() {
    let mut count = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        Scenario::parse(&text).unwrap();
        count += 1;
    }
    assert!(count >= 3);
    assert!(Scenario::parse("regoin = 'eu'").is_err());
    assert_eq!(scenario("demo"), Scenario::default(), "demo.toml shows what holds without a file");
}
