#![no_main]

use inflight_fuzz::{Kept, fuzz_kept};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_kept(Kept::Vocabulary, bytes));
