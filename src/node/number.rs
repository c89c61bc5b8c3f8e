//! Numbers as this field writes them: decimal, or hexadecimal after `0x`. Pure.

/// A number in either base, with or without underscores; nothing where it is none, or does not fit.
pub(crate) fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let text = text.replace('_', "");
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text.as_str(), 10),
    };
    // The standard library takes a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    T::try_from(u64::from_str_radix(digits, radix).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bases_are_read() {
        assert_eq!(["40", "0x28", "0X0028", "4_0", "0x2_8"].map(number::<u8>), [Some(40); 5]);
        for wrong in ["", "0x", "+40", "0x+28", "-1", "28h", "4 0", "256", "0x1_0000_0000_0000_0000"] {
            assert_eq!(number::<u8>(wrong), None, "{wrong:?}");
        }
        assert_eq!(number("0xFFFF_FFFF_FFFF_FFFF"), Some(u64::MAX));
    }
}
