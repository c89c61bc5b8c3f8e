//! What the admin API serves is what its document says: every answer of the daemon that only pretends is read against the
//! schema of its operation.

use std::collections::BTreeSet;

use crate::support::fake_backend::fake_controllers::CODE;
use crate::support::fake_backend::{ABSENT, GOOD, Running, start};
use serde_json::{Value, json};

const PEM: &str = "-----BEGIN CERTIFICATE REQUEST-----";

/// The document's schemas, as far as the document uses JSON Schema.
struct Document(Value);

impl Document {
    /// What in `value` is not as `schema` says; empty where all is. An object may have no field that is not described.
    fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.faults(self.0.pointer(&reference[1..]).unwrap(), value);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let fits =
                choices.iter().filter(|choice| self.faults(choice, value).iter().all(|fault| is_extra(fault))).count();
            return if fits == 1 { Vec::new() } else { vec![format!("{fits} of {choices:?} describe {value}")] };
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let fits = choices.iter().any(|choice| self.faults(choice, value).is_empty());
            return if fits { Vec::new() } else { vec![format!("none of {choices:?} describes {value}")] };
        }
        let mut faults = Vec::new();
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            faults.push(format!("{value} is none of {words:?}"));
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !types.is_empty() && !types.contains(&kind(value)) {
            faults.push(format!("{value} is no {types:?}"));
        }
        for item in value.as_array().into_iter().flatten() {
            faults.extend(self.faults(&schema["items"], item));
        }
        if let Some(fields) = value.as_object() {
            let (known, open) = self.fields(schema);
            for name in self.required(schema) {
                if !fields.contains_key(&name) {
                    faults.push(format!("{name} is missing in {value}"));
                }
            }
            for (name, field) in fields {
                match known.iter().find(|(known, _)| known == name) {
                    Some((_, schema)) => {
                        faults.extend(self.faults(schema, field).into_iter().map(|fault| format!("{name}: {fault}")));
                    }
                    None if open => {}
                    None => faults.push(format!("{name}{EXTRA}")),
                }
            }
        }
        faults
    }

    /// The properties of a schema and of all that it is composed of, and whether others may be there too.
    fn fields<'a>(&'a self, schema: &'a Value) -> (Vec<(String, &'a Value)>, bool) {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.fields(self.0.pointer(&reference[1..]).unwrap());
        }
        let own = schema["properties"].as_object().into_iter().flatten();
        let mut known: Vec<_> = own.map(|(name, schema)| (name.clone(), schema)).collect();
        let parts: Vec<&Value> = schema["allOf"].as_array().into_iter().flatten().collect();
        let described = !known.is_empty() || !parts.is_empty();
        let mut open = !described || schema.get("additionalProperties").is_some();
        for part in parts {
            let (fields, more) = self.fields(part);
            known.extend(fields);
            open |= more;
        }
        (known, open)
    }

    fn required(&self, schema: &Value) -> BTreeSet<String> {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.required(self.0.pointer(&reference[1..]).unwrap());
        }
        let own = schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned());
        let parts = schema["allOf"].as_array().into_iter().flatten().flat_map(|part| self.required(part));
        own.chain(parts).collect()
    }
}

const EXTRA: &str = " is not described";

