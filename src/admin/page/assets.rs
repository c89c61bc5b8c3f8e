//! What the views are made of besides HTML: style, scripts, the icon, and a decoder of QR codes. All from the binary.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::admin::routes::Refused;
use crate::admin::wire::Refusal;
use crate::commissioning::error::Disposition;
use crate::plain;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, content type, content.
const FILES: [(&str, &str, &str); 10] = [
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("app.js", SCRIPT, include_str!("app.js")),
    ("live.js", SCRIPT, include_str!("live.js")),
    ("add.js", SCRIPT, include_str!("add.js")),
    ("scan.js", SCRIPT, include_str!("scan.js")),
    ("share.js", SCRIPT, include_str!("share.js")),
    ("qr/qr.js", SCRIPT, include_str!("vendor/qr/qr.js")),
    ("qr/decode.js", SCRIPT, include_str!("vendor/qr/decode.js")),
    ("qr/LICENSE", "text/plain; charset=utf-8", include_str!("vendor/qr/LICENSE-MIT")),
];

/// A browser keeps them, and asks each time whether they are still the same: an update of the hub shows at once.
pub(super) async fn serve(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Refused> {
    let Some((_, kind, content)) = FILES.iter().find(|(known, _, _)| *known == name) else {
        let hint = "the page itself is at /";
        return Err(Refused(Refusal::new("unknown-path", Disposition::UserAction, "the page has no such part", hint)));
    };
    let tag = tag(content);
    let answer = [(header::CACHE_CONTROL, HeaderValue::from_static("no-cache")), (header::ETAG, tag.clone())];
    if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    Ok((answer, [(header::CONTENT_TYPE, *kind)], *content).into_response())
}

fn tag(content: &str) -> HeaderValue {
    let digest = plain::lower_hex(&Sha256::digest(content)[..12]);
    HeaderValue::from_str(&format!("\"{digest}\"")).expect("hex in quotes is a header's value")
}
