//! What each body code asks of the schedule: cloud-contract 5, the 26 codes of the seed and the unlisted ones.

/// What is left when the number of tries is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastResort {
    /// A person must do something.
    Operator,
    /// Nothing helps.
    Reject,
}

/// What a code asks for. "Most" counts tries in a row that end in the same class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It may be so already: look; if it is not, only a person can help.
    ReadBackThenOperator,
    /// It may have taken effect: look; if it has not, try again.
    ReadBackThenRetry { most: u32 },
    /// Nothing took effect, it may do so soon.
    Retry { most: u32 },
    /// The device has yet to report something: every 3 s until the window ends.
    BindWindow,
    /// The cloud client has signed in again already; once more, then no more.
    SignInAgain { then: LastResort },
    /// The binding code is no good: look, then read another from the device.
    FreshCode { most: u32, then: LastResort },
    /// Drop the name and send again.
    WithoutName,
    /// Drop family and room and send again.
    WithoutHome,
    /// A person must do something.
    Operator,
    /// The request is wrong and stays wrong.
    Bug,
}

/// The class of a body code other than 200.
pub(super) fn class_of(code: i64) -> Class {
    use LastResort::{Operator, Reject};
    match code {
        5009 | 5460 | 5465 => Class::BindWindow,
        5032 => Class::SignInAgain { then: Operator },
        5106 => Class::SignInAgain { then: Reject },
        5000 | 5048 => Class::ReadBackThenRetry { most: 8 },
        5049 | 5412 | 5893 => Class::ReadBackThenOperator,
        5213 => Class::FreshCode { most: 1, then: Reject },
        5461 => Class::FreshCode { most: 3, then: Operator },
        5462 => Class::FreshCode { most: 1, then: Operator },
        5314 => Class::Retry { most: 5 },
        5333 => Class::WithoutName,
        5624 | 5636 | 5669 => Class::WithoutHome,
        5229 | 6040 | 6083 => Class::Operator,
        5066 | 5067 | 5179 | 5361 | 5879 | 5880 | 5881 | 5882 | 5883 | 5885 => Class::Bug,
        // 5884 is in no page and therefore here, too.
        _ => Class::ReadBackThenOperator,
    }
}

/// What a person can do about a code.
pub(super) fn hint_of(code: i64) -> &'static str {
    match code {
        5009 => "the cloud has not verified the device: power it up, let it connect to the cloud, then retry the row",
        5032 => "the cloud refuses the hub's token: check the hub's clock, user domain and base_url",
        5048 | 5000 => "the cloud fails; it is tried again by itself",
        5049 => "the cloud says that it is bound, but does not show it in our account: ask the cloud's operator",
        5066 => "set the product key",
        5067 => "set the device key",
        5106 | 5179 => "a defect of matterbind: please report it",
        5213 => "the binding code must be 16 characters 0-9A-F: check the device or the product profile",
        5229 => "associate the product with the App in the cloud's console",
        5314 => {
            "the cloud does not know this product key and device key: check both, and that the device is registered"
        }
        5333 => "give the device a shorter name",
        5361 => "the device key must be 4 to 32 letters or digits: check the product profile",
        5412 => "another account owns the device: its owner must unbind it or share it",
        5460 => "the device has not reported its binding code: connect it to the cloud, then retry the row",
        5461 => "the binding code has expired: make the device open its binding window again",
        5462 => "the binding code is not the device's: read it again from the device",
        5465 => {
            "the device has not reported its binding secret: check its firmware, let it connect, then retry the row"
        }
        5624 => "home mode is off in the cloud: switch it on, or remove family_id from the configuration",
        5636 => "the family does not exist: check family_id",
        5669 => "the hub's account is an ordinary member of the family: make it an administrator",
        5879..=5883 | 5885 => "the Matter identity is incomplete, a defect of matterbind: please report it",
        5893 => "the cloud could not add the device to the common devices: look at it in the app",
        6040 => "the hub's account has accepted this device as a share: give the share back, then retry the row",
        6083 => "the device belongs to another region of the cloud: check base_url",
        _ => "an undocumented answer of the cloud: see its message, then retry or drop the row",
    }
}
