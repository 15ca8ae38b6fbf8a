//! Where a test lets a process die: at a named step of the protocol, once.
//!
//! Compiled in with the feature `chaos` alone, which only tests ask for; otherwise [`point`] is nothing. The environment
//! says where, `CURTSY_CHAOS_AT=donor-sent-COMPLETE`, and `CURTSY_CHAOS_ONCE` names a file: whoever removes it is the one
//! that dies, so that the processes that come after it, with the same environment, live. `CURTSY_CHAOS_OWNERS` names a file
//! in which each process writes down which connections have become the heir's by all it knows: the one that survives is the
//! witness of whose a connection was when the other died.

#[cfg(feature = "chaos")]
use std::net::SocketAddr;

/// A step: `donor` or `heir`, `heard` or `sent`, and what.
#[cfg(not(feature = "chaos"))]
#[inline(always)]
pub(crate) fn point(_role: &str, _when: &str, _what: impl FnOnce() -> String) {}

/// A step: `donor` or `heir`, `heard` or `sent`, and what.
#[cfg(feature = "chaos")]
pub(crate) fn point(role: &str, when: &str, what: impl FnOnce() -> String) {
    use rustix::process::{Signal, getpid, kill_process};
    let Ok(wanted) = std::env::var("CURTSY_CHAOS_AT") else {
        return;
    };
    if wanted != format!("{role}-{when}-{}", what()) {
        return;
    }
    let is_ours = std::env::var_os("CURTSY_CHAOS_ONCE")
        .is_some_and(|flag| std::fs::remove_file(flag).is_ok());
    if is_ours {
        // It fails only for a process that is gone already.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// These connections are the heir's now, whose process number that is: `d`, by the donor's word, or `h`, by its own.
#[cfg(not(feature = "chaos"))]
#[inline(always)]
pub(crate) fn moved<'a, I: Iterator<Item = std::os::fd::BorrowedFd<'a>>>(
    _witness: u8,
    _heir: u32,
    _connections: impl FnOnce() -> I,
) {
}

/// These connections are the heir's now, whose process number that is: `d`, by the donor's word, or `h`, by its own.
#[cfg(feature = "chaos")]
pub(crate) fn moved<'a, I: Iterator<Item = std::os::fd::BorrowedFd<'a>>>(
    witness: u8,
    heir: u32,
    connections: impl FnOnce() -> I,
) {
    use std::io::Write;
    let Some(path) = std::env::var_os("CURTSY_CHAOS_OWNERS") else {
        return;
    };
    let mut records = Vec::new();
    for connection in connections() {
        let peer = rustix::net::getpeername(connection);
        // One that its client has closed has no peer, and loses nothing.
        if let Some(peer) = peer
            .ok()
            .flatten()
            .and_then(|peer| SocketAddr::try_from(peer).ok())
        {
            records.push(witness);
            records.extend(heir.to_be_bytes());
            records.extend(peer.port().to_be_bytes());
        }
    }
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path);
    // In one write. A test that does not find it fails.
    let _ = file.and_then(|mut file| file.write_all(&records));
}

/// The name of an event, without what it carries.
pub(crate) fn name(event: &impl std::fmt::Debug) -> String {
    let text = format!("{event:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}
