//! One connection, as the rest of the server may see it.
//!
//! Invariant: the thread that serves the connection is the only writer of its entry, by plain
//! relaxed stores; everybody else reads. So the request path shares no cache line with another
//! connection's.

use crate::draining::{Draining, Signal};
use crate::moment::Moment;
use crate::record::Record;
use crate::report::Straggler;
use crate::state::{Event, State, Step};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// An address that a connection comes from or goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A Unix socket; clients' ends usually have no path.
    Unix(Option<PathBuf>),
}

impl Address {
    /// The IP address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// The socket address, if it is one of TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix:"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// Where connections come from: what all connections share that one listener accepted under one
/// mode.
#[derive(Debug)]
pub struct Origin {
    /// The listener's stable name.
    pub listener: String,
    /// Raised when the server drains.
    pub signal: Arc<Signal>,
    /// Raised when these connections are to end, whatever the server does.
    retired: Signal,
    orders: AtomicU32,
}

impl Origin {
    /// Connections of the listener of that name, under no orders.
    pub fn new(listener: impl Into<String>, signal: Arc<Signal>) -> Self {
        Self {
            listener: listener.into(),
            signal,
            retired: Signal::new(),
            orders: AtomicU32::new(0),
        }
    }

    /// The standing orders to these connections alone, as bits whose meaning is the server's.
    #[inline]
    pub fn orders(&self) -> u32 {
        self.orders.load(Ordering::Acquire)
    }

    /// Tells what goes on without end on these connections to come to one, as a drain of the
    /// server does. A connection's [`Draining`] is ready from then on.
    pub fn retire(&self) {
        self.retired.raise();
    }

    /// Gives these connections an order; whoever serves them must be woken to see it.
    pub fn give(&self, order: u32) {
        self.orders.fetch_or(order, Ordering::AcqRel);
    }
}

/// What is known of a connection from its beginning and never changes.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The number that names the connection for as long as the server lives.
    pub id: u64,
    /// What it shares with the other connections of its listener.
    pub origin: Arc<Origin>,
    /// The client's address.
    pub peer: Address,
    /// The server's own address on this connection.
    pub local: Address,
    /// Whether it is encrypted.
    pub tls: bool,
    /// Whether a proxy told the addresses, so that they are not the socket's own.
    pub carried: bool,
    /// When it was accepted.
    pub accepted: Moment,
}

/// Whether a connection that cannot be a bare descriptor is parked.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Rest {
    No,
    Resting,
    /// It is to end.
    Dismissed,
}

/// One connection: who it is, what it does, and how to wake whoever serves it.
///
/// What each request touches comes first, side by side: with a thousand connections every cache
/// line of theirs is a cold one.
#[derive(Debug)]
#[repr(C)]
pub struct Entry {
    state: AtomicU8,
    killed: AtomicBool,
    rest: AtomicU8,
    /// It is one of the streams of a connection that has an entry of its own.
    is_stream: bool,
    /// How many streams it carries that have an entry of their own.
    streams: AtomicU32,
    since: AtomicU64,
    served: AtomicU64,
    sent: AtomicU64,
    alarm: AtomicU64,
    request: Record,
    arrival: Arrival,
    waker: Mutex<Option<Waker>>,
}

/// All but the text of a request is in the first cache line, behind what `Arc` counts.
#[cfg(not(loom))]
const _: () = assert!(
    std::mem::offset_of!(Entry, request) + Record::BEFORE_TEXT <= 64 - 2 * size_of::<usize>()
);

impl Entry {
    /// A connection in `state` since `now`.
    pub fn new(arrival: Arrival, state: State, now: Moment) -> Self {
        Self {
            state: AtomicU8::new(state as u8),
            killed: AtomicBool::new(false),
            rest: AtomicU8::new(Rest::No as u8),
            is_stream: false,
            streams: AtomicU32::new(0),
            since: AtomicU64::new(now.as_millis()),
            served: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            alarm: AtomicU64::new(0),
            request: Record::new(),
            arrival,
            waker: Mutex::new(None),
        }
    }

    /// A stream of the connection `self`, active since `now`. It counts as no connection of its
    /// own.
    pub fn stream(&self, now: Moment) -> Self {
        Self {
            is_stream: true,
            ..Self::new(self.arrival.clone(), State::New, now)
        }
    }

