//! What every body code of the cloud means and what to do about it: one table (seed; cloud-contract 5). Pure.
//!
//! Not here: how long to wait and how often to try (`outbox::schedule`), what the read-back compares (`reconcile`).

use serde::{Deserialize, Serialize};

/// The body code of success (cloud-contract 1). A body code of 0 is not success.
pub(crate) const SUCCESS: i64 = 200;
/// The access token is expired, revoked or damaged.
pub(crate) const TOKEN_INVALID: i64 = 5032;
/// No access token was sent.
pub(crate) const TOKEN_MISSING: i64 = 5106;
/// Our account has no such binding (`deviceInfo`, `unbundlingDeviceDk`).
pub(crate) const NOT_BOUND: i64 = 5052;

/// What to do about a body code. Where [`CodeMeaning::ambiguous`] is set, the read-back comes first: a record of our
/// own with the same Matter ids means bound, whatever the code said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    Bound,
    /// Bound already, if the read-back says so; else a person must help.
    DoneIfReadBack,
    /// The device is still reporting: every 3 s while the bind window is open, then a person must help.
    RetryInBindWindow,
    /// A fault of the service: with back-off, at most [`CodeMeaning::tries`] times, then a person must help.
    RetryWithBackOff,
    /// Sign in again and send once more; again means that a person must help. The client has done it already.
    SignInAgain,
    /// This binding code will never be taken: get a fresh one from the device, at most [`CodeMeaning::tries`] times.
    FreshCode,
    /// Send again without the name, rename afterwards.
    ResendWithoutName,
    /// Send again without family and room where policy permits and they were sent, else a person must help.
    ResendWithoutHome,
    /// A person must change something; look again now and then.
    Operator,
    /// Our payload was wrong: sending it again changes nothing.
    Bug,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeMeaning {
    /// The `code` in the body of an answer; HTTP says 200 all the same.
    pub code: i64,
    /// The seed's own words; for codes that the seed does not list, the vendor's catalogue's.
    pub message: &'static str,
    /// What it means for a bind, in ours.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: Remedy,
    /// Whether the bind may have happened all the same, now or by an earlier request: read back before anything else.
    pub ambiguous: bool,
    /// How often at most, for the dispositions that say so; 0 for the others.
    pub tries: u32,
    /// What a person can do; empty where nobody needs to do anything.
    pub hint: &'static str,
    /// Whether the seed lists it.
    pub in_seed: bool,
}

/// A row; `?` marks it as ambiguous, `unlisted` as absent from the seed.
macro_rules! row {
    ($code:literal $(* $tries:literal)?, $message:literal, $remedy:ident, $meaning:literal, $hint:expr) => {
        row!(@ $code, 0 $(+ $tries)?, $message, $remedy, $meaning, $hint, false, true)
    };
    ($code:literal $(* $tries:literal)? ?, $message:literal, $remedy:ident, $meaning:literal, $hint:expr) => {
        row!(@ $code, 0 $(+ $tries)?, $message, $remedy, $meaning, $hint, true, true)
    };
    (unlisted $code:literal $(* $tries:literal)?, $message:literal, $remedy:ident, $meaning:literal, $hint:expr) => {
        row!(@ $code, 0 $(+ $tries)?, $message, $remedy, $meaning, $hint, false, false)
    };
    (unlisted $code:literal $(* $tries:literal)? ?, $message:literal, $remedy:ident, $meaning:literal, $hint:expr) => {
        row!(@ $code, 0 $(+ $tries)?, $message, $remedy, $meaning, $hint, true, false)
    };
    (@ $code:expr, $tries:expr, $message:expr, $remedy:ident, $meaning:expr, $hint:expr, $ambiguous:expr, $in_seed:expr) => {
        CodeMeaning {
            code: $code,
            message: $message,
            meaning: $meaning,
            remedy: Remedy::$remedy,
            ambiguous: $ambiguous,
            tries: $tries,
            hint: $hint,
            in_seed: $in_seed,
        }
    };
}

const REPORT_BUG: &str = "this is a fault of matterbind: report it with `matterbind logs`";

