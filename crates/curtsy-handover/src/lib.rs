//! Moves listening sockets and idle connections from one process to the next

#![forbid(unsafe_code)]
