//! Settings and header blocks are found alike however their bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| curtsy_server::fuzzing::http2_payloads(bytes));
