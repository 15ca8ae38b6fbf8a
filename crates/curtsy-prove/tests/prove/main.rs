//! The client against servers of every conduct, and the child processes; one topic a file.

mod accounting;
mod child;
mod modes;
mod servers;
