//! A strict HTTP client that accounts for every request and retries nothing

#![forbid(unsafe_code)]
