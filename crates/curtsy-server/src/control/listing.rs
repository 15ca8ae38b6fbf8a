//! Which connections there are: those that a filter lets through, the oldest in their state first.
//!
//! Whoever asks pays: every connection is looked at, a parked one's addresses are asked of the
//! kernel. What is kept is bounded, however many there are.

use super::status::ms;
use crate::error::{Error, Kind};
use crate::proxy::ProxyPeers;
use crate::shared::Shared;
use curtsy_lifecycle::{Address, Moment, State};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;

/// Which connections are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// In this state: `handshake`, `new`, `active`, `idle`, `upgraded`, or `parked`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<String>,
    /// In it for at least so long, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_age_ms: Option<u64>,
    /// From this peer: an address, one with its port, a network (`10.0.0.0/8`), or `unix`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peer: Option<String>,
    /// How many at most; [`Filter::LIMIT`] by default, [`Filter::LIMIT_MOST`] at most.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<usize>,
}

impl Filter {
    /// How many connections are listed by default: more than fit on a screen.
    pub const LIMIT: usize = 100;
    /// How many are listed at most: an answer of a few megabytes.
    pub const LIMIT_MOST: usize = 10_000;
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its number, as `kill` takes it.
    pub connection: u64,
    /// `handshake`, `new`, `active`, `idle` or `upgraded`.
    pub state: String,
    /// Whether it is parked: a bare descriptor, or if it is encrypted, one with its session.
    pub parked: bool,
    /// How long it has been in that state.
    pub age_ms: u64,
    /// How long it has been open.
    pub open_ms: u64,
    /// The client's address.
    pub peer: String,
    /// The listener that accepted it.
    pub listener: String,
    /// Whether it is encrypted.
    pub tls: bool,
    /// How many requests it has brought.
    pub requests: u64,
    /// Of HTTP/2: how many streams are under way.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub streams: Option<usize>,
    /// The request under way, or of an upgraded connection the one it began with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<String>,
}

/// A filter that was understood.
struct Wanted {
    state: Option<State>,
    only_parked: bool,
    min_age_ms: u64,
    peer: Option<Peer>,
    limit: usize,
}

enum Peer {
    Exactly(SocketAddr),
    Among(ProxyPeers),
}

impl Wanted {
    fn new(filter: &Filter) -> Result<Self, Error> {
        let (state, only_parked) = match filter.state.as_deref() {
            None => (None, false),
            Some("parked") => (None, true),
            Some(name) => {
                let mut states = State::ALL.into_iter().filter(|s| *s != State::Closed);
                let found = states.find(|state| state.name() == name).ok_or_else(|| {
                    let text = format!(
                        "{name:?} is no state; there are handshake, new, active, idle, upgraded and parked"
                    );
                    Error::new(Kind::Control, text)
                })?;
                (Some(found), false)
            }
        };
        let peer = match filter.peer.as_deref() {
            None => None,
            Some(peer) => Some(match peer.parse() {
                Ok(address) => Peer::Exactly(address),
                Err(_) => Peer::Among(ProxyPeers::new([peer])?),
            }),
        };
        Ok(Self {
            state,
            only_parked,
            min_age_ms: filter.min_age_ms.unwrap_or(0),
            peer,
            limit: filter
                .limit
                .unwrap_or(Filter::LIMIT)
                .min(Filter::LIMIT_MOST),
        })
    }

    fn takes(&self, state: State, parked: bool, age_ms: u64) -> bool {
        self.state.is_none_or(|wanted| wanted == state)
            && (parked || !self.only_parked)
            && age_ms >= self.min_age_ms
            && state != State::Closed
    }

    fn takes_peer(&self, peer: &Address) -> bool {
        match &self.peer {
            None => true,
            Some(Peer::Exactly(wanted)) => peer.tcp() == Some(*wanted),
            Some(Peer::Among(peers)) => peers.contains(peer),
        }
    }
}

/// Of all that come, the so many oldest.
struct Oldest {
    limit: usize,
    total: usize,
    /// The youngest first, to make room.
    kept: BinaryHeap<Reverse<Aged>>,
}

struct Aged(ConnectionStatus);

impl Aged {
    fn key(&self) -> (u64, Reverse<u64>) {
        (self.0.age_ms, Reverse(self.0.connection))
    }
}

impl PartialEq for Aged {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Aged {}

impl PartialOrd for Aged {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Aged {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Oldest {
    /// Counts one, and keeps it if it is old enough.
    fn offer(&mut self, age_ms: u64, describe: impl FnOnce() -> ConnectionStatus) {
        self.total += 1;
        if self.kept.len() >= self.limit {
            let youngest = self.kept.peek().map(|Reverse(youngest)| youngest.0.age_ms);
            if youngest.is_none_or(|youngest| youngest >= age_ms) {
                return;
            }
            self.kept.pop();
        }
        self.kept.push(Reverse(Aged(describe())));
    }

