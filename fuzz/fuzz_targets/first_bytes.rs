//! The first bytes of a connection decide its protocol and never more than that.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| curtsy_server::fuzzing::first_bytes(bytes));
