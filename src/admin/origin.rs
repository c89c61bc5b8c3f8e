//! Which requests a browser may have been made to send by somebody else's page. Pure. Not here: who is let in (`auth`).
//!
//! A page of another origin can send requests here, and one whose name is made to stand for the hub's address (DNS rebinding)
//! even reads the answers. Names that nobody on the internet can own, and addresses, cannot be made to do that.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::{HeaderMap, Method, Uri, header};

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It is for a host that the hub does not know as itself.
    Host(String),
    /// It comes from another page.
    Page(String),
}

/// What says so in a request, or `None` where there is nothing to say against it. `names` are those by which the hub is known,
/// beside its addresses; `by_cookie`: a cookie lets it in, which browsers send by themselves.
pub(super) fn judge(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    names: &[String],
    by_cookie: bool,
) -> Option<Foreign> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(header::HOST));
    // No browser leaves it out.
    if let Some(host) = host
        && !is_ours(host, names)
    {
        return Some(Foreign::Host(host.to_owned()));
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    match text(header::ORIGIN) {
        Some(origin) => {
            let of = origin.split_once("://").map(|(_, authority)| authority);
            let same = of.zip(host).is_some_and(|(of, host)| of.eq_ignore_ascii_case(host));
            (!same).then(|| Foreign::Page(origin.to_owned()))
        }
        None if matches!(site, Some("same-origin" | "none")) => None,
        None if by_cookie || site.is_some() => Some(Foreign::Page("nowhere that the browser names".to_owned())),
        None => None,
    }
}

fn is_ours(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => return rest.split(']').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => host.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase(),
    };
    // A name without a dot is nobody's on the internet.
    let nobodys = !name.is_empty() && !name.contains('.');
    nobodys
        || name.parse::<Ipv4Addr>().is_ok()
        || name.ends_with(".localhost")
        || names.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, fields: &[(&'static str, &str)], by_cookie: bool) -> Option<Foreign> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        let names = ["hub.local".to_owned(), "hub.example.org".to_owned()];
        judge(&method.parse().unwrap(), &"/v1/sync".parse().unwrap(), &headers, &names, by_cookie)
    }

    #[test]
    fn a_name_that_somebody_else_may_own_is_not_ours() {
        for host in [
            "192.0.2.7:8480",
            "[fd00::1]:8480",
            "localhost",
            "matterbind",
            "Hub.local:8480",
            "hub.example.org",
            "x.localhost",
        ] {
            assert_eq!(found("GET", &[("host", host)], true), None, "{host}");
        }
        for host in [
            "rebound.example.com",
            "hub.example.org.evil.com:8480",
            "192.0.2.7.nip.io",
            "other.local",
            "[evil.com]",
            "",
        ] {
            assert_eq!(found("GET", &[("host", host)], false), Some(Foreign::Host(host.to_owned())), "{host}");
        }
        assert_eq!(found("GET", &[], false), None, "no browser");
    }

    #[test]
    fn another_page_changes_nothing() {
        let host = ("host", "192.0.2.7:8480");
        let from = |origin, by_cookie| found("POST", &[host, ("origin", origin)], by_cookie);
        for by_cookie in [true, false] {
            assert_eq!(from("https://192.0.2.7:8480", by_cookie), None);
            for origin in ["https://192.0.2.7", "http://192.0.2.7:8481", "https://evil.com", "null"] {
                assert_eq!(from(origin, by_cookie), Some(Foreign::Page(origin.to_owned())), "{origin}");
            }
            for site in ["cross-site", "same-site"] {
                assert!(found("DELETE", &[host, ("sec-fetch-site", site)], by_cookie).is_some(), "{site}");
            }
            assert_eq!(found("POST", &[host, ("sec-fetch-site", "same-origin")], by_cookie), None);
        }
        assert!(found("POST", &[host], true).is_some(), "a cookie alone is sent by every page");
        assert_eq!(found("POST", &[host], false), None, "a program");
    }
}
