//! `routes [PASSES]`: nanoseconds per match and per request, a line of JSON for each router and framework.
//!
//! The allocator is the one of all peers.

use std::{hint::black_box, time::Instant};

use curtsy_web::Body;
use http::Request;
use inprocess::{frameworks, matchers, path, routes};
// For its allocator.
use peer as _;

fn main() {
    let passes = std::env::args().nth(1);
    let passes: u32 = passes.and_then(|text| text.parse().ok()).unwrap_or(2000);
    let asked: Vec<_> = routes()
        .into_iter()
        .map(|(method, pattern)| (method, path(pattern)))
        .collect();
    let count = u32::try_from(asked.len()).unwrap_or(u32::MAX);
    for matcher in matchers() {
        let pass = || {
            for (method, path) in &asked {
                assert!((matcher.find)(black_box(method), black_box(path)), "{path}");
            }
        };
        // Caches and branches settle.
        (0..passes / 10 + 1).for_each(|_| pass());
        let begun = Instant::now();
        (0..passes).for_each(|_| pass());
        let ns = begun.elapsed().as_secs_f64() * 1e9 / f64::from(passes) / f64::from(count);
        println!(
            "{{\"what\":\"match\",\"of\":\"{}\",\"ns\":{ns:.2}}}",
            matcher.name
        );
    }
    for mut framework in frameworks() {
        let mut spent = 0.0;
        for pass in 0..passes + passes / 10 {
            // A request is used up by its answer; making it does not count.
            let requests: Vec<Request<Body>> = asked
                .iter()
                .filter_map(|(method, path)| {
                    let request = Request::builder().method(method).uri(path);
                    request.body(Body::empty()).ok()
                })
                .collect();
            let begun = Instant::now();
            for request in requests {
                assert_eq!((framework.answer)(request), 200);
            }
            if pass >= passes / 10 {
                spent += begun.elapsed().as_secs_f64();
            }
        }
        let ns = spent * 1e9 / f64::from(passes) / f64::from(count);
        println!(
            "{{\"what\":\"request\",\"of\":\"{}\",\"ns\":{ns:.2}}}",
            framework.name
        );
    }
}