    /// The entry of a stream that is over becomes that of the connection's next one: in state `New` since `now`.
    /// For whoever has it to itself, lists of entries apart.
    pub fn begin_again(&self, now: Moment) {
        self.killed.store(false, Ordering::Relaxed);
        self.alarm.store(0, Ordering::Relaxed);
        self.since.store(now.as_millis(), Ordering::Relaxed);
        self.state.store(State::New as u8, Ordering::Release);
    }

    /// The connection carries one more stream. While there are any, they are told of one by one, instead of it.
    #[inline]
    pub fn stream_enters(&self) {
        self.streams.fetch_add(1, Ordering::AcqRel);
    }

    /// It carries one less; whether that was the last.
    #[inline]
    pub fn stream_leaves(&self) -> bool {
        self.streams.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether it carries streams that are told of one by one.
    pub fn is_multiplexed(&self) -> bool {
        self.streams.load(Ordering::Acquire) > 0
    }

    /// Method and target of the request under way, or of the last one; empty while a head arrives.
    pub fn request_line(&self) -> String {
        self.request.read().unwrap_or_default()
    }

    /// Whether it is a stream of a connection with an entry of its own.
    pub fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Tells the connection what happened to it; the step that was made.
    #[inline]
    pub fn tell(&self, event: Event, now: Moment) -> Step {
        let step = self.state().after(event);
        if let Step::To(state) = step {
            self.since.store(now.as_millis(), Ordering::Relaxed);
            self.state.store(state as u8, Ordering::Release);
        }
        step
    }

    /// The state it is in.
    #[inline]
    pub fn state(&self) -> State {
        // Only numbers of states are ever stored.
        State::from_u8(self.state.load(Ordering::Acquire)).unwrap_or(State::Closed)
    }

    /// Since when it is in that state.
    #[inline]
    pub fn since(&self) -> Moment {
        Moment::from_millis(self.since.load(Ordering::Relaxed))
    }

    /// Notes the request whose answer is being made. Call it from the serving thread only.
    #[inline]
    pub fn begin_request(&self, method: &str, target: &[u8]) {
        self.request.write(method.as_bytes(), target);
        let served = self.served.load(Ordering::Relaxed);
        self.served.store(served + 1, Ordering::Relaxed);
        self.sent.store(0, Ordering::Relaxed);
    }

    /// Forgets the last request's line: the bytes of another head have begun to arrive, and who
    /// reads the entry must not take them for the request before.
    #[inline]
    pub fn begin_head(&self) {
        self.sent.store(0, Ordering::Relaxed);
        self.request.clear();
    }

    /// Counts bytes of the current answer. Call it from the serving thread only.
    #[inline]
    pub fn add_sent(&self, bytes: usize) {
        let sent = self.sent.load(Ordering::Relaxed);
        self.sent.store(sent + bytes as u64, Ordering::Relaxed);
    }

    /// What is known of it from its beginning.
    pub fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    /// The number that names this connection for as long as the server lives.
    pub fn id(&self) -> u64 {
        self.arrival.id
    }

    /// How many requests it has brought since it was accepted or last unparked.
    #[inline]
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Sets how many requests it brought before it was parked.
    pub fn resume_served(&self, served: u64) {
        self.served.store(served, Ordering::Relaxed);
    }

    /// When it was accepted.
    pub fn accepted(&self) -> Moment {
        self.arrival.accepted
    }

    /// The client's address.
    pub fn peer(&self) -> &Address {
        &self.arrival.peer
    }

    /// The server's own address on this connection.
    pub fn local(&self) -> &Address {
        &self.arrival.local
    }

    /// What it shares with the other connections of its listener.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.arrival.origin
    }

    /// The signals of which either says that it is to end: the server drains, or its listener
    /// takes none of its kind any more.
    pub fn signals(&self) -> [&Signal; 2] {
        let origin = &self.arrival.origin;
        [&origin.signal, &origin.retired]
    }

    /// Asks for the connection's end at once, whatever it is doing, and wakes who serves it.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether its end was asked for.
    #[inline]
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// The connection is parked, though not as a bare descriptor: it waits without protocol state
    /// and buffers, but has a session. Not to be called on one that was dismissed.
    pub fn begin_rest(&self) {
        self.rest.store(Rest::Resting as u8, Ordering::Release);
    }

