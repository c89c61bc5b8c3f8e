//! What tells one device from another of its kind. Pure.

/// What tells one device from others of its kind, across a reset. Devices may lie or repeat themselves, so this is a reason
/// to ask the other node, and none to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks<'a> {
    pub product: (u16, u16),
    pub serial_number: Option<&'a str>,
    pub unique_id: Option<&'a str>,
}

impl<'a> Marks<'a> {
    /// The same for two records of one device, as far as the devices number anything.
    pub fn key(&self) -> Option<((u16, u16), &'a str)> {
        let told = telling(self.serial_number).or_else(|| telling(self.unique_id))?;
        Some((self.product, told))
    }

    /// Whether both are of one device: the serial numbers say so, or where one has none, the unique ids. A reset may change
    /// the unique id (Matter Core 11.1.5.19), so another one says nothing where the serial number is the same.
    pub fn are_of_one_device(&self, other: &Marks<'_>) -> bool {
        let same = match (telling(self.serial_number), telling(other.serial_number)) {
            (Some(one), Some(another)) => one == another,
            _ => telling(self.unique_id).is_some() && telling(self.unique_id) == telling(other.unique_id),
        };
        self.product == other.product && same
    }
}

/// Factories that number nothing write nothing, or one digit over and over.
fn telling(text: Option<&str>) -> Option<&str> {
    let text = text?.trim();
    let first = text.chars().next()?;
    text.chars().any(|c| c != first).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_its_serial_number_or_else_by_its_unique_id() {
        let marks = |serial_number, unique_id| Marks { product: (1, 2), serial_number, unique_id };
        let same = |a: Marks<'_>, b: Marks<'_>| a.are_of_one_device(&b) && b.are_of_one_device(&a);
        assert!(same(marks(Some("S1"), Some("u")), marks(Some("S1"), Some("changed"))));
        assert!(same(marks(None, Some("u1")), marks(Some("S1"), Some("u1"))));
        assert!(same(marks(Some("0000"), Some("u1")), marks(Some("0000"), Some("u1"))));
        assert!(!same(marks(Some("S1"), Some("u1")), marks(Some("S2"), Some("u1"))));
        assert!(!same(marks(Some("S1"), None), Marks { product: (1, 3), ..marks(Some("S1"), None) }));
        for nothing in [None, Some(""), Some("  "), Some("000000"), Some("0")] {
            assert!(!same(marks(nothing, nothing), marks(nothing, nothing)), "{nothing:?}");
        }
    }
}
