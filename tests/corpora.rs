//! What the fuzzers found worth keeping, played again without a fuzzer: nothing a stranger sends is a panic.
//!
//! `tests/corpora/<target>` has one file for each input, named by its hash; fuzz/Cargo.toml says how they are made.

use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn every_kept_input_is_survived() {
    for (name, target) in targets::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(name);
        let inputs = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut played = 0;
        for input in inputs {
            let path = input.expect("the folder can be read").path();
            let bytes = std::fs::read(&path).expect("the file can be read");
            // The file that is named last before a panic is the one.
            println!("{}", path.display());
            target(&bytes);
            played += 1;
        }
        assert!(played >= 20, "{name}: only {played} inputs are kept in {}", folder.display());
    }
}
