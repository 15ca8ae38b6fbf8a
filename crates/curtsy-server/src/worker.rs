//! A worker: a runtime with its own connections, its own ledger, its own lot.
//!
//! A server that runs inside the program's runtime has one worker, that runtime. With
//! `workers(n)` it has n threads with a single-threaded runtime each. The connections' code is the
//! same.

use crate::ferry::WayOut;
use crate::hint::unlikely;
use crate::http2::Memory;
use crate::lot::Lot;
use crate::metrics::Tally;
use crate::mode::Epoch;
use crate::shared::{Orders, Shared};
use crate::stream::Stream;
use crate::wheel::Wheel;
use bytes::Bytes;
use curtsy_lifecycle::{Address, Arrival, ConnectionInfo, Entry, Ledger, Moment, Origin, State};
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::runtime::Handle;

pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ledger: Ledger,
    pub(crate) lot: Lot,
    pub(crate) wheel: Wheel,
    pub(crate) handle: Handle,
    pub(crate) way_out: WayOut,
    pub(crate) tally: Tally,
    launch: Box<dyn Launch>,
}

/// A connection that goes into service.
pub(crate) struct Fresh {
    pub(crate) stream: Stream,
    pub(crate) arrival: Arrival,
    pub(crate) state: State,
    pub(crate) since: Moment,
    pub(crate) served: u64,
    /// Bytes that were read from it before.
    pub(crate) first: Bytes,
    pub(crate) speaks: Speaks,
}

/// What a connection is known to speak.
#[derive(Debug)]
pub(crate) enum Speaks {
    /// It is to be found out, under that mode.
    Unknown(Arc<Epoch>),
    Http1,
    /// From the start, or from where it was.
    Http2(Option<Box<Memory>>),
}

/// Starts the task that serves a connection. It hides the type of the service from all who only
/// need it served.
pub(crate) trait Launch: Send + Sync {
    fn launch(&self, fresh: Fresh, worker: Arc<Worker>);

    fn duplicate(&self) -> Box<dyn Launch>;
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        launch: Box<dyn Launch>,
        handle: Handle,
        has_own_thread: bool,
    ) -> io::Result<Arc<Self>> {
        let limits = &shared.limits;
        let lot = Lot::new(limits.header_timeout, limits.idle_timeout)?;
        Ok(Arc::new(Self {
            shared,
            ledger: Ledger::new(),
            lot,
            wheel: Wheel::default(),
            handle,
            way_out: WayOut::default(),
            tally: Tally::new(has_own_thread),
            launch,
        }))
    }

    /// Puts a connection into service.
    pub(crate) fn launch(self: &Arc<Self>, fresh: Fresh) {
        self.launch.launch(fresh, self.clone());
    }

    /// The standing orders for a connection: to all of the server's, and to those of its origin.
    #[inline]
    pub(crate) fn orders(&self, entry: &Entry, origin: &Origin) -> u32 {
        let orders = self.shared.orders.current() | origin.orders();
        match unlikely(orders & Orders::HAND_OVER != 0) {
            false => orders,
            true => orders_beside_heir(orders, entry),
        }
    }

    /// Takes a connection that was just accepted.
    pub(crate) fn accepted(
        self: &Arc<Self>,
        stream: Stream,
        peer: Address,
        local: Address,
        epoch: &Arc<Epoch>,
    ) {
        let now = crate::clock::now();
        self.shared.opened();
        self.tally.accepted();
        let (state, origin, speaks) = if epoch.is_straight() {
            (State::New, &epoch.plain, Speaks::Http1)
        } else {
            // Until it is known to be plain: the switch that retires one of them finds it.
            let origin = match epoch.takes_plain() {
                true => &epoch.plain,
                false => &epoch.tls,
            };
            (State::Handshake, origin, Speaks::Unknown(epoch.clone()))
        };
        let arrival = Arrival {
            id: self.shared.next_id(),
            origin: origin.clone(),
            peer,
            local,
            tls: false,
            carried: false,
            accepted: now,
        };
        if let Some(hook) = &self.shared.hooks.state {
            let entry = Entry::new(arrival.clone(), state, now);
            hook(&ConnectionInfo::new(Arc::new(entry)), state);
        }
        self.launch(Fresh {
            stream,
            arrival,
            state,
            since: now,
            served: 0,
            first: Bytes::new(),
            speaks,
        });
    }
}

/// What the orders mean for this connection while there is an heir.
#[cold]
fn orders_beside_heir(orders: u32, entry: &Entry) -> u32 {
    let stays = entry.arrival().tls;
    if orders & Orders::DRAIN != 0 {
        orders & !Orders::HAND_OVER
    } else if stays && orders & Orders::HEIR_SERVES != 0 {
        orders & !Orders::HAND_OVER | Orders::DRAIN
    } else if stays {
        orders & !Orders::HAND_OVER
    } else {
        orders
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("connections", &self.ledger.len())
            .finish_non_exhaustive()
    }
}