    /// Whether it is parked in that way.
    pub fn is_resting(&self) -> bool {
        self.rest.load(Ordering::Acquire) != Rest::No as u8
    }

    /// Asks a resting connection to end unless a request has arrived, and wakes who keeps it;
    /// whether it rested and was not asked before.
    pub fn dismiss(&self) -> bool {
        let (resting, dismissed) = (Rest::Resting as u8, Rest::Dismissed as u8);
        let asked =
            self.rest
                .compare_exchange(resting, dismissed, Ordering::AcqRel, Ordering::Relaxed);
        if asked.is_ok() {
            self.wake();
        }
        asked.is_ok()
    }

    /// Whether it was asked to end its rest.
    pub fn is_dismissed(&self) -> bool {
        self.rest.load(Ordering::Acquire) == Rest::Dismissed as u8
    }

    /// What the server noted with [`Entry::set_alarm`]; 0 at first.
    #[inline]
    pub fn alarm(&self) -> u64 {
        self.alarm.load(Ordering::Acquire)
    }

    /// Notes when whoever serves the connection will be woken: a number whose meaning is the
    /// server's.
    pub fn set_alarm(&self, alarm: u64) {
        self.alarm.store(alarm, Ordering::Release);
    }

    /// Says whom to wake. Once is enough for a task, whose waker stays the same.
    pub fn watch(&self, waker: &Waker) {
        let mut kept = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.as_mut() {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
    }

    /// Wakes whoever serves the connection, to look at what it was told.
    pub fn wake(&self) {
        let waker = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What a report says of it, or `None` if nobody would miss it.
    pub fn straggler(&self, now: Moment) -> Option<Straggler> {
        let state = self.state();
        if !state.is_straggler() || self.is_multiplexed() {
            return None;
        }
        let line = self.request.read().unwrap_or_default();
        let (method, target) = line.split_once(' ').unwrap_or((line.as_str(), ""));
        Some(Straggler {
            id: self.arrival.id,
            age: now.since(self.since()),
            peer: self.arrival.peer.clone(),
            listener: self.arrival.origin.listener.clone(),
            state,
            method: method.to_owned(),
            target: target.to_owned(),
            bytes_sent: self.sent.load(Ordering::Relaxed),
        })
    }
}

/// What a handler may know of the connection that brought its request.
///
/// Found in the request's extensions, and through the body of every request that Curtsy's server
/// hands to a service.
#[derive(Clone)]
pub struct ConnectionInfo(Arc<Entry>);

impl ConnectionInfo {
    /// The view of `entry`.
    pub fn new(entry: Arc<Entry>) -> Self {
        Self(entry)
    }

    /// The number that names the connection for as long as the server lives.
    pub fn id(&self) -> u64 {
        self.0.arrival.id
    }

    /// The client's address; behind a proxy that speaks the PROXY protocol, the carried one.
    pub fn peer(&self) -> &Address {
        &self.0.arrival.peer
    }

    /// The server's own address on this connection.
    pub fn local(&self) -> &Address {
        &self.0.arrival.local
    }

    /// The stable name of the listener that accepted it.
    pub fn listener(&self) -> &str {
        &self.0.arrival.origin.listener
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.arrival.tls
    }

    /// How many requests it has brought, this one included.
    pub fn requests(&self) -> u64 {
        self.0.served()
    }

    /// What tells this connection's requests that the server is draining.
    pub fn draining(&self) -> Draining {
        Draining::of_connection(self.0.clone())
    }
}

impl fmt::Debug for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionInfo")
            .field("id", &self.id())
            .field("listener", &self.listener())
            .field("peer", &format_args!("{}", self.peer()))
            .field("local", &format_args!("{}", self.local()))
            .field("tls", &self.is_tls())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Arrival, ConnectionInfo, Entry, Origin};
    use crate::{Event, Moment, Signal, State, Step};
    use std::sync::Arc;
    use std::time::Duration;

    fn entry() -> Arc<Entry> {
        let origin = Arc::new(Origin::new("main", Arc::new(Signal::new())));
        let peer = Address::Tcp("127.0.0.1:4000".parse().unwrap());
        let local = Address::Unix(None);
        let now = Moment::from_millis(5);
        let arrival = Arrival {
            id: 7,
            origin,
            peer,
            local,
            tls: false,
            carried: false,
            accepted: now,
        };
        Arc::new(Entry::new(arrival, State::New, now))
    }

