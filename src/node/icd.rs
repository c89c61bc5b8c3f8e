//! What a device with long idle times says of its sleep, and which of its check-ins count (Matter Core 4.20, 9.16). Pure.
//!
//! Such a device hears nothing while it is idle, for an hour or longer. Whoever has registered with it gets a check-in each time
//! it wakes, sealed with a key that was given at the registration and numbered by a counter that never goes back.

use std::fmt;
use std::time::Duration;

use super::IcdRegistration;

/// Half of the counter's numbers: past that a key is worn (4.20.3).
const WORN: u32 = 1 << 31;
/// A check-in may get lost, as nobody acknowledges it: so many in a row are missed before the device counts as silent.
const MISSED: u32 = 2;
/// What a check-in may be late by.
const LATE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// A device that does not say how long it stays awake (9.16.6.3 wants 5 s of one that sleeps long).
const SHORTEST_WAKE: Duration = Duration::from_secs(5);

/// For a person.
impl fmt::Display for IcdRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registered => "sleeps long, and checks in with the hub when it wakes",
            Self::NotRegistered => "sleeps long, and the hub is not registered for its check-ins",
        })
    }
}

/// ICD Management (9.16.6), as far as a hub has to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IcdParameters {
    /// CheckInProtocolSupport: clients may register.
    pub checks_in: bool,
    /// How long it sleeps between two wakes (IdleModeDuration).
    pub idle: Duration,
    /// The longest pause between two check-ins that nobody answered (MaximumCheckInBackOff).
    pub back_off: Duration,
    /// How long it stays awake after the last message (ActiveModeThreshold).
    pub active_threshold: Duration,
    /// CheckInNodeID of each client that is registered on our fabric.
    pub clients: Vec<u64>,
    /// How a person wakes it, as a bitmap (UserActiveModeTriggerHint).
    pub trigger: u32,
    /// The same in the maker's words (UserActiveModeTriggerInstruction).
    pub instruction: String,
}

impl IcdParameters {
    /// What is kept of it while the hub is registered.
    pub fn sleep(&self) -> IcdSleep {
        let every = self.idle.max(self.back_off).max(Duration::from_secs(1));
        IcdSleep { every, awake: self.active_threshold, trigger: self.trigger, instruction: self.instruction.clone() }
    }
}

/// How a device sleeps with which the hub is registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IcdSleep {
    /// It checks in at least this often.
    pub every: Duration,
    /// It stays awake for so long after it has heard or sent something.
    pub awake: Duration,
    /// How a person wakes it (9.16.5.1).
    pub trigger: u32,
    /// What belongs to that: for how long, how often, or in the vendor's words.
    pub instruction: String,
}

impl IcdSleep {
    /// For how long it may say nothing before it counts as silent.
    pub fn patience(&self) -> Duration {
        self.every * MISSED + (self.every / 2).clamp(LATE.0, LATE.1)
    }

    /// For how long after a word of it it is taken to be awake.
    pub fn wake(&self) -> Duration {
        if self.awake.is_zero() { SHORTEST_WAKE } else { self.awake }
    }

    /// What a person does to wake it.
    pub fn how_to_wake(&self) -> String {
        let told = |bit: u32| self.trigger & (1 << bit) != 0;
        let (number, seconds) = (self.instruction.as_str(), |what: &str| format!("{what} for {} s", self.instruction));
        let times = |what: &str| format!("{what} {number} times");
        match () {
            () if told(2) && !number.is_empty() => format!("wake it: {number}"),
            () if told(5) && !number.is_empty() => seconds("set off its sensor"),
            () if told(6) && !number.is_empty() => times("set off its sensor"),
            () if told(4) || told(7) => "set off its sensor".to_owned(),
            () if told(10) && !number.is_empty() => seconds("hold its reset button"),
            () if told(11) && !number.is_empty() => times("press its reset button"),
            () if told(8) || told(9) => "press its reset button".to_owned(),
            () if told(13) && !number.is_empty() => seconds("hold its setup button"),
            () if told(15) && !number.is_empty() => times("press its setup button"),
            () if told(12) || told(14) => "press its setup button".to_owned(),
            () if told(16) => "press the button that its manual names".to_owned(),
            () if told(1) => "wake it from its settings menu".to_owned(),
            () if told(0) => "take its power and give it back".to_owned(),
            () => "wake it as its manual says".to_owned(),
        }
    }
}

/// Where the counter of one key stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckInCounter {
    /// ICDCounter when the device took the key.
    pub start: u32,
    /// How far past that the last check-in was.
    pub last: Option<u32>,
}

/// What a check-in's counter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    New {
        /// Where the counter stands now.
        counter: CheckInCounter,
        /// The key has to be replaced before the numbers come round.
        worn: bool,
    },
    /// It, or a later one, was there before.
    Repeated,
}

impl CheckInCounter {
    /// Judges the counter of a check-in that was sealed with this key.
    pub fn judge(self, counter: u32) -> Counted {
        let offset = counter.wrapping_sub(self.start);
        if self.last.is_some_and(|last| offset <= last) {
            return Counted::Repeated;
        }
        Counted::New { counter: Self { last: Some(offset), ..self }, worn: offset >= WORN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_in_counts_once_and_never_after_a_later_one() {
        let begin = CheckInCounter { start: u32::MAX - 1, last: None };
        let Counted::New { counter, worn: false } = begin.judge(u32::MAX - 1) else { panic!("the first") };
        assert_eq!(counter.judge(u32::MAX - 1), Counted::Repeated);
        // The numbers come round.
        let Counted::New { counter, worn: false } = counter.judge(3) else { panic!("a later one") };
        for again in [3, 2, 0, u32::MAX] {
            assert_eq!(counter.judge(again), Counted::Repeated, "{again}");
        }
        let Counted::New { worn, .. } = counter.judge(begin.start.wrapping_add(WORN)) else { panic!("far ahead") };
        assert!(worn);
    }

    #[test]
    fn silence_is_two_missed_check_ins() {
        let hourly = IcdParameters { idle: Duration::from_secs(3600), ..IcdParameters::default() };
        assert_eq!(hourly.sleep().patience(), Duration::from_secs(2 * 3600 + 60));
        let backing_off = IcdParameters { back_off: Duration::from_secs(7200), ..hourly };
        assert_eq!(backing_off.sleep().every, Duration::from_secs(7200));
        assert_eq!(IcdParameters::default().sleep().patience(), Duration::from_secs(7));
    }

    #[test]
    fn a_person_is_told_how_to_wake_it() {
        let wake = |trigger, instruction: &str| {
            IcdSleep { trigger, instruction: instruction.to_owned(), ..IcdSleep::default() }.how_to_wake()
        };
        assert_eq!(wake(1 << 12, ""), "press its setup button");
        assert_eq!(wake(1 << 10, "5"), "hold its reset button for 5 s");
        assert_eq!(wake(1 << 6, "3"), "set off its sensor 3 times");
        assert_eq!(wake(1 << 2, "shake it"), "wake it: shake it");
        assert_eq!(wake(0, ""), "wake it as its manual says");
    }
}
