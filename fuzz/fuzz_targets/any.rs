//! libFuzzer around one of the targets, the one that `FUZZ_TARGET` names: one binary for all is
//! built and linked once.

#![no_main]

use std::sync::LazyLock;

use watchtower_fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    Target::named(&name).expect("FUZZ_TARGET names one of crates/watchtower-fuzz")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