    #[test]
    fn an_active_connection_is_a_straggler_with_its_request_and_age() {
        let entry = entry();
        assert!(entry.straggler(Moment::from_millis(9)).is_none());
        assert_eq!(
            entry.tell(Event::Bytes, Moment::from_millis(10)),
            Step::To(State::Active)
        );
        let half = entry.straggler(Moment::from_millis(12)).unwrap();
        assert_eq!((half.method.as_str(), half.target.as_str()), ("", ""));

        entry.begin_request("GET", b"/slow?ms=1");
        entry.add_sent(100);
        let straggler = entry.straggler(Moment::from_millis(1_010)).unwrap();
        assert_eq!(straggler.age, Duration::from_secs(1));
        assert_eq!(straggler.method, "GET");
        assert_eq!(straggler.target, "/slow?ms=1");
        assert_eq!(straggler.bytes_sent, 100);
        assert_eq!(straggler.listener, "main");

        entry.tell(Event::Answered, Moment::from_millis(1_020));
        assert!(entry.straggler(Moment::from_millis(1_030)).is_none());
        assert_eq!(entry.since(), Moment::from_millis(1_020));
        entry.tell(Event::Bytes, Moment::from_millis(1_040));
        entry.begin_head();
        assert_eq!(
            entry.straggler(Moment::from_millis(1_041)).unwrap().method,
            ""
        );
    }

    #[test]
    fn a_multiplexed_connection_is_told_of_by_its_streams() {
        let connection = entry();
        connection.tell(Event::Bytes, Moment::from_millis(10));
        connection.stream_enters();
        let stream = connection.stream(Moment::from_millis(10));
        stream.tell(Event::Bytes, Moment::from_millis(10));
        stream.begin_request("GET", b"/a");
        assert!(connection.straggler(Moment::from_millis(20)).is_none());
        let straggler = stream.straggler(Moment::from_millis(20)).unwrap();
        assert_eq!(
            (straggler.id, straggler.target.as_str()),
            (connection.id(), "/a")
        );
        assert!(stream.is_stream() && !connection.is_stream());

        connection.stream_enters();
        assert!(!connection.stream_leaves() && connection.is_multiplexed());
        assert!(connection.stream_leaves() && !connection.is_multiplexed());
        assert!(connection.straggler(Moment::from_millis(20)).is_some());
    }

    #[test]
    fn the_entry_of_a_stream_that_is_over_is_seen_again_with_the_next() {
        let stream = entry().stream(Moment::from_millis(10));
        stream.tell(Event::Bytes, Moment::from_millis(10));
        stream.begin_request("GET", b"/a");
        stream.kill();
        stream.tell(Event::Ended, Moment::from_millis(20));
        assert!(stream.straggler(Moment::from_millis(25)).is_none());
        stream.begin_again(Moment::from_millis(30));
        assert_eq!((stream.state(), stream.is_killed()), (State::New, false));
        stream.begin_head();
        stream.tell(Event::Bytes, Moment::from_millis(30));
        let straggler = stream.straggler(Moment::from_millis(35)).unwrap();
        assert_eq!(
            (straggler.age.as_millis(), straggler.target),
            (5, String::new())
        );
    }

    #[test]
    fn orders_to_one_origin_reach_its_connections() {
        let entry = entry();
        assert_eq!(entry.origin().orders(), 0);
        entry.origin().give(1);
        entry.origin().give(4);
        assert_eq!(entry.origin().orders(), 5);
    }

    #[test]
    fn a_refused_event_changes_nothing() {
        let entry = entry();
        assert_eq!(
            entry.tell(Event::Answered, Moment::from_millis(99)),
            Step::Refused
        );
        assert_eq!((entry.state(), entry.since().as_millis()), (State::New, 5));
    }

    #[test]
    fn a_handler_sees_the_drain_of_its_own_server() {
        let entry = entry();
        let info = ConnectionInfo::new(entry.clone());
        let draining = info.draining();
        assert!(!draining.is_draining());
        entry.origin().signal.raise();
        assert!(draining.is_draining());
        assert_eq!(info.listener(), "main");
        assert_eq!(info.peer().to_string(), "127.0.0.1:4000");
        assert_eq!(info.local().to_string(), "unix:");
    }
}
