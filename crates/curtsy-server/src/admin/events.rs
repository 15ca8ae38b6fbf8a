//! The stream of events: what the server is doing, again and again, for as long as somebody looks.
//!
//! A picture each second, four in a drain, and at once when the phase changes. The last one says `stopped`. Nothing is
//! looked at while nobody does.

use crate::admin::desk::{Answer, Desk};
use bytes::{BufMut, Bytes, BytesMut};
use curtsy_lifecycle::Phase;
use futures_util::stream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

/// Between two pictures.
const CALM: Duration = Duration::from_secs(1);
/// The same from the lame duck on.
const DRAINING: Duration = Duration::from_millis(250);
/// How soon a browser that lost the stream asks again, in milliseconds: after a restart it finds the next process.
const RETRY: &[u8] = b"retry: 1000\n";

struct Watcher {
    desk: Arc<Desk>,
    phases: watch::Receiver<Phase>,
    is_first: bool,
    is_over: bool,
    #[allow(dead_code, reason = "held for what its drop does")]
    place: OwnedSemaphorePermit,
}

pub(super) fn answer(desk: Arc<Desk>, place: OwnedSemaphorePermit) -> Answer {
    let watcher = Watcher {
        phases: desk.handle.phases(),
        desk,
        is_first: true,
        is_over: false,
        place,
    };
    let events = stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(event)), watcher))
    });
    let mut answer = Response::new(BodyExt::boxed_unsync(StreamBody::new(events)));
    let kind = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

impl Watcher {
    /// The next event, when it is time; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if !self.is_first {
            let pause = match *self.phases.borrow_and_update() {
                Phase::Starting | Phase::Serving => CALM,
                Phase::LameDuck | Phase::Draining | Phase::Stopped => DRAINING,
            };
            if let Ok(Err(_)) = timeout(pause, self.phases.changed()).await {
                // The server is gone without a word.
                return None;
            }
        }
        self.is_over = *self.phases.borrow() == Phase::Stopped;
        let json = self.desk.status();
        let mut event = BytesMut::with_capacity(json.len() + 64);
        if std::mem::take(&mut self.is_first) {
            event.put_slice(RETRY);
        }
        event.put_slice(b"event: status\ndata: ");
        event.put_slice(&json);
        event.put_slice(b"\n\n");
        Some(event.freeze())
    }
}
