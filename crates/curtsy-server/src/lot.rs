//! The parking lot: connections that wait for their clients, as bare descriptors in an epoll set.
//!
//! A parked connection has no task, no buffer and no protocol state; what is left is a slot of a
//! few dozen bytes. So it costs next to nothing, it can be closed without waking anything, and it
//! cannot be half way through a request.
//!
//! Invariants:
//! - Parked connections stay counted as open.
//! - A parked connection is closed only after a last read of its socket: bytes that have arrived are
//!   a request, and are served.
//! - Two queues, silent since the accept and idle between requests, each in the order of their
//!   deadlines, because all of one kind have the same patience.
//!
//! Deliberately absent: timers per connection, and any part in the path of a busy connection.

use crate::alarm::Timer;
use crate::clock;
use crate::shared::Orders;
use crate::stream::{Bare, Received, Stream, receive};
use crate::worker::{Fresh, Speaks, Worker};
use bytes::Bytes;
use curtsy_lifecycle::{Address, Arrival, ConnectionInfo, Counts, Entry, Moment, Origin, State};
use curtsy_sys::watched::{Interest, Watched};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slab::Slab;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How many connections are taken out of the lot at a time, so that others get their turn.
const BATCH: usize = 256;
/// So many connections are worth a thread to close them.
const MANY: usize = 1024;

/// A connection in the lot.
#[derive(Debug)]
pub(crate) struct Parked {
    socket: Bare,
    id: u64,
    accepted: Moment,
    since: Moment,
    served: u64,
    is_new: bool,
    origin: Arc<Origin>,
    /// Only where it cannot be had from the socket.
    carried: Option<Box<(Address, Address)>>,
}

impl Parked {
    pub(crate) fn new(socket: Bare, entry: &Entry) -> Self {
        Self {
            socket,
            id: entry.id(),
            accepted: entry.accepted(),
            since: entry.since(),
            served: entry.served(),
            is_new: entry.state() == State::New,
            origin: entry.origin().clone(),
            carried: (entry.arrival().carried)
                .then(|| Box::new((entry.peer().clone(), entry.local().clone()))),
        }
    }