    fn list(self) -> Vec<ConnectionStatus> {
        let mut kept: Vec<Aged> = self.kept.into_iter().map(|Reverse(aged)| aged).collect();
        kept.sort_by_key(|aged| Reverse(aged.key()));
        kept.into_iter().map(|aged| aged.0).collect()
    }
}

/// The connections that the filter lets through, and how many there are of them.
pub(crate) fn list(
    shared: &Shared,
    filter: &Filter,
    now: Moment,
) -> Result<(usize, Vec<ConnectionStatus>), Error> {
    let wanted = Wanted::new(filter)?;
    let mut oldest = Oldest {
        limit: wanted.limit,
        total: 0,
        kept: BinaryHeap::new(),
    };
    for worker in shared.workers() {
        let mut streams: HashMap<u64, usize> = HashMap::new();
        worker.ledger.for_each(|entry| {
            // The entry of one that is over waits for the next.
            if entry.is_stream() && entry.state() != State::Closed {
                *streams.entry(entry.id()).or_default() += 1;
            }
        });
        worker.ledger.for_each(|entry| {
            let (state, age_ms) = (entry.state(), ms(now.since(entry.since())));
            // An encrypted one rests where it is; its session cannot be put away.
            let parked = state.is_waiting() && entry.is_resting();
            if entry.is_stream() || !wanted.takes(state, parked, age_ms) {
                return;
            }
            if !wanted.takes_peer(entry.peer()) {
                return;
            }
            oldest.offer(age_ms, || {
                let multiplexed = entry.is_multiplexed();
                let line = entry.request_line();
                let tells = state.is_straggler() && !multiplexed && !line.is_empty();
                ConnectionStatus {
                    connection: entry.id(),
                    state: state.name().to_owned(),
                    parked,
                    age_ms,
                    open_ms: ms(now.since(entry.accepted())),
                    peer: entry.peer().to_string(),
                    listener: entry.origin().listener.clone(),
                    tls: entry.arrival().tls,
                    requests: entry.served(),
                    streams: multiplexed
                        .then(|| streams.get(&entry.id()).copied().unwrap_or_default()),
                    request: tells.then_some(line),
                }
            });
        });
        worker.lot.for_each(|parked| {
            let (state, age_ms) = (parked.state(), ms(now.since(parked.since())));
            if !wanted.takes(state, true, age_ms) {
                return;
            }
            if wanted.peer.is_some() && !parked.peer().is_some_and(|p| wanted.takes_peer(&p)) {
                return;
            }
            oldest.offer(age_ms, || ConnectionStatus {
                connection: parked.id(),
                state: state.name().to_owned(),
                parked: true,
                age_ms,
                open_ms: ms(now.since(parked.accepted())),
                peer: parked
                    .peer()
                    .map_or_else(String::new, |peer| peer.to_string()),
                listener: parked.origin().listener.clone(),
                tls: false,
                requests: parked.served(),
                streams: None,
                request: None,
            });
        });
    }
    Ok((oldest.total, oldest.list()))
}

#[cfg(test)]
mod tests {
    use super::{ConnectionStatus, Filter, Oldest, Wanted};
    use curtsy_lifecycle::{Address, State};
    use std::collections::BinaryHeap;

    fn wanted(filter: &Filter) -> Wanted {
        Wanted::new(filter).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_filter_takes_what_it_says() {
        let filter = |state: &str| Filter {
            state: Some(state.to_owned()),
            ..Filter::default()
        };
        assert!(wanted(&filter("idle")).takes(State::Idle, true, 0));
        assert!(!wanted(&filter("idle")).takes(State::Active, false, 0));
        assert!(wanted(&filter("parked")).takes(State::New, true, 0));
        assert!(!wanted(&filter("parked")).takes(State::New, false, 0));
        assert!(!wanted(&Filter::default()).takes(State::Closed, false, 0));
        for wrong in ["", "closed", "busy"] {
            assert!(Wanted::new(&filter(wrong)).is_err(), "{wrong:?}");
        }
        let old = Filter {
            min_age_ms: Some(10),
            ..Filter::default()
        };
        assert!(!wanted(&old).takes(State::New, false, 9));
        assert!(wanted(&old).takes(State::New, false, 10));
    }

    #[test]
    fn a_peer_is_an_address_a_socket_address_or_a_network() {
        let client = Address::Tcp("127.0.0.1:4000".parse().unwrap());
        for (peer, expected) in [
            ("127.0.0.1", true),
            ("127.0.0.1:4000", true),
            ("127.0.0.1:4001", false),
            ("127.0.0.0/8", true),
            ("10.0.0.0/8", false),
            ("unix", false),
        ] {
            let filter = Filter {
                peer: Some(peer.to_owned()),
                ..Filter::default()
            };
            assert_eq!(wanted(&filter).takes_peer(&client), expected, "{peer}");
        }
        let wrong = Filter {
            peer: Some("here".to_owned()),
            ..Filter::default()
        };
        assert!(Wanted::new(&wrong).is_err());
    }

    #[test]
    fn the_oldest_are_kept_and_all_are_counted() {
        let mut oldest = Oldest {
            limit: 3,
            total: 0,
            kept: BinaryHeap::new(),
        };
        for (connection, age_ms) in [(1, 5), (2, 50), (3, 7), (4, 1), (5, 50), (6, 9)] {
            oldest.offer(age_ms, || ConnectionStatus {
                connection,
                age_ms,
                ..ConnectionStatus::default()
            });
        }
        assert_eq!(oldest.total, 6);
        let kept: Vec<u64> = oldest.list().iter().map(|c| c.connection).collect();
        assert_eq!(kept, [2, 5, 6]);
        let mut none = Oldest {
            limit: 0,
            total: 0,
            kept: BinaryHeap::new(),
        };
        none.offer(1, ConnectionStatus::default);
        assert_eq!((none.total, none.list().len()), (1, 0));
    }
}
