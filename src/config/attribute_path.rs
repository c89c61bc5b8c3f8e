//! Reads `endpoint/cluster/attribute`, for instance `0/0x28/0x0f`, numbers decimal or hexadecimal.

use std::str::FromStr;

use crate::commissioning::ports::AttributePath;
use crate::node;

/// The largest endpoint that a path may name: 65535 is the wildcard (Matter Core 7.18.2.17).
const MAX_ENDPOINT: u16 = 0xFFFE;

/// Why a text is no attribute path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributePathError {
    /// It has not the three parts.
    #[error("an attribute path has three parts, endpoint/cluster/attribute, this one has {parts}")]
    Parts {
        /// How many it has.
        parts: usize,
    },
    /// A part that is no number, or too large a one.
    #[error("{part:?} is no {what}")]
    Number {
        /// The part as written.
        part: String,
        /// `endpoint (0 to 65534)`, `cluster id` or `attribute id`.
        what: &'static str,
    },
}

impl FromStr for AttributePath {
    type Err = AttributePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let [endpoint, cluster, attribute] = parts[..] else {
            return Err(AttributePathError::Parts { parts: parts.len() });
        };
        let wrong = |part: &str, what| AttributePathError::Number { part: part.to_owned(), what };
        let number = |part: &str| node::number::<u32>(part.trim());
        let endpoint_number = node::number::<u16>(endpoint.trim())
            .filter(|value| *value <= MAX_ENDPOINT)
            .ok_or_else(|| wrong(endpoint, "endpoint (0 to 65534)"))?;
        Ok(Self {
            endpoint: endpoint_number,
            cluster: number(cluster).ok_or_else(|| wrong(cluster, "cluster id"))?,
            attribute: number(attribute).ok_or_else(|| wrong(attribute, "attribute id"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bases_are_read() {
        let path = AttributePath { endpoint: 0, cluster: 0x28, attribute: 15 };
        assert_eq!("0/0x28/0x0f".parse(), Ok(path));
        assert_eq!("0/40/15".parse(), Ok(path));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!("0/40".parse::<AttributePath>(), Err(AttributePathError::Parts { parts: 2 }));
        for text in ["65535/1/1", "x/1/1", "0/-1/1", "0/1/0x1ffffffff"] {
            assert!(matches!(text.parse::<AttributePath>(), Err(AttributePathError::Number { .. })), "{text}");
        }
    }
}
