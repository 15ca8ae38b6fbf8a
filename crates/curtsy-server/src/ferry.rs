//! The way out of a worker to its server's heir, and the way in from its donor.
//!
//! While there is an heir, each worker has a ferry: a task that offers what the worker's connections
//! and lot give it, and waits for the answers. What comes back goes into the lot again.
//!
//! Invariants:
//! - A connection on the ferry is in no epoll set and has no task: nobody here reads or writes it.
//! - It stays counted as open until the heir has taken it.
//! - The first that comes back closes the way out: an heir that cannot take one is not asked again.
//! - The connections that waited when the way opened go in small portions, and let those pass that were busy until now.
//!
//! Deliberately absent: encrypted connections and HTTP/2. Their state is not to be had as bytes.

use crate::clock;
use crate::lot::{self, Parked};
use crate::shared::Orders;
use crate::stream::Bare;
use crate::worker::Worker;
use bytes::Bytes;
use curtsy_handover::{Connection, Lane, Record, Settled, UNREAD_MAX};
use curtsy_lifecycle::{Address, Moment, Phase};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How many parked connections are offered before others get their turn: a frame's worth.
const BATCH: usize = 64;

/// How many of them may be unanswered. A connection that was busy a moment ago, and may be again in the next, waits behind
/// so many of each worker and not behind all; and what has not been offered yet is still served here.
const AT_ONCE: usize = 4 * BATCH;

/// A connection that wants to leave, with bytes that were read from it and not used.
type Passenger = (Parked, Bytes);

/// Where a worker's waiting connections go while there is an heir.
#[derive(Debug, Default)]
pub(crate) struct WayOut(Mutex<Option<mpsc::UnboundedSender<Passenger>>>);

impl WayOut {
    /// Whether a connection with so many unread bytes can go.
    pub(crate) fn is_open_for(&self, unread: usize) -> bool {
        unread <= UNREAD_MAX && self.sender().is_some()
    }

    /// Sends a connection off, or gives it back if there is no way.
    pub(crate) fn send(&self, parked: Parked, unread: Bytes) -> Result<(), Passenger> {
        match &*self.sender() {
            Some(sender) => sender.send((parked, unread)).map_err(|unsent| unsent.0),
            None => Err((parked, unread)),
        }
    }

    pub(crate) fn close(&self) {
        drop(self.sender().take());
    }

