//! Any packet is a frame or an error, and a frame survives being written and read again.
#![no_main]

use curtsy_handover::wire::Frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = Frame::decode(bytes) {
        // What was skipped on reading is gone, a text may be cut and a default is written out, so the second writing is
        // what must hold. The longest frames may have grown beyond the limit by it.
        let Ok(written) = frame.encode() else { return };
        let again = Frame::decode(&written).expect("a frame that was written can be read");
        assert_eq!(
            again.encode().expect("written once, written twice"),
            written
        );
    }
});
