//! The operating system calls Curtsy needs, behind safe functions: the only unsafe code of the workspace
//!
//! Each module is one kernel object or one call family. Nothing here knows HTTP or any other protocol, and nothing
//! waits longer than the call it makes: what can block takes a descriptor that the caller polls. Of tokio, only the
//! registration of a descriptor is here, and of data structures only [`pooled`], because they are unsafe.

#[cfg(feature = "mimalloc")]
pub mod allocator;
pub mod clock;
pub mod descriptors;
pub mod inherited;
pub mod pidfd;
pub mod pooled;
pub mod prefetch;
pub mod resident;
pub mod scm;
pub mod seqpacket;
pub mod spawn;
pub mod timer;
pub mod watched;
