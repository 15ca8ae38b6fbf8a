//! Frames that wait for room in the channel, in order.
//!
//! Invariant: frames leave in the order in which they were put in, numbered from 1 without a gap.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use crate::channel::{Channel, Sent};
use crate::chaos;
use crate::wire::{Frame, Message, WireError};

/// The queue; `T` is what to do with once a frame has gone.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    /// Whose it is.
    role: &'static str,
    generation: u32,
    sequence: u32,
    /// Each frame with its name.
    queue: VecDeque<(&'static str, Vec<u8>, T)>,
    /// What the last attempt ended with.
    pub(crate) state: Sent,
}

impl<T> Outbox<T> {
    pub(crate) fn new(role: &'static str, generation: u32) -> Self {
        Self {
            role,
            generation,
            sequence: 0,
            queue: VecDeque::new(),
            state: Sent::Done,
        }
    }

    pub(crate) fn put(&mut self, message: Message, then: T) -> Result<(), WireError> {
        let (name, sequence) = (message.name(), self.sequence.wrapping_add(1));
        let bytes = Frame {
            generation: self.generation,
            sequence,
            message,
        }
        .encode()?;
        self.sequence = sequence;
        self.queue.push_back((name, bytes, then));
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Sends what there is room for, and gives back what belongs to the frames that went. `fds` finds the descriptors
    /// of a frame, in `context` where they are not its own.
    pub(crate) fn send<C>(
        &mut self,
        channel: &Channel,
        context: &C,
        fds: impl for<'a> Fn(&'a T, &'a C) -> Vec<BorrowedFd<'a>>,
    ) -> io::Result<Vec<T>> {
        let mut gone = vec![];
        self.state = Sent::Done;
        while let Some((_, bytes, then)) = self.queue.front() {
            self.state = channel.try_send(bytes, &fds(then, context))?;
            if self.state != Sent::Done {
                break;
            }
            gone.extend(self.queue.pop_front().map(|(name, _, then)| {
                chaos::point(self.role, "sent", || name.to_owned());
                then
            }));
        }
        Ok(gone)
    }

    /// What belongs to the frames that will never go.
    pub(crate) fn abandon(&mut self) -> Vec<T> {
        self.queue.drain(..).map(|(_, _, then)| then).collect()
    }
}
