//! `counts`: allocations per match and per request, a line of JSON for each. They are exact and the same in every run.

use allocation_counter::measure;
use curtsy_web::Body;
use http::Request;
use inprocess::{Asked, ask, frameworks, matchers, path, routes, site};

fn main() {
    let asked: Vec<_> = routes()
        .into_iter()
        .map(|(method, pattern)| (method, path(pattern)))
        .collect();
    let count = asked.len() as f64;
    let say = |what: &str, of: &str, allocations: f64, bytes: f64| {
        println!(
            "{{\"what\":\"{what}\",\"of\":\"{of}\",\"allocations\":{allocations:.2},\"bytes\":{bytes:.1}}}"
        );
    };
    for matcher in matchers() {
        let pass = || {
            for (method, path) in &asked {
                assert!((matcher.find)(method, path), "{path}");
            }
        };
        pass();
        let info = measure(pass);
        let (allocations, bytes) = (info.count_total as f64, info.bytes_total as f64);
        say("match", matcher.name, allocations / count, bytes / count);
    }
    for mut framework in frameworks() {
        let (mut allocations, mut bytes) = (0.0, 0.0);
        for (method, path) in &asked {
            let request = || {
                Request::builder()
                    .method(method)
                    .uri(path)
                    .body(Body::empty())
            };
            let (Ok(first), Ok(second)) = (request(), request()) else {
                continue;
            };
            assert_eq!((framework.answer)(first), 200);
            let info = measure(|| assert_eq!((framework.answer)(second), 200));
            allocations += info.count_total as f64;
            bytes += info.bytes_total as f64;
        }
        say(
            "request",
            framework.name,
            allocations / count,
            bytes / count,
        );
    }
    let engine = site();
    let of = |asked: Asked| {
        ask(&engine, asked);
        measure(|| ask(&engine, asked))
    };
    let nothing = of(Asked::Nothing);
    for asked in Asked::ALL {
        let info = of(asked);
        let allocations = info.count_total.saturating_sub(nothing.count_total);
        let bytes = info.bytes_total.saturating_sub(nothing.bytes_total);
        say("asked", asked.name(), allocations as f64, bytes as f64);
    }
}