    fn sender(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Passenger>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the worker's way out over `lane`, first for what is parked. Told how many of those the heir
/// took once it has taken them all; nothing if one came back.
pub(crate) fn open(worker: &Arc<Worker>, lane: Lane) -> oneshot::Receiver<usize> {
    let (sender, passengers) = mpsc::unbounded_channel();
    let (told, moved) = oneshot::channel();
    *worker.way_out.sender() = Some(sender);
    let ferry = ferry(worker.clone(), lane, passengers, FirstWave::new(told));
    drop(worker.handle.spawn(ferry));
    moved
}

/// The connections that were parked when the way opened.
struct FirstWave {
    /// Some are still in the lot.
    is_open: bool,
    under_way: usize,
    taken: usize,
    /// Unanswered ones that do not belong to it.
    others: HashSet<u64>,
    told: Option<oneshot::Sender<usize>>,
    /// Those that do not go.
    retired: Vec<Parked>,
}

impl FirstWave {
    fn new(told: oneshot::Sender<usize>) -> Self {
        Self {
            is_open: true,
            under_way: 0,
            taken: 0,
            others: HashSet::new(),
            told: Some(told),
            retired: Vec::new(),
        }
    }

    fn has_room(&self) -> bool {
        self.is_open && self.under_way + BATCH <= AT_ONCE
    }

    /// Offers the next portion.
    fn go_on(&mut self, worker: &Arc<Worker>, lane: &mut Lane) {
        // The order to leave was given before: what parks now comes as a passenger.
        let batch = match worker.way_out.is_open_for(0) {
            true => worker.lot.take_oldest(BATCH),
            false => Vec::new(),
        };
        if batch.is_empty() {
            return self.end(worker);
        }
        for parked in batch {
            worker.lot.forget(&parked);
            if parked.origin().orders() & Orders::DRAIN != 0 {
                self.retired.push(parked);
            } else {
                offer(lane, parked, Bytes::new());
                self.under_way += 1;
            }
        }
    }

    fn end(&mut self, worker: &Arc<Worker>) {
        self.is_open = false;
        // What a switch of modes drains does not begin anew elsewhere.
        for parked in self.retired.drain(..) {
            if !worker.lot.park(parked, worker) {
                worker.shared.closed(1);
            }
        }
        self.tell();
    }

    /// One that does not belong to it goes with it.
    fn passed_by(&mut self, id: u64) {
        if self.told.is_some() {
            self.others.insert(id);
        }
    }

    fn taken(&mut self, id: u64) {
        if self.told.is_some() && !self.others.remove(&id) {
            self.under_way -= 1;
            self.taken += 1;
            self.tell();
        }
    }

    /// One did not go: the rest stays, and there is nothing to tell.
    fn give_up(&mut self, worker: &Arc<Worker>) {
        self.told = None;
        self.end(worker);
    }

    fn tell(&mut self) {
        if !self.is_open
            && self.under_way == 0
            && let Some(told) = self.told.take()
        {
            // Nobody waits for it in a server that stops.
            let _ = told.send(self.taken);
        }
    }
}

async fn ferry(
    worker: Arc<Worker>,
    mut lane: Lane,
    mut passengers: mpsc::UnboundedReceiver<Passenger>,
    mut wave: FirstWave,
) {
    let mut open = true;
    while open || wave.is_open || lane.outstanding() > 0 {
        let outstanding = lane.outstanding() > 0;
        tokio::select! {
            biased;
            passenger = passengers.recv(), if open => match passenger {
                Some((parked, unread)) => {
                    let id = offer(&mut lane, parked, unread);
                    wave.passed_by(id);
                }
                None => open = false,
            },
            () = std::future::ready(()), if wave.has_room() => {
                wave.go_on(&worker, &mut lane);
                // The worker's connections have their turn.
                tokio::task::yield_now().await;
            }
            settled = lane.settled(), if outstanding => match settled {
                Some((id, Settled::Taken)) => {
                    wave.taken(id);
                    worker.tally.given();
                    worker.shared.closed(1);
                }
                Some((id, Settled::Forgotten)) => {
                    tracing::warn!(id, "the heir broke the protocol; a connection is lost");
                    worker.shared.closed(1);
                    wave.give_up(&worker);
                }
                Some((_, Settled::Returned(connection, why))) => {
                    worker.way_out.close();
                    wave.give_up(&worker);
                    worker.tally.returned();
                    tracing::debug!(?why, "a connection came back from the heir");
                    adopt(connection, &worker);
                    stay(&worker);
                }
                None => {}
            },
        }
    }
}

/// The heir does not take everything: what is left drains as it does without one.
fn stay(worker: &Arc<Worker>) {
    let shared = &worker.shared;
    // Whoever begins the drain looks at this after it has begun.
    shared.heir_refuses.store(true, Ordering::SeqCst);
    if shared.phase() == Phase::Draining {
        shared.orders.give(Orders::DRAIN);
        worker.ledger.wake_all();
    }
}

fn offer(lane: &mut Lane, parked: Parked, unread: Bytes) -> u64 {
    let now = clock::now();
    let record = Record {
        listener: parked.origin().listener.clone(),
        served: parked.served(),
        idle: now.since(parked.since()),
        unread: unread.into(),
        extra: Extra {
            is_new: parked.is_new(),
            accepted: now.since(parked.accepted()),
            carried: parked
                .carried()
                .and_then(|(peer, local)| Some((peer.tcp()?, local.tcp()?))),
        }
        .encode(),
    };
    lane.offer(Connection {
        fd: parked.into_socket().fd,
        record,
    })
}

/// Puts a connection that is already counted into the lot, or into service if bytes came along.
pub(crate) fn adopt(connection: Connection, worker: &Arc<Worker>) {
    let Connection { fd, record } = connection;
    let now = clock::now();
    let extra = Extra::decode(&record.extra).unwrap_or(Extra {
        is_new: record.served == 0,
        accepted: record.idle,
        carried: None,
    });
    let unix = socket2::SockRef::from(&fd)
        .domain()
        .is_ok_and(|domain| domain == socket2::Domain::UNIX);
    let parked = Parked::resumed(
        Bare { fd, unix },
        worker.shared.next_id(),
        worker.shared.origin(&record.listener),
        lot::Past {
            accepted: before(now, extra.accepted),
            since: before(now, record.idle),
            served: record.served,
            is_new: extra.is_new,
            carried: extra
                .carried
                .map(|(peer, local)| Box::new((Address::Tcp(peer), Address::Tcp(local)))),
        },
    );
    if record.unread.is_empty() {
        if !worker.lot.park(parked, worker) {
            worker.shared.closed(1);
        }
    } else {
        lot::launch(parked, record.unread.into(), worker);
    }
}

fn before(now: Moment, ago: Duration) -> Moment {
    let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Moment::from_millis(now.as_millis().saturating_sub(ago))
}

/// What the next process should know of a connection and the handover itself does not carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extra {
    /// No request was ever read on it.
    is_new: bool,
    accepted: Duration,
    /// Addresses that a proxy told: the client's and the server's.
    carried: Option<(SocketAddr, SocketAddr)>,
}

impl Extra {
    /// A byte, eight of milliseconds, and addresses as text with a space between.
    fn encode(self) -> Vec<u8> {
        let accepted = u64::try_from(self.accepted.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = vec![u8::from(self.is_new)];
        bytes.extend(accepted.to_be_bytes());
        if let Some((peer, local)) = self.carried {
            bytes.extend(format!("{peer} {local}").into_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (is_new, rest) = bytes.split_first()?;
        let (accepted, carried) = rest.split_first_chunk::<8>()?;
        let carried = std::str::from_utf8(carried).ok().and_then(|text| {
            let (peer, local) = text.split_once(' ')?;
            Some((peer.parse().ok()?, local.parse().ok()?))
        });
        Some(Self {
            is_new: *is_new == 1,
            accepted: Duration::from_millis(u64::from_be_bytes(*accepted)),
            carried,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Extra;
    use std::time::Duration;

    #[test]
    fn what_is_known_survives_the_journey() {
        let told = ("192.0.2.7:1".parse().unwrap(), "[::1]:443".parse().unwrap());
        for is_new in [true, false] {
            for carried in [None, Some(told)] {
                let extra = Extra {
                    is_new,
                    accepted: Duration::from_millis(123_456),
                    carried,
                };
                assert_eq!(Extra::decode(&extra.encode()), Some(extra));
            }
        }
        assert_eq!(Extra::decode(&[1, 2]), None);
    }
}
