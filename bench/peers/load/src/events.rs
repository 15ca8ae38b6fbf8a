//! What epoll says about sockets, each known by a number.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use anyhow::Result;
use rustix::event::{Timespec, epoll};

/// Sockets, and which of them have something to say.
pub struct Events {
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
}

impl Events {
    /// Takes at most `capacity` events at a time.
    pub fn new(capacity: usize) -> Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            ready: Vec::with_capacity(capacity.max(1)),
        })
    }

    /// Listens to one more, until it is closed.
    pub fn add(&self, socket: impl AsFd, key: usize, flags: epoll::EventFlags) -> Result<()> {
        let data = epoll::EventData::new_u64(key as u64);
        Ok(epoll::add(&self.epoll, socket, data, flags)?)
    }

    /// Waits until there is something, but no longer than `time`, which is below a second.
    pub fn wait(&mut self, time: Duration) -> Result<()> {
        self.ready.clear();
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: time.subsec_nanos().into(),
        };
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.ready),
            Some(&wait),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whom the last wait was about.
    pub fn keys(&self) -> impl Iterator<Item = usize> {
        self.ready.iter().map(|event| event.data.u64() as usize)
    }
}
