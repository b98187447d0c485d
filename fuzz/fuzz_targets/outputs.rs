#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| framehook_fuzz::outputs(data));
