//! See `bodies::receiver`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ddc_fuzz::bodies::receiver(data));
