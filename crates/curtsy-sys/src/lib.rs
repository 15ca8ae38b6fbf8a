//! The operating system calls that Curtsy needs and no safe crate offers: the only unsafe code of
//! the workspace.
//!
//! One file per system facility. Nothing here knows of HTTP, servers or policy.

pub mod inherited;