    /// A connection with a past elsewhere: in another process, or on the way to one.
    pub(crate) fn resumed(socket: Bare, id: u64, origin: Arc<Origin>, past: Past) -> Self {
        Self {
            socket,
            id,
            accepted: past.accepted,
            since: past.since,
            served: past.served,
            is_new: past.is_new,
            origin,
            carried: past.carried,
        }
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn accepted(&self) -> Moment {
        self.accepted
    }

    pub(crate) fn since(&self) -> Moment {
        self.since
    }

    pub(crate) fn served(&self) -> u64 {
        self.served
    }

    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    pub(crate) fn carried(&self) -> Option<&(Address, Address)> {
        self.carried.as_deref()
    }

    pub(crate) fn into_socket(self) -> Bare {
        self.socket
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The client's address; `None` if the socket is broken.
    pub(crate) fn peer(&self) -> Option<Address> {
        match &self.carried {
            Some(carried) => Some(carried.0.clone()),
            None => addresses(&self.socket).map(|(peer, _)| peer),
        }
    }

    pub(crate) fn state(&self) -> State {
        if self.is_new { State::New } else { State::Idle }
    }

    /// What it is called back into service as; `None` if its socket is broken.
    fn arrival(&self) -> Option<Arrival> {
        let (peer, local) = match &self.carried {
            Some(carried) => (carried.0.clone(), carried.1.clone()),
            None => addresses(&self.socket)?,
        };
        Some(Arrival {
            id: self.id,
            origin: self.origin.clone(),
            peer,
            local,
            tls: false,
            carried: self.carried.is_some(),
            accepted: self.accepted,
        })
    }
}

/// What a connection did before it came here.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) accepted: Moment,
    pub(crate) since: Moment,
    pub(crate) served: u64,
    pub(crate) is_new: bool,
    /// Addresses that a proxy told: the client's and the server's.
    pub(crate) carried: Option<Box<(Address, Address)>>,
}

fn addresses(socket: &Bare) -> Option<(Address, Address)> {
    let socket = socket2::SockRef::from(&socket.fd);
    let convert = |address: socket2::SockAddr| match address.as_socket() {
        Some(address) => Address::Tcp(address),
        None => Address::Unix(address.as_pathname().map(std::path::Path::to_owned)),
    };
    let peer = socket.peer_addr().ok().map(convert)?;
    let local = socket.local_addr().ok().map(convert)?;
    Some((peer, local))
}

/// A slot of the lot: the connection and its neighbours in its queue.
#[derive(Debug)]
struct Slot {
    parked: Parked,
    /// Told apart from an earlier user of the same slot by this.
    ticket: u32,
    before: u32,
    after: u32,
}

const NONE: u32 = u32::MAX;

/// A queue through the slots, oldest first.
#[derive(Debug)]
struct Queue {
    first: u32,
    last: u32,
    length: usize,
}

#[derive(Debug)]
struct Slots {
    slab: Slab<Slot>,
    new: Queue,
    idle: Queue,
    next_ticket: u32,
}

#[derive(Debug)]
pub(crate) struct Lot {
    epoll: OwnedFd,
    slots: Mutex<Slots>,
    /// A queue that was empty has a deadline again.
    changed: Notify,
    header_timeout: Duration,
    idle_timeout: Duration,
}

impl Lot {
    pub(crate) fn new(header_timeout: Duration, idle_timeout: Duration) -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            slots: Mutex::new(Slots::new()),
            changed: Notify::new(),
            header_timeout,
            idle_timeout,
        })
    }

    /// Parks a connection; whether it took it over: if not, it is closed and still counted. If there is an heir, it
    /// goes there; if the server wants waiting connections gone, it is closed, or served if a request has arrived.
    pub(crate) fn park(&self, mut parked: Parked, worker: &Arc<Worker>) -> bool {
        let mut slots = self.slots();
        // Under the lock: an order that comes later finds it in the lot.
        let orders = worker.shared.orders.current() | parked.origin.orders();
        if orders & Orders::HAND_OVER != 0 && orders & Orders::DRAIN == 0 {
            parked = match worker.way_out.send(parked, Bytes::new()) {
                Ok(()) => return true,
                Err((parked, _)) => parked,
            };
        }
        if orders & (Orders::END_LINGER | Orders::CLOSE_IDLE | Orders::CUT) != 0 {
            drop(slots);
            dismiss(parked, worker);
            return true;
        }
        let was_empty = slots.queue(parked.is_new).length == 0;
        let (token, slot) = slots.insert(parked);
        let events = EventFlags::IN | EventFlags::RDHUP;
        let socket = &slots.slab[slot].parked.socket.fd;
        if let Err(error) = epoll::add(&self.epoll, socket, EventData::new_u64(token), events) {
            tracing::warn!(%error, "cannot park a connection; closed");
            slots.remove(slot);
            return false;
        }
        drop(slots);
        worker.tally.parked();
        if was_empty {
            self.changed.notify_one();
        }
        true
    }

    /// Takes the connections out that have something to say; `None` if there is nothing more to
    /// look at for now.
    fn take_ready(&self) -> Option<Vec<Parked>> {
        let mut events = Vec::with_capacity(BATCH);
        let now = rustix::event::Timespec::default();
        if let Err(error) = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&now)) {
            if error != rustix::io::Errno::INTR {
                tracing::error!(%error, "the parking lot cannot be watched");
            }
            return None;
        }
        if events.is_empty() {
            return None;
        }
        let mut slots = self.slots();
        let ready = events
            .iter()
            .filter_map(|event| {
                let token = event.data.u64();
                slots.take(token)
            })
            .collect();
        Some(ready)
    }

    /// Takes those out whose patience is over, oldest first.
    fn take_expired(&self, now: Moment) -> Vec<Parked> {
        let mut slots = self.slots();
        let mut expired = Vec::new();
        for is_new in [true, false] {
            while expired.len() < BATCH
                && slots
                    .oldest(is_new)
                    .is_some_and(|oldest| self.deadline(oldest) <= now)
            {
                expired.extend(slots.pop(is_new));
            }
        }
        expired
    }

    /// Takes up to a batch of any out, the oldest first.
    pub(crate) fn take_oldest(&self, most: usize) -> Vec<Parked> {
        let mut slots = self.slots();
        let mut taken = Vec::new();
        while taken.len() < most {
            let idle = slots.pop(false).or_else(|| slots.pop(true));
            let Some(parked) = idle else { break };
            taken.push(parked);
        }
        taken
    }

    /// Stops watching a connection that was taken out. To close it would not be enough where another
    /// process holds it as well.
    pub(crate) fn forget(&self, parked: &Parked) {
        // It fails only if it is not there, which is what is wanted.
        let _ = epoll::delete(&self.epoll, &parked.socket.fd);
    }

    /// Closes all, each after a look; a connection on which a request has arrived is served.
    pub(crate) fn clear(&self, worker: &Arc<Worker>) -> usize {
        let mut cleared = 0;
        loop {
            let batch = self.take_oldest(BATCH);
            if batch.is_empty() {
                return cleared;
            }
            cleared += batch.len();
            for parked in batch {
                dismiss(parked, worker);
            }
        }
    }

    /// Closes those of one origin, each after a look; a connection on which a request has arrived
    /// is served.
    pub(crate) fn clear_origin(&self, worker: &Arc<Worker>, origin: &Arc<Origin>) {
        let of_it: Vec<Parked> = {
            let mut slots = self.slots();
            let found: Vec<usize> = (slots.slab.iter())
                .filter(|(_, slot)| Arc::ptr_eq(&slot.parked.origin, origin))
                .map(|(index, _)| index)
                .collect();
            found.into_iter().map(|index| slots.remove(index)).collect()
        };
        for parked in of_it {
            dismiss(parked, worker);
        }
    }

    /// Closes all without a look.
    pub(crate) fn cut(&self, worker: &Arc<Worker>) {
        loop {
            let batch = self.take_oldest(BATCH);
            if batch.is_empty() {
                return;
            }
            for parked in batch {
                close(parked, worker);
            }
        }
    }

    /// Closes the one of that number without a look; whether it was here.
    pub(crate) fn kill(&self, id: u64, worker: &Arc<Worker>) -> bool {
        let killed = {
            let mut slots = self.slots();
            let mut found = slots.slab.iter();
            let found = found.find(|(_, slot)| slot.parked.id == id);
            found
                .map(|(index, _)| index)
                .map(|index| slots.remove(index))
        };
        let is_here = killed.is_some();
        if let Some(parked) = killed {
            close(parked, worker);
        }
        is_here
    }

    /// Calls `visit` with each, in no order; one that comes or goes meanwhile may be left out.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Parked)) {
        let mut next = 0;
        loop {
            // A batch at a time: whoever parks waits for the lock.
            let slots = self.slots();
            if next >= slots.slab.capacity() {
                return;
            }
            let end = next.saturating_add(BATCH);
            for slot in (next..end).filter_map(|index| slots.slab.get(index)) {
                visit(&slot.parked);
            }
            next = end;
        }
    }

    pub(crate) fn count(&self, counts: &mut Counts) {
        let slots = self.slots();
        counts.add_parked(State::New, slots.new.length);
        counts.add_parked(State::Idle, slots.idle.length);
    }

    fn next_deadline(&self) -> Option<Moment> {
        let slots = self.slots();
        [true, false]
            .into_iter()
            .filter_map(|is_new| slots.oldest(is_new).map(|oldest| self.deadline(oldest)))
            .min()
    }

    fn deadline(&self, parked: &Parked) -> Moment {
        if parked.is_new {
            parked.accepted + self.header_timeout
        } else {
            parked.since + self.idle_timeout
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches a worker's lot for as long as the worker lives.
pub(crate) async fn watch(worker: Arc<Worker>) {
    let lot = &worker.lot;
    let epoll = match lot
        .epoll
        .try_clone()
        .and_then(|epoll| Watched::new(epoll, Interest::READABLE))
    {
        Ok(epoll) => epoll,
        Err(error) => {
            tracing::error!(%error, "the parking lot cannot be watched");
            return;
        }
    };
    let mut timer = Timer::new();
    loop {
        let deadline = lot.next_deadline();
        tokio::select! {
            ready = epoll.readable() => {
                let Ok(mut ready) = ready else { return };
                let batch = lot.take_ready();
                if batch.is_none() {
                    ready.clear_ready();
                }
                for parked in batch.into_iter().flatten() {
                    call_back(parked, &worker);
                }
                // Those called back get to run before the next batch.
                tokio::task::yield_now().await;
            }
            () = timer.until(deadline) => {
                for parked in lot.take_expired(clock::now()) {
                    dismiss(parked, &worker);
                }
            }
            () = lot.changed.notified() => {}
        }
    }
}

/// Puts a connection back into service with what its client has sent, or closes it if that is all
/// the client wanted.
///
/// The bytes are read here, not by the task that will serve it: the runtime does not know yet that
/// they are there, and an order to park everything that is silent must not send it back.
fn call_back(parked: Parked, worker: &Arc<Worker>) {
    match receive(parked.socket.fd.as_fd()) {
        Received::Bytes(first) => launch(parked, first, worker),
        Received::Ended => close(parked, worker),
        // Woken for nothing.
        Received::Nothing => {
            worker.lot.forget(&parked);
            if !worker.lot.park(parked, worker) {
                worker.shared.closed(1);
            }
        }
    }
}

/// Closes the connections in all lots, each after a look, with a thread for each lot that holds
/// many: the kernel closes them side by side.
pub(crate) fn clear_all(workers: &[Arc<Worker>]) {
    let Some((last, others)) = workers.split_last() else {
        return;
    };
    std::thread::scope(|scope| {
        for worker in others {
            let clear = || {
                worker.lot.clear(worker);
            };
            let is_large = worker.lot.slots().slab.len() >= MANY;
            let thread = std::thread::Builder::new();
            if !is_large || thread.spawn_scoped(scope, clear).is_err() {
                clear();
            }
        }
        last.lot.clear(last);
    });
}

/// Closes a connection nobody waits for any longer; a request that has arrived is served first.
pub(crate) fn dismiss(parked: Parked, worker: &Arc<Worker>) {
    match receive(parked.socket.fd.as_fd()) {
        Received::Bytes(first) => launch(parked, first, worker),
        Received::Ended | Received::Nothing => close(parked, worker),
    }
}

/// Puts a connection into service, with bytes that were read from it.
pub(crate) fn launch(parked: Parked, first: Bytes, worker: &Arc<Worker>) {
    let Some(arrival) = parked.arrival() else {
        return close(parked, worker);
    };
    worker.lot.forget(&parked);
    let state = parked.state();
    worker.launch(Fresh {
        stream: Stream::new(parked.socket),
        arrival,
        state,
        since: parked.since,
        served: parked.served,
        first,
        speaks: Speaks::Http1,
    });
}

fn close(parked: Parked, worker: &Arc<Worker>) {
    if let Some(hook) = &worker.shared.hooks.state
        && let Some(arrival) = parked.arrival()
    {
        let entry = Arc::new(Entry::new(arrival, State::Closed, parked.since));
        entry.resume_served(parked.served);
        drop(parked);
        hook(&ConnectionInfo::new(entry), State::Closed);
    } else {
        drop(parked);
    }
    worker.shared.closed(1);
}

impl Slots {
    fn new() -> Self {
        let empty = || Queue {
            first: NONE,
            last: NONE,
            length: 0,
        };
        Self {
            slab: Slab::new(),
            new: empty(),
            idle: empty(),
            next_ticket: 0,
        }
    }

    fn queue(&mut self, is_new: bool) -> &mut Queue {
        if is_new {
            &mut self.new
        } else {
            &mut self.idle
        }
    }

    fn insert(&mut self, parked: Parked) -> (u64, usize) {
        let is_new = parked.is_new;
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        let last = self.queue(is_new).last;
        let slot = self.slab.insert(Slot {
            parked,
            ticket,
            before: last,
            after: NONE,
        });
        let index = u32::try_from(slot).expect("fewer connections than 2^32");
        match self.slab.get_mut(last as usize) {
            Some(last) if last.after == NONE => last.after = index,
            Some(_) | None => {}
        }
        let queue = self.queue(is_new);
        if queue.first == NONE {
            queue.first = index;
        }
        queue.last = index;
        queue.length += 1;
        (u64::from(ticket) << 32 | u64::from(index), slot)
    }

    fn take(&mut self, token: u64) -> Option<Parked> {
        let slot = usize::try_from(token & u64::from(u32::MAX)).ok()?;
        let is_it = self
            .slab
            .get(slot)
            .is_some_and(|found| u64::from(found.ticket) == token >> 32);
        is_it.then(|| self.remove(slot))
    }

    fn remove(&mut self, slot: usize) -> Parked {
        let Slot {
            parked,
            before,
            after,
            ..
        } = self.slab.remove(slot);
        if let Some(neighbour) = self.slab.get_mut(before as usize) {
            neighbour.after = after;
        }
        if let Some(neighbour) = self.slab.get_mut(after as usize) {
            neighbour.before = before;
        }
        let queue = self.queue(parked.is_new);
        if before == NONE {
            queue.first = after;
        }
        if after == NONE {
            queue.last = before;
        }
        queue.length -= 1;
        if self.slab.is_empty() && self.slab.capacity() > BATCH {
            self.slab.shrink_to_fit();
        }
        parked
    }

    fn oldest(&self, is_new: bool) -> Option<&Parked> {
        let first = if is_new {
            self.new.first
        } else {
            self.idle.first
        };
        self.slab.get(first as usize).map(|slot| &slot.parked)
    }

    fn pop(&mut self, is_new: bool) -> Option<Parked> {
        let first = self.queue(is_new).first;
        (first != NONE).then(|| self.remove(first as usize))
    }
}
