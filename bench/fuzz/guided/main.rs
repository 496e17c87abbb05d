//! One target of `bench/fuzz` under libFuzzer: guesses that reach new code are kept and guessed from.
//!
//! Which one is said by `FUZZ_TARGET`; all arguments are libFuzzer's.

#![no_main]

use fuzz::Target;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    fuzz::target(&name)
        .unwrap_or_else(|| panic!("FUZZ_TARGET={name} names no target; `cargo run -p fuzz` lists them"))
});

fuzz_target!(|bytes: &[u8]| {
    (TARGET.body)(bytes);
});