/// Every code that this project knows by name.
#[rustfmt::skip]
pub static CODES: &[CodeMeaning] = &[
    row!(200, "WiFi device binding successful", Bound, "bound", ""),
    row!(5009, "Device verification failed", RetryInBindWindow,
        "the device has not yet authenticated itself to the cloud",
        "check that the device reaches the internet; if it does, its cloud activation is missing: ask its maker"),
    row!(5032 * 1, "Token verification failed", SignInAgain, "the access token is expired or revoked",
        "check the hub's clock, and cloud.user_domain and cloud.email in the configuration"),
    row!(5048 * 8 ?, "Device binding failed", RetryWithBackOff, "a fault of the service",
        "the binding service keeps failing: ask its operator, then `matterbind outbox retry`"),
    row!(5049 ?, "Device already bound", DoneIfReadBack, "bound already, by an earlier request of ours or otherwise",
        "the cloud says that the device is bound, but not to the hub's account: unbind it there, then `matterbind outbox retry`"),
    row!(5066, "Please enter Product Key", Bug, "the product key was missing",
        "give the device's product key, in [[products]] or with --product-key"),
    row!(5067, "Please enter Device Key", Bug, "the device key was missing",
        "give the device's device key, in [[products]] or with --device-key"),
    row!(5106 * 1, "Please enter token", SignInAgain, "the access token was missing",
        "a proxy between hub and cloud may drop the Authorization header; if there is none, report it"),
    row!(5179, "Please enter bindingCode", Bug, "the binding code was missing",
        "give the device's binding code, in [[products]] or with --binding-code"),
    row!(5213 * 1, "Incorrect bindingCode format", FreshCode, "the binding code is not 16 characters 0-9A-F",
        "read the binding code from the device again: it is 16 characters 0-9 and A-F"),
    row!(5229, "User domain not authorized for this product", Operator, "the product is not associated with the App",
        "associate the product with the App (user domain) in the developer console"),
    row!(5314 * 5, "Device query failed in cloud platform", RetryWithBackOff,
        "product key and device key are unknown to the cloud, or its device service failed",
        "check product key and device key: the device must be registered with the cloud under exactly these"),
    row!(5333, "Device name exceeds length limit", ResendWithoutName, "the name is too long",
        "choose a shorter name with `matterbind node rename`"),
    row!(5361, "Incorrect DK format", Bug, "the device key is not 4 to 32 letters and digits",
        "check products.device_key: the attribute it names does not hold a device key"),
    row!(5412 ?, "Product binding mode is unique, cannot bind repeatedly", DoneIfReadBack,
        "an account owns the device, ours or another",
        "another account owns the device: its owner must unbind or share it, then `matterbind outbox retry`"),
    row!(5460 ?, "bindingCode not reported", RetryInBindWindow, "the device has not yet told the cloud its binding code",
        "check that the device reaches the internet, and open its binding window again"),
    row!(5461 * 3 ?, "bindingCode expired", FreshCode, "the device's binding window has passed",
        "open the device's binding window again and give the new binding code"),
    row!(5462 * 1 ?, "bindingCode verification failed", FreshCode, "the device reported another binding code",
        "read the binding code from this very device again: a newer one replaces the one that was sent"),
    row!(5465, "bindingSecret not reported", RetryInBindWindow, "the device has not finished its first connection",
        "the device has not reported its binding secret: let it connect to the internet, or update its firmware"),
    row!(5879, "Please enter device identifier", Bug, "the discriminator was missing, or 0 was taken as missing",
        "if the device's discriminator is 0, the cloud may not accept that; else report it"),
    row!(5880, "Please enter Matter device product ID", Bug, "the Matter product id was missing",
        "if the device's product id is 0, ask its maker; else report it"),
    row!(5881, "Please enter Matter version number", Bug, "the Matter version was missing", REPORT_BUG),
    row!(5882, "Please enter vendor", Bug, "the Matter vendor id was missing", REPORT_BUG),
    row!(5883, "Please enter fabricId", Bug, "the fabric id was missing", REPORT_BUG),
    row!(5885, "Node ID cannot be empty", Bug, "the node id was missing", REPORT_BUG),
    row!(6083, "Bound device does not belong to current data center", Operator, "the device belongs to another region",
        "set cloud.base_url to the region that the device was made for, with an account of that region"),
    // What the page does not list and its siblings or the vendor's catalogue do (cloud-contract 3.2 and 5).
    row!(unlisted 5000 * 8 ?, "System error", RetryWithBackOff, "a fault of the service",
        "the service keeps failing: ask its operator, then `matterbind outbox retry`"),
    row!(unlisted 5041, "No permission", Operator, "the account may not do this",
        "check the rights of the hub's account in the family (home)"),
    row!(unlisted 5047, "User authentication mismatch", Operator, "the device belongs to another account",
        "check that cloud.email is the account that the device was bound with"),
    row!(unlisted 5050 * 8 ?, "Device unbinding failed", RetryWithBackOff, "a fault of the service while unbinding",
        "the service keeps failing: ask its operator, then `matterbind outbox retry`"),
    row!(unlisted 5052 ?, "Device not bound", DoneIfReadBack, "our account has no such device",
        "the cloud has no such device any more: run `matterbind sync`"),
    row!(unlisted 5054 * 8 ?, "Device information change failed", RetryWithBackOff, "a fault of the service while renaming",
        "the service keeps failing: ask its operator, then `matterbind outbox retry`"),
    row!(unlisted 5068, "Please enter device name", Bug, "the name was empty", REPORT_BUG),
    row!(unlisted 5327, "No permission for this product", Operator, "the account may not use the product",
        "associate the product with the App (user domain) in the developer console"),
    row!(unlisted 5358, "No product permission", Operator, "the account may not use the product",
        "associate the product with the App (user domain) in the developer console"),
    row!(unlisted 5618, "Please enter family ID", ResendWithoutHome, "the family id is missing",
        "check cloud.family_id"),
    row!(unlisted 5624, "Home mode not enabled", ResendWithoutHome, "the account does not use families",
        "clear cloud.family_id and cloud.room_id, or enable family mode for the account"),
    row!(unlisted 5635, "Home mode not enabled", ResendWithoutHome, "the account does not use families",
        "clear cloud.family_id and cloud.room_id, or enable family mode for the account"),
    row!(unlisted 5636, "Please enter family ID", ResendWithoutHome, "the family is missing or gone",
        "set cloud.family_id to a family of the hub's account"),
    row!(unlisted 5669, "Regular user has no permission to bind device", ResendWithoutHome, "an ordinary member may not bind into the family",
        "make the hub's account an administrator of the family, or clear cloud.family_id"),
    row!(unlisted 5893 ?, "Failed to add common device", DoneIfReadBack,
        "probably bound, only the common list failed", "bind again with `matterbind outbox retry`"),
    row!(unlisted 5913, "No permission to bind", Operator, "the cloud will not let this account bind the device",
        "ask the operator of the cloud why the device may not be bound"),
    row!(unlisted 6040, "Already accepted device sharing", Operator, "the account holds the device as a share",
        "remove the shared device from the hub's account, then `matterbind outbox retry`"),
];

