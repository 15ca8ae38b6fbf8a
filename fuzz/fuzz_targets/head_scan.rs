//! Any bytes are a head, whole or not; what the scan counts in it does not depend on how it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| curtsy_server::fuzzing::head_scan(bytes));
