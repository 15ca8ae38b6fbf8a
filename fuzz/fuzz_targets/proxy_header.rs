//! Any bytes are a PROXY header, the beginning of one, or none.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| curtsy_server::fuzzing::proxy_header(bytes));
