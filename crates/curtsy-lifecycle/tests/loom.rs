//! The ledger's concurrent part under every interleaving.
//!
//! Run it with `RUSTFLAGS="--cfg loom" cargo test -p curtsy-lifecycle --test loom --release`.
#![cfg(loom)]

use curtsy_lifecycle::Record;
use loom::sync::Arc;

#[test]
fn a_reader_never_sees_a_mixture() {
    loom::model(|| {
        let record = Arc::new(Record::new());
        let writer = loom::thread::spawn({
            let record = record.clone();
            move || record.write(b"aaaaaaa", b"aaaaaaaa")
        });
        if let Some(text) = record.read() {
            assert!(text.is_empty() || text == "aaaaaaa aaaaaaaa", "{text}");
        }
        writer.join().unwrap();
        assert_eq!(record.read().unwrap(), "aaaaaaa aaaaaaaa");
    });
}

#[test]
fn a_second_write_is_seen_whole_or_not_at_all() {
    loom::model(|| {
        let record = Arc::new(Record::new());
        record.write(b"aaaaaaa", b"aaaaaaaa");
        let writer = loom::thread::spawn({
            let record = record.clone();
            move || record.write(b"bbbbbbb", b"bbbbbbbb")
        });
        if let Some(text) = record.read() {
            assert!(
                text == "aaaaaaa aaaaaaaa" || text == "bbbbbbb bbbbbbbb",
                "{text}"
            );
        }
        writer.join().unwrap();
    });
}