/// To JSON Schema an object with more fields than are described is what it describes all the same.
fn is_extra(fault: &str) -> bool {
    fault.ends_with(EXTRA)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

async fn ask(running: &Running, method: &str, path: &str, body: Option<&Value>) -> (String, String) {
    ask_for("*/*", running, method, path, body).await
}

async fn ask_for(accept: &str, running: &Running, method: &str, path: &str, body: Option<&Value>) -> (String, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().unix_socket(running.socket.clone()).build().unwrap();
    let request = http.request(method.parse().unwrap(), format!("http://matterbind{path}"));
    let mut request = request.header("accept", accept);
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.unwrap();
    let content = answer.headers()["content-type"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let status = if answer.status().is_success() { "200" } else { "default" };
    (format!("{status} {content}"), answer.text().await.unwrap())
}

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let running = start().await;
    let document: Value = serde_json::from_str(&ask(&running, "GET", "/v1/openapi.json", None).await.1).unwrap();
    let document = Document(document);
    let commission = |code| Some(json!({ "setup_code": code, "no_bind": true }));
    let action = |action| Some(action);
    let nodes = json!({ "$ref": "#/components/schemas/Nodes" });
    assert!(document.faults(&nodes, &json!({ "nodes": [] })).is_empty());
    for wrong in [json!({}), json!({ "nodes": {} }), json!({ "nodes": [], "more": 1 }), json!({ "nodes": [{}] })] {
        assert!(!document.faults(&nodes, &wrong).is_empty(), "{wrong} passes: this test would find nothing");
    }
    let asked = [
        ("get", "/v1/status", "/v1/status", None),
        ("get", "/v1/doctor", "/v1/doctor", None),
        ("get", "/v1/fabric", "/v1/fabric", None),
        ("get", "/v1/access", "/v1/access", None),
        ("post", "/v1/access", "/v1/access", Some(json!({ "action": "apply" }))),
        ("post", "/v1/access", "/v1/access", Some(json!({ "action": "rotate", "identifier": 1 }))),
        ("get", "/v1/controllers", "/v1/controllers", None),
        ("post", "/v1/controllers", "/v1/controllers", Some(json!({ "name": "Phone", "csr": PEM, "cats": [2] }))),
        ("get", "/v1/controllers/{controller}", "/v1/controllers/1002", None),
        ("get", "/v1/controllers/{controller}", "/v1/controllers/7", None),
        (
            "post",
            "/v1/controllers/{controller}/renew",
            "/v1/controllers/1002/renew",
            Some(json!({ "csr": PEM, "valid_s": 60 })),
        ),
        (
            "post",
            "/v1/controllers/{controller}/remove",
            "/v1/controllers/Wall%20panel/remove",
            Some(json!({ "now": true })),
        ),
        ("post", "/v1/invites", "/v1/invites", Some(json!({ "cats": [2], "for_s": 600 }))),
        ("delete", "/v1/invites/{invite}", "/v1/invites/123Z", None),
        ("post", "/v1/enrol", "/v1/enrol", Some(json!({ "code": CODE, "csr": PEM }))),
        ("post", "/v1/enrol", "/v1/enrol", Some(json!({ "code": "wrong", "csr": PEM }))),
        ("get", "/v1/networks", "/v1/networks", None),
        (
            "post",
            "/v1/networks",
            "/v1/networks",
            Some(json!({ "kind": "wifi", "ssid": "Home", "password": "correct horse" })),
        ),
        ("delete", "/v1/networks/{network}", "/v1/networks/Home", None),
        ("delete", "/v1/networks/{network}", "/v1/networks/Elsewhere", None),
        ("post", "/v1/commission", "/v1/commission", commission(GOOD)),
        ("post", "/v1/commission", "/v1/commission", commission(ABSENT)),
        ("get", "/v1/nodes", "/v1/nodes", None),
        ("get", "/v1/nodes/{node}", "/v1/nodes/1000", None),
        ("get", "/v1/nodes/{node}", "/v1/nodes/7", None),
        ("post", "/v1/nodes/{node}/action", "/v1/nodes/1000/action", action(json!({ "action": "check" }))),
        (
            "post",
            "/v1/nodes/{node}/action",
            "/v1/nodes/1000/action",
            action(json!({ "action": "identify", "seconds": 3 })),
        ),
        (
            "post",
            "/v1/nodes/{node}/action",
            "/v1/nodes/1000/action",
            action(json!({ "action": "rename", "name": "x" })),
        ),
        (
            "post",
            "/v1/nodes/{node}/action",
            "/v1/nodes/1000/action",
            action(json!({ "action": "move", "room_id": "7" })),
        ),
        (
            "post",
            "/v1/nodes/{node}/action",
            "/v1/nodes/1000/action",
            action(json!({ "action": "share", "seconds": 180 })),
        ),
        (
            "post",
            "/v1/nodes/{node}/action",
            "/v1/nodes/1001/action",
            action(json!({ "action": "remove", "force": true })),
        ),
        ("post", "/v1/nodes/{node}/action", "/v1/nodes/1000/action", action(json!({ "action": "nothing" }))),
        ("post", "/v1/nodes/{node}/action", "/v1/nodes/1000/action", action(json!({ "action": "keep" }))),
        ("post", "/v1/nodes/{node}/action", "/v1/nodes/1000/action", action(json!({ "action": "adopt" }))),
        ("post", "/v1/nodes/{node}/action", "/v1/nodes/1000/action", action(json!({ "action": "close-window" }))),
        ("post", "/v1/sync", "/v1/sync?progress=true", None),
        ("get", "/v1/sessions", "/v1/sessions", None),
        ("delete", "/v1/sessions/{session}", "/v1/sessions/none", None),
        ("get", "/v1/outbox", "/v1/outbox", None),
        ("post", "/v1/outbox/{id}/retry", "/v1/outbox/12/retry", None),
        ("delete", "/v1/outbox/{id}", "/v1/outbox/12", None),
        ("delete", "/v1/outbox/{id}", "/v1/outbox/13", None),
        ("get", "/v1/discover", "/v1/discover?timeout_ms=0", None),
        ("get", "/v1/discover", "/v1/discover?watch=true", None),
        ("get", "/v1/logs", "/v1/logs", None),
        ("post", "/v1/sync", "/v1/sync", None),
        ("post", "/v1/sync/{node}", "/v1/sync/1000", None),
        ("post", "/v1/sync/{node}", "/v1/sync/1000?look_only=true", None),
        ("get", "/v1/nodes/{node}/compare", "/v1/nodes/1000/compare", None),
    ];
    for (method, route, path, body) in &asked {
        let (response, text) = ask(&running, &method.to_uppercase(), path, body.as_ref()).await;
        let (status, content) = response.split_once(' ').unwrap();
        let described = &document.0["paths"][route][method]["responses"][status]["content"][content]["schema"];
        assert!(described.is_object(), "{method} {path}: {response} is not described");
        let lines = if content == "application/json" { vec![text.as_str()] } else { text.lines().collect() };
        assert!(!lines.is_empty(), "{method} {path} said nothing");
        for line in lines {
            let faults = document.faults(described, &serde_json::from_str(line).unwrap());
            assert!(faults.is_empty(), "{method} {path}: {faults:#?}\n{line}");
        }
    }
    // A typo must not mean something else: no body may have a key that is not described.
    for (method, _, path, body) in &asked {
        let Some(mut body) = body.clone() else { continue };
        body["not_described"] = 1.into();
        let (response, text) = ask(&running, &method.to_uppercase(), path, Some(&body)).await;
        assert!(
            response.starts_with("default ") && text.contains("bad-request"),
            "{method} {path} took {body}: {text}"
        );
    }
    let json = |answer: &Value| answer["content"].as_object().is_some_and(|it| it.keys().any(|it| it.contains("json")));
    let paths = document.0["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let was_asked = asked.iter().any(|(m, p, _, _)| (m, p) == (&method.as_str(), &path.as_str()));
            let local_only = path.starts_with("/v1/fabric/");
            assert!(
                was_asked || local_only || !json(&operation["responses"]["200"]),
                "{method} {path} is not asked here"
            );
        }
    }
}

/// What a generator of clients knows to read: openapi-python-client leaves everything else out, with a warning.
#[tokio::test]
async fn every_answer_has_a_form_that_generators_know() {
    let running = start().await;
    let document: Value = serde_json::from_str(&ask(&running, "GET", "/v1/openapi.json", None).await.1).unwrap();
    let mut as_text = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let known = |kind: &&String| {
                kind.starts_with("text/") || ["application/json", "application/octet-stream"].contains(&kind.as_str())
            };
            let content = operation["responses"]["200"]["content"].as_object().unwrap();
            assert!(content.keys().any(|kind| known(&kind)), "{method} {path}: {content:?}");
            as_text += usize::from(content.contains_key("application/x-ndjson") && content.contains_key("text/plain"));
        }
    }
    assert!(as_text > 2, "{as_text}");
    let forms = [("text/plain", "text/plain"), ("text/plain, application/x-ndjson", "application/x-ndjson")];
    for (accept, served) in forms {
        let (answer, text) = ask_for(accept, &running, "GET", "/v1/logs", None).await;
        assert_eq!(answer, format!("200 {served}"));
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).unwrap().is_object()), "{text}");
    }
}
