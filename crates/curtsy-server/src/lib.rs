//! An HTTP server whose stop, restart and reload lose no request

#![forbid(unsafe_code)]
