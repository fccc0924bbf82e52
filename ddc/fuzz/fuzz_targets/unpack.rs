//! See `bodies::unpack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ddc_fuzz::bodies::unpack(data));
