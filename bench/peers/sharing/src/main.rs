//! Two ways for workers to share a port, side by side: one socket that every worker waits on with `EPOLLEXCLUSIVE`, and
//! a `SO_REUSEPORT` socket for each. Prints how evenly connections are spread, and how many are reset when one worker
//! stops while the other goes on.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::event::{Timespec, epoll};
use socket2::{Domain, Socket, Type};

const WORKERS: usize = 2;
const CONNECTIONS: usize = 2_000;
const AT_ONCE: usize = 64;
const STOPS: usize = 20;
/// While one is stopped, a worker is busy so long between two looks at its queue, as one with handlers is.
const BUSY: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Exclusive,
    ReusePort,
}

struct Worker {
    thread: thread::JoinHandle<Vec<TcpStream>>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    wakes: Arc<AtomicUsize>,
}

fn main() -> io::Result<()> {
    println!("{WORKERS} workers, {CONNECTIONS} connections kept open, each answered with a byte");
    println!(
        "| way | load | busiest worker | wakes per connection | lost in {STOPS} stops of one worker |"
    );
    println!("|---|---|---|---|---|");
    for (way, name) in [
        (Way::Exclusive, "one socket, EPOLLEXCLUSIVE"),
        (Way::ReusePort, "a SO_REUSEPORT socket each"),
    ] {
        let lost = (0..STOPS)
            .map(|_| stop_one(way))
            .sum::<io::Result<usize>>()?;
        for (at_once, load) in [(1, "one after another"), (AT_ONCE, "64 at once")] {
            let (busiest, wakes) = spread(way, at_once)?;
            println!("| {name} | {load} | {busiest:.1}% | {wakes:.2} | {lost} |");
        }
    }
    Ok(())
}

/// The busiest worker's share of the connections, and wakes per connection.
fn spread(way: Way, at_once: usize) -> io::Result<(f64, f64)> {
    let (address, workers) = start(way, Duration::ZERO)?;
    let mut kept = Vec::new();
    for _ in 0..CONNECTIONS / at_once {
        let mut batch = (0..at_once)
            .map(|_| connect(address))
            .collect::<io::Result<Vec<_>>>()?;
        for stream in &mut batch {
            stream.read_exact(&mut [0])?;
        }
        kept.extend(batch);
    }
    let counts = workers.iter().map(|w| w.accepted.load(Ordering::Relaxed));
    let busiest = counts.max().unwrap_or(0) as f64 / kept.len() as f64 * 100.0;
    let wakes: usize = workers
        .iter()
        .map(|w| w.wakes.load(Ordering::Relaxed))
        .sum();
    let each = wakes as f64 / kept.len() as f64;
    for worker in workers {
        worker.end();
    }
    Ok((busiest, each))
}

/// Stops one worker under load by new connections; how many of those were reset.
fn stop_one(way: Way) -> io::Result<usize> {
    let (address, mut workers) = start(way, BUSY)?;
    let over = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (over, served) = (over.clone(), served.clone());
            thread::spawn(move || {
                let mut lost = 0;
                while !over.load(Ordering::Relaxed) {
                    let answered = connect(address).and_then(|mut s| s.read_exact(&mut [0]));
                    lost += usize::from(answered.is_err());
                    served.fetch_add(1, Ordering::Relaxed);
                }
                lost
            })
        })
        .collect();
    wait_for(&served, 200);
    if let Some(worker) = workers.pop() {
        worker.end();
    }
    let so_far = served.load(Ordering::Relaxed);
    wait_for(&served, so_far + 200);
    over.store(true, Ordering::Relaxed);
    let lost = clients
        .into_iter()
        .map(|c| c.join().expect("a client panicked"))
        .sum();
    for worker in workers {
        worker.end();
    }
    Ok(lost)
}

fn wait_for(count: &AtomicUsize, least: usize) {
    let begun = Instant::now();
    while count.load(Ordering::Relaxed) < least && begun.elapsed() < PATIENCE {
        thread::yield_now();
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn start(way: Way, busy: Duration) -> io::Result<(SocketAddr, Vec<Worker>)> {
    let first = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), way)?;
    let address = first.local_addr()?;
    let mut listeners = vec![];
    for _ in 1..WORKERS {
        listeners.push(match way {
            Way::Exclusive => first.try_clone()?,
            Way::ReusePort => listener(address, way)?,
        });
    }
    listeners.push(first);
    Ok((
        address,
        listeners
            .into_iter()
            .map(|l| Worker::start(l, way, busy))
            .collect(),
    ))
}

fn listener(address: SocketAddr, way: Way) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(way == Way::ReusePort)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Worker {
    fn start(listener: TcpListener, way: Way, busy: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (accepted, wakes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let thread = thread::spawn({
            let (stop, accepted, wakes) = (stop.clone(), accepted.clone(), wakes.clone());
            move || work(&listener, way, busy, &stop, &accepted, &wakes).expect("a worker failed")
        });
        Self {
            thread,
            stop,
            accepted,
            wakes,
        }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.join().expect("a worker panicked"));
    }
}

fn work(
    listener: &TcpListener,
    way: Way,
    busy: Duration,
    stop: &AtomicBool,
    accepted: &AtomicUsize,
    wakes: &AtomicUsize,
) -> io::Result<Vec<TcpStream>> {
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut flags = epoll::EventFlags::IN;
    flags.set(epoll::EventFlags::EXCLUSIVE, way == Way::Exclusive);
    epoll::add(&queue, listener, epoll::EventData::new_u64(0), flags)?;
    let mut kept = Vec::new();
    let mut events = Vec::with_capacity(8);
    let look = Timespec {
        tv_sec: 0,
        tv_nsec: 5_000_000,
    };
    while !stop.load(Ordering::Relaxed) {
        epoll::wait(
            &queue,
            rustix::buffer::spare_capacity(&mut events),
            Some(&look),
        )?;
        if events.is_empty() {
            continue;
        }
        events.clear();
        wakes.fetch_add(1, Ordering::Relaxed);
        loop {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nonblocking(false)?;
                    accepted.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(b"x")?;
                    kept.push(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // What arrives meanwhile is in the queue when the worker is told to stop, and it closes without a look.
        thread::sleep(busy);
    }
    Ok(kept)
}
