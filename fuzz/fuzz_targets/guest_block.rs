#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| jali_fuzz::guests::block(data));
