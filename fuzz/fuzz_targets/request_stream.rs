//! Any bytes are a stream of requests; where each ends does not depend on how it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| curtsy_server::fuzzing::request_stream(bytes));
