//! `asks KIND COUNT`: sends this framework COUNT requests of a kind, in process. For an instruction counter:
//!
//! ```sh
//! valgrind --tool=callgrind target/release/asks user 20000
//! ```
//!
//! Twice with different counts, the difference divided by theirs, and the same for the kind `nothing` taken off, is
//! what a request costs in instructions; no other program on the machine can disturb that number.

use inprocess::{Asked, ask, site};

fn main() {
    let mut words = std::env::args().skip(1);
    let kind = words.next().unwrap_or_default();
    let count = words.next().and_then(|text| text.parse().ok());
    let asked = Asked::ALL.into_iter().find(|asked| asked.name() == kind);
    let (Some(asked), Some(count)) = (asked, count) else {
        let kinds = Asked::ALL.map(Asked::name).join("|");
        eprintln!("usage: asks {kinds} COUNT");
        std::process::exit(2);
    };
    let engine = site();
    for _ in 0..u32::min(count, 10_000_000) {
        ask(&engine, asked);
    }
}
