//! Server-sent events: a clock that ticks until the client leaves or the server drains.
//!
//! ```sh
//! cargo run -p curtsy --example sse_clock
//! curl -N http://127.0.0.1:8080/clock?ticks=2  # event:tick
//! kill -TERM "$(pidof sse_clock)"              # an endless one ends as a stream should, and is not cut
//! ```

use curtsy::web::{Context, Engine, Event, Run};
use futures_util::{StreamExt, stream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PERIOD: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut r = Engine::default();
    r.get("/clock", clock);
    r.run("")?;
    Ok(())
}

/// A stream is all that is needed: it ends with the drain by itself, and the clients connect again.
async fn clock(c: &mut Context) {
    let ticks = c.query("ticks").parse().unwrap_or(usize::MAX);
    let events = stream::unfold(tokio::time::interval(PERIOD), async |mut interval| {
        interval.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.unwrap_or_default().as_secs();
        let event = Event::data(seconds.to_string()).event("tick");
        Some((event, interval))
    });
    c.sse(events.take(ticks));
}
