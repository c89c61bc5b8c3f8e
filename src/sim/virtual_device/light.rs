//! The light itself: on or off, remembered across restarts. The On/Off cluster's rules (timers, effects) are rs-matter's.

use std::cell::Cell;

use rs_matter::dm::Cluster;
use rs_matter::dm::clusters::app::on_off::test::TestOnOffDeviceLogic;
use rs_matter::dm::clusters::app::on_off::{EffectVariantEnum, OnOffHooks, StartUpOnOffEnum};
use rs_matter::error::{Error, ErrorCode};
use rs_matter::tlv::Nullable;

use super::storage::{LIGHT_KEY, Storage};

/// What is remembered; two bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    on: bool,
    start_up: Option<StartUpOnOffEnum>,
}

impl Memory {
    fn encode(self) -> [u8; 2] {
        let start_up = match self.start_up {
            None => 0xFF,
            Some(StartUpOnOffEnum::Off) => 0,
            Some(StartUpOnOffEnum::On) => 1,
            Some(StartUpOnOffEnum::Toggle) => 2,
        };
        [u8::from(self.on), start_up]
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let [on, start_up] = bytes else { return None };
        let start_up = match start_up {
            0 => Some(StartUpOnOffEnum::Off),
            1 => Some(StartUpOnOffEnum::On),
            2 => Some(StartUpOnOffEnum::Toggle),
            _ => None,
        };
        Some(Self { on: *on != 0, start_up })
    }
}

/// The On/Off Light's device logic.
pub(super) struct Light {
    memory: Cell<Memory>,
    storage: Storage,
}

impl Light {
    /// The light as it was left; off when it is new.
    pub(super) fn remembered(storage: Storage) -> std::io::Result<Self> {
        let memory = storage.read(LIGHT_KEY)?.and_then(|bytes| Memory::decode(&bytes));
        Ok(Self { memory: Cell::new(memory.unwrap_or(Memory { on: false, start_up: None })), storage })
    }

    fn remember(&self, memory: Memory) -> std::io::Result<()> {
        if self.memory.replace(memory) == memory { Ok(()) } else { self.storage.write(LIGHT_KEY, &memory.encode()) }
    }
}

impl OnOffHooks for Light {
    /// With the Lighting feature, as the On/Off Light device type demands (Device Library 4.1).
    const CLUSTER: Cluster<'static> = TestOnOffDeviceLogic::CLUSTER;

    fn on_off(&self) -> bool {
        self.memory.get().on
    }

    fn set_on_off(&self, on: bool) {
        let changed = self.memory.get().on != on;
        if let Err(error) = self.remember(Memory { on, ..self.memory.get() }) {
            tracing::warn!(%error, "the light could not remember its state");
        }
        if changed {
            tracing::info!(on, "the light was switched");
        }
    }

    fn start_up_on_off(&self) -> Nullable<StartUpOnOffEnum> {
        self.memory.get().start_up.map_or_else(Nullable::none, Nullable::some)
    }

    fn set_start_up_on_off(&self, value: Nullable<StartUpOnOffEnum>) -> Result<(), Error> {
        self.remember(Memory { start_up: value.into_option(), ..self.memory.get() })
            .map_err(|_| ErrorCode::Failure.into())
    }

    async fn handle_off_with_effect(&self, _effect: EffectVariantEnum) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_light_comes_back_as_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let light = Light::remembered(storage.clone()).unwrap();
        assert!(!light.on_off());
        light.set_on_off(true);
        light.set_start_up_on_off(Nullable::some(StartUpOnOffEnum::Toggle)).unwrap();

        let light = Light::remembered(storage).unwrap();
        assert!(light.on_off());
        assert_eq!(light.start_up_on_off().into_option(), Some(StartUpOnOffEnum::Toggle));
    }
}