/// What stands for a code that nobody documented.
static UNKNOWN: CodeMeaning = row!(unlisted 0 ?, "undocumented code", Operator, "an undocumented answer",
    "the cloud answered with a code that is in no document: ask its operator, then `matterbind outbox retry`");

/// The row of a code, if it has one.
pub(crate) fn lookup(code: i64) -> Option<&'static CodeMeaning> {
    CODES.iter().find(|row| row.code == code)
}

/// The row of a code, or of "undocumented": read back, then a person (cloud-contract 5). Its `code` is not `code` then.
pub fn meaning_of(code: i64) -> &'static CodeMeaning {
    lookup(code).unwrap_or(&UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seed's codes, written down once more by hand.
    const SEED: [i64; 26] = [
        200, 5009, 5032, 5048, 5049, 5066, 5067, 5106, 5179, 5213, 5229, 5314, 5333, 5361, 5412, 5460, 5461, 5462,
        5465, 5879, 5880, 5881, 5882, 5883, 5885, 6083,
    ];

    #[test]
    fn the_table_lists_exactly_the_seed_s_26_codes() {
        let listed: Vec<i64> = CODES.iter().filter(|row| row.in_seed).map(|row| row.code).collect();
        assert_eq!(listed, SEED);
    }

    #[test]
    fn the_messages_are_the_seed_s_words() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/seed-wifi-device-binding.txt");
        let Ok(seed) = std::fs::read_to_string(path) else {
            eprintln!("skipped: {path} is not there");
            return;
        };
        let rows: Vec<(i64, &str)> = seed
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| ")?.split('|').map(str::trim);
                Some((cells.next()?.parse().ok()?, cells.next()?))
            })
            .collect();
        let ours: Vec<(i64, &str)> =
            CODES.iter().filter(|row| row.in_seed).map(|row| (row.code, row.message)).collect();
        assert_eq!(ours, rows);
    }

    #[test]
    fn every_row_is_unique_and_complete() {
        for (index, row) in CODES.iter().enumerate() {
            assert!(CODES[index + 1..].iter().all(|other| other.code != row.code), "{} twice", row.code);
            assert!(!row.meaning.is_empty() && !row.message.is_empty(), "{}", row.code);
            assert_eq!(row.hint.is_empty(), row.remedy == Remedy::Bound, "{}", row.code);
            let counted = matches!(row.remedy, Remedy::RetryWithBackOff | Remedy::FreshCode | Remedy::SignInAgain);
            assert_eq!(row.tries > 0, counted, "{}", row.code);
        }
    }

    #[test]
    fn what_may_hide_a_success_is_read_back_first() {
        for code in [5048, 5049, 5412, 5460, 5461, 5462, 5000, 5893, 77_777, 403, -1, 0] {
            assert!(meaning_of(code).ambiguous, "{code}");
        }
        for code in [200, 5032, 5066, 5229, 5333, 5465, 5885, 6083] {
            assert!(!meaning_of(code).ambiguous, "{code}");
        }
        assert_eq!(meaning_of(77_777).remedy, Remedy::Operator);
        assert_eq!(meaning_of(422).remedy, Remedy::Operator, "an HTTP status is no code of the contract");
    }
}
