#![no_main]

use inflight_fuzz::{Format, fuzz};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz(Format::Image, bytes));
