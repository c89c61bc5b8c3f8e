//! What the fuzzers found worth keeping, played again without a fuzzer: nothing a stranger sends is a panic.
//!
//! `tests/corpora/<target>` has one file for each input, named by its hash; fuzz/Cargo.toml says how they are made. The inputs are
//! also bent at random, for a moment, or by hand for as long as it is told:
//!
//! ```sh
//! MATTERBIND_BEND_SECONDS=600 MATTERBIND_BEND_SEED=7 cargo test --test corpora -- --nocapture
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

#[path = "../fuzz/targets.rs"]
mod targets;

/// The kept inputs of a target, each with its file.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(target);
    let inputs = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = inputs
        .map(|input| {
            let path = input.expect("the folder can be read").path();
            (path.display().to_string(), std::fs::read(&path).expect("the file can be read"))
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 20, "{target}: only {} inputs are kept in {}", inputs.len(), folder.display());
    inputs
}

#[test]
fn every_kept_input_is_survived() {
    for (name, target) in targets::ALL {
        for (file, bytes) in kept(name) {
            // The file that is named last before a panic is the one.
            println!("{file}");
            target(&bytes);
        }
    }
}

/// One to five changes to an input; some of them take a part of another one.
fn bend(inputs: &[(String, Vec<u8>)], random: &mut StdRng) -> Vec<u8> {
    const TELLING: [u8; 12] = [0, 1, 0x14, 0x15, 0x16, 0x18, 0x1B, 0x7F, 0x80, 0xFE, 0xFF, b'"'];
    let mut bytes = inputs[random.random_range(0..inputs.len())].1.clone();
    for _ in 0..random.random_range(1..=5) {
        let at = random.random_range(0..=bytes.len());
        let end = random.random_range(at..=bytes.len().min(at + 64));
        match random.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = TELLING[random.random_range(0..TELLING.len())],
            2 => bytes.insert(at, random.random()),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            5 => bytes.truncate(at),
            _ => {
                let other = &inputs[random.random_range(0..inputs.len())].1;
                let from = random.random_range(0..=other.len());
                bytes.splice(at..end, other[from..].iter().take(64).copied());
            }
        }
    }
    bytes.truncate(8192);
    bytes
}

#[test]
fn bent_inputs_are_survived() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let length = number("MATTERBIND_BEND_SECONDS").map_or(Duration::from_millis(500), Duration::from_secs);
    let seed = number("MATTERBIND_BEND_SEED").unwrap_or(1);
    std::thread::scope(|scope| {
        for (name, target) in targets::ALL {
            scope.spawn(move || {
                let (inputs, mut random) = (kept(name), StdRng::seed_from_u64(seed));
                let (begun, mut played) = (Instant::now(), 0_u64);
                while begun.elapsed() < length {
                    let input = bend(&inputs, &mut random);
                    let survived = catch_unwind(AssertUnwindSafe(|| target(&input)));
                    assert!(survived.is_ok(), "{name} with {input:02x?}");
                    played += 1;
                }
                println!("{name}: {played} bent inputs in {:?}", begun.elapsed());
            });
        }
    });
}
