//! The signals that stop a server: SIGINT, SIGTERM and SIGQUIT drain it, the second one cuts.

use crate::error::{Error, Kind};
use crate::handle::Handle;
use std::fmt;
use std::future::poll_fn;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, caught from the moment this is made.
pub(crate) struct Stopping {
    signals: Vec<(&'static str, Signal)>,
}

impl Stopping {
    pub(crate) fn catch() -> Result<Self, Error> {
        let wanted = [
            ("SIGINT", SignalKind::interrupt()),
            ("SIGTERM", SignalKind::terminate()),
            ("SIGQUIT", SignalKind::quit()),
        ];
        let mut signals = Vec::new();
        for (name, kind) in wanted {
            let caught = signal(kind)
                .map_err(|e| Error::because(Kind::Runtime, format!("cannot catch {name}"), e))?;
            signals.push((name, caught));
        }
        Ok(Self { signals })
    }

    /// Passes them on for ever.
    pub(crate) async fn obey(mut self, handle: Handle) {
        let mut name = self.next().await;
        tracing::info!(signal = name, "draining; the same again cuts");
        handle.wish_shutdown();
        loop {
            name = self.next().await;
            tracing::warn!(signal = name, "closing at once");
            handle.close();
        }
    }

    async fn next(&mut self) -> &'static str {
        poll_fn(|cx| {
            for (name, signal) in &mut self.signals {
                if signal.poll_recv(cx).is_ready() {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl fmt::Debug for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.signals.iter().map(|(name, _)| name))
            .finish()
    }
}
