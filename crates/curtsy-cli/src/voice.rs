//! What a process that serves says on standard error: queued, and written by a thread of its own.
//!
//! Whoever reads standard error may be slow, stop reading, or go. A write to a full pipe waits for its reader, and a
//! server that waited there would stand still until somebody looked.
//!
//! Invariants:
//! - Once it has begun, nobody who says something waits for the reader, or fails because there is none.
//! - What finds the queue full is dropped, and how many lines that was is said where they are missing.
//! - What was said is written before the process ends, within a bound.
//!
//! Deliberately absent: a queue for commands that end by themselves. They wait for their reader, as any command does.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write, stderr};
use std::panic::PanicHookInfo;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How much may wait to be written, in bytes: some thousand lines.
const QUEUE_BYTES: usize = 256 << 10;
/// How long the end waits for a reader that does not read.
const LAST_WORDS: Duration = Duration::from_secs(1);

static QUEUE: Queue = Queue::new();

/// Has everything be queued from now on, panics included; what is queued when the value goes is written then.
#[must_use]
pub(crate) fn begin() -> LastWords {
    let thread = std::thread::Builder::new().name("curtsy-stderr".to_owned());
    // Without a thread they are written by whoever says them.
    if thread.spawn(|| QUEUE.write()).is_ok() {
        QUEUE.lock().has_begun = true;
        std::panic::set_hook(Box::new(tell_panic));
    }
    LastWords
}

/// Says it, in one piece.
pub(crate) fn say(text: &str) {
    if !QUEUE.push(text.as_bytes()) {
        write(text.as_bytes());
    }
}

/// Writes what is left, when it goes.
#[derive(Debug)]
pub(crate) struct LastWords;

impl Drop for LastWords {
    fn drop(&mut self) {
        QUEUE.finish(LAST_WORDS);
    }
}

/// The same for whoever wants something to write to: each write is said in one piece.
#[derive(Debug)]
pub(crate) struct Voice;

impl Write for Voice {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !QUEUE.push(bytes) {
            write(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As the standard library tells of it.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let trace = Backtrace::capture();
    let trace = match trace.status() == BacktraceStatus::Captured {
        true => format!("\n{trace}"),
        false => String::new(),
    };
    say(&format!("thread '{name}' {panic}{trace}\n"));
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    has_begun: bool,
    text: Vec<u8>,
    /// Lines that found no room after it.
    lost: usize,
    is_writing: bool,
}

impl Queue {
    const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                has_begun: false,
                text: Vec::new(),
                lost: 0,
                is_writing: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues it, or drops it; `false` if nothing is queued here.
    fn push(&self, text: &[u8]) -> bool {
        let mut state = self.lock();
        if !state.has_begun {
            return false;
        }
        if state.text.is_empty() || state.text.len() + text.len() <= QUEUE_BYTES && state.lost == 0
        {
            state.text.extend_from_slice(text);
            self.changed.notify_all();
        } else {
            // What moves on one line of a terminal is no line.
            state.lost += text.iter().filter(|byte| **byte == b'\n').count();
        }
        true
    }

    /// Waits for something, and takes all of it.
    fn take(&self) -> Vec<u8> {
        let state = self
            .changed
            .wait_while(self.lock(), |state| state.text.is_empty());
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        let mut text = std::mem::take(&mut state.text);
        let lost = std::mem::take(&mut state.lost);
        if lost > 0 {
            text.extend(
                format!("curtsy: {lost} lines are missing here: nobody read standard error\n")
                    .into_bytes(),
            );
        }
        text
    }

    /// What was taken is written.
    fn written(&self) {
        self.lock().is_writing = false;
        self.changed.notify_all();
    }

    fn write(&self) {
        loop {
            write(&self.take());
            self.written();
        }
    }

    fn finish(&self, most: Duration) {
        // Late or not, this is the end.
        drop(self.changed.wait_timeout_while(self.lock(), most, |state| {
            state.is_writing || !state.text.is_empty()
        }));
    }
}

/// Writes to standard error itself, with no lock around it; gives up when nobody can read it any more.
fn write(mut text: &[u8]) {
    let out = stderr();
    while !text.is_empty() {
        match rustix::io::write(&out, text) {
            Ok(written @ 1..) => text = &text[written..],
            Err(Errno::INTR) => {}
            // Whoever shares it has made it so.
            Err(Errno::AGAIN) => {
                let mut room = [PollFd::new(&out, PollFlags::OUT)];
                if poll(&mut room, None).is_err_and(|error| error != Errno::INTR) {
                    return;
                }
            }
            Ok(0) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{QUEUE_BYTES, Queue};
    use std::time::{Duration, Instant};

    fn begun() -> Queue {
        let queue = Queue::new();
        assert!(!queue.push(b"before\n"));
        queue.lock().has_begun = true;
        queue
    }

    #[test]
    fn what_finds_no_room_is_counted_where_it_is_missing() {
        let queue = begun();
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        let fit = QUEUE_BYTES / line.len();
        for _ in 0..fit + 7 {
            assert!(queue.push(&line));
        }
        assert!(queue.push(b"\rbar"));
        // Short as it is, it does not come before its time.
        assert!(queue.push(b"\n"));
        let text = String::from_utf8(queue.take()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), fit + 1);
        assert!(
            lines[fit].contains(" 8 lines are missing"),
            "{}",
            lines[fit]
        );
        assert!(queue.push(b"after\n"));
        assert_eq!(queue.take(), b"after\n");
    }

    #[test]
    fn one_that_is_too_long_is_not_lost_for_ever() {
        let queue = begun();
        let long = vec![b'x'; 2 * QUEUE_BYTES];
        assert!(queue.push(&long));
        assert_eq!(queue.take(), long);
    }

    #[test]
    fn the_end_waits_for_the_writer_and_not_for_ever() {
        let queue = begun();
        queue.push(b"last\n");
        let began = Instant::now();
        queue.finish(Duration::from_millis(50));
        assert!(began.elapsed() >= Duration::from_millis(50));
        assert_eq!(queue.take(), b"last\n");
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| {
                queue.finish(Duration::from_secs(60));
                queue.lock().is_writing
            });
            queue.written();
            assert!(!ending.join().unwrap(), "it ended before the writer");
        });
        assert!(began.elapsed() < Duration::from_secs(50));
    }
}
