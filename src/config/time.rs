//! Times as people write them in the configuration, in one unit: `90d`, and not `2months 29days 3h 56m 24s`.

use std::time::Duration;

pub(super) use humantime_serde::deserialize;
use serde::Serializer;

/// From the largest on; longer ones have no fixed length.
const UNITS: [(u128, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];

pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(*time))
}

/// In the largest unit of which it is a whole number.
fn shown(time: Duration) -> String {
    let ms = time.as_millis();
    let fits = |(unit, _): &&(u128, &str)| ms >= *unit && ms.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((unit, name)) if time.subsec_nanos().is_multiple_of(1_000_000) => format!("{}{name}", ms / unit),
        _ => humantime::format_duration(time).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_it_is_written_and_read_again() {
        for text in ["90d", "1d", "36h", "10m", "90s", "1500ms", "0s", "25us"] {
            let time = humantime::parse_duration(text).unwrap();
            assert_eq!(shown(time), text);
        }
    }
}
