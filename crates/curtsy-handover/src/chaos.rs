//! Where a test lets a process die: at a named step of the protocol, once.
//!
//! Compiled in with the feature `chaos` alone, which only tests ask for; otherwise [`point`] is nothing. The environment
//! says where, `CURTSY_CHAOS_AT=donor-sent-COMPLETE`, and `CURTSY_CHAOS_ONCE` names a file: whoever removes it is the one
//! that dies, so that the processes that come after it, with the same environment, live.

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

/// The name of an event, without what it carries.
pub(crate) fn name(event: &impl std::fmt::Debug) -> String {
    let text = format!("{event:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}
