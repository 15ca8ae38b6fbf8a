//! x
#![forbid(unsafe_code)]
mod address; mod clock; mod error; mod limits; mod listener;
pub use address::ListenAddress; pub use error::Error; pub use limits::Limits; pub use listener::ListenOn;
