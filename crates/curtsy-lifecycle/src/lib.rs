//! The life of a server as pure data: phases, connection states, the drain policy, the ledger

#![forbid(unsafe_code)]
