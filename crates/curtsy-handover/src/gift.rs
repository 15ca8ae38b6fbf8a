//! What a donor gives before READY.
//!
//! Invariant: the sockets in it are duplicates, so that a gift that is not given changes nothing.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::wire::{self, Listener};

/// What a donor gives before READY: its listeners, its ticket keys, and the news of who else is draining.
#[derive(Debug, Default)]
pub struct Gift {
    pub(crate) listeners: Vec<(Listener, Vec<OwnedFd>)>,
    pub(crate) tickets: Option<Vec<u8>>,
    pub(crate) config: Vec<u8>,
    pub(crate) ancestors: Vec<Arc<OwnedFd>>,
}

impl Gift {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a listener with all its sockets, which are duplicated and stay the caller's.
    ///
    /// # Errors
    /// When they cannot be duplicated, or there are more than a frame can carry (64).
    pub fn listener<'fd>(
        &mut self,
        name: &str,
        kind: wire::Kind,
        mode: &str,
        sockets: impl IntoIterator<Item = BorrowedFd<'fd>>,
    ) -> io::Result<&mut Self> {
        let sockets: Vec<OwnedFd> = sockets
            .into_iter()
            .map(curtsy_sys::seqpacket::duplicate)
            .collect::<io::Result<_>>()?;
        if sockets.len() > wire::FDS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many sockets for one listener",
            ));
        }
        let count = u16::try_from(sockets.len()).map_err(io::Error::other)?;
        let listener = Listener {
            name: name.to_owned(),
            kind,
            mode: mode.to_owned(),
            sockets: count,
        };
        self.listeners.push((listener, sockets));
        Ok(self)
    }

    /// Sets the TLS session ticket keys, in the server's own encoding.
    pub fn tickets(&mut self, keys: Vec<u8>) -> &mut Self {
        self.tickets = Some(keys);
        self
    }

    /// Sets a hash of the configuration, for the log. At most 64 bytes.
    pub fn config(&mut self, hash: Vec<u8>) -> &mut Self {
        self.config = hash;
        self
    }

    pub(crate) fn sets(&self) -> u32 {
        let keys = usize::from(self.tickets.is_some());
        u32::try_from(self.listeners.len() + keys).unwrap_or(u32::MAX)
    }
}
