//! The threads of a server with workers of its own; or none, when it runs in its program's
//! runtime.

use crate::error::{Error, Kind};
use crate::shared::Shared;
use crate::watchdog::{Pulse, Watchdog};
use crate::worker::{Launch, Worker};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The workers' threads and tasks, ended with [`Threads::stop`].
#[derive(Debug)]
pub(crate) struct Threads {
    threads: Vec<(thread::JoinHandle<()>, Arc<Notify>)>,
    watchers: Vec<JoinHandle<()>>,
    watchdog: Arc<Watchdog>,
}

impl Threads {
    /// Starts the workers and makes them known.
    pub(crate) fn start(
        count: Option<NonZeroUsize>,
        shared: &Arc<Shared>,
        launch: Box<dyn Launch>,
    ) -> Result<Self, Error> {
        let failed = |e| Error::because(Kind::Runtime, "cannot start a worker", e);
        let watchdog = Arc::new(Watchdog::default());
        let mut threads = Vec::new();
        let mut pulses = Vec::new();
        let handles = match count {
            None => vec![Handle::current()],
            Some(count) => {
                let mut handles = Vec::new();
                for index in 0..count.get() {
                    let pulse = Arc::new(Pulse::default());
                    let (handle, thread) = spawn(index, &pulse, &watchdog).map_err(failed)?;
                    handles.push(handle);
                    threads.push(thread);
                    pulses.push(pulse);
                }
                handles
            }
        };
        let mut workers = Vec::new();
        let mut watchers = Vec::new();
        for handle in handles {
            let worker = Worker::new(
                shared.clone(),
                launch.duplicate(),
                handle.clone(),
                count.is_some(),
            )
            .map_err(failed)?;
            watchers.push(handle.spawn(crate::lot::watch(worker.clone())));
            watchers.push(handle.spawn(crate::wheel::turn(worker.clone())));
            workers.push(worker);
        }
        if shared.workers.set(workers).is_err() {
            return Err(Error::new(Kind::Runtime, "the server runs already"));
        }
        if !pulses.is_empty() {
            watchdog.start(pulses, shared.clone()).map_err(failed)?;
        }
        Ok(Self {
            threads,
            watchers,
            watchdog,
        })
    }

    /// Ends the threads. One that a handler blocks is left to the process's end.
    pub(crate) fn stop(self) {
        self.watchdog.stop();
        for watcher in &self.watchers {
            watcher.abort();
        }
        for (_, stop) in &self.threads {
            stop.notify_one();
        }
        for (thread, _) in self.threads {
            // Waiting for a blocked thread would make the deadline a lie.
            drop(thread);
        }
    }
}

type Thread = (thread::JoinHandle<()>, Arc<Notify>);

/// Starts a thread with a runtime of its own.
fn spawn(
    index: usize,
    pulse: &Arc<Pulse>,
    watchdog: &Arc<Watchdog>,
) -> std::io::Result<(Handle, Thread)> {
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let (waking, sleeping, answering) = (pulse.clone(), pulse.clone(), pulse.clone());
    let watchdog = watchdog.clone();
    let (send, receive) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(format!("curtsy-worker-{index}"))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .on_thread_unpark(move || waking.wakes(&watchdog))
                .on_thread_park(move || sleeping.sleeps())
                .build();
            match runtime {
                Ok(runtime) => {
                    runtime.spawn(answering.answer());
                    // The other end waits for exactly this.
                    let _ = send.send(Ok(runtime.handle().clone()));
                    runtime.block_on(stopped.notified());
                    runtime.shutdown_timeout(Duration::ZERO);
                }
                Err(error) => {
                    let _ = send.send(Err(error));
                }
            }
        })?;
    let handle = receive
        .recv()
        .unwrap_or_else(|_| Err(std::io::Error::other("the worker ended at once")))?;
    Ok((handle, (thread, stop)))
}
