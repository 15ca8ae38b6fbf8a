//! Any line is a command or is answered by one line.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| curtsy_server::fuzzing::control_line(bytes));
