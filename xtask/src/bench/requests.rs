//! What a request costs: processor time and rate of a saturated server, and latency at a pace that every server can
//! keep, for six kinds of load; and ours against bare hyper.

use std::path::Path;

use anyhow::{Error, Result};

use super::{
    Bench,
    load::{Ask, Found, PIPELINED, Paced},
    server::{Running, Server, Start},
    table::{Better, Column, FLOOR, OURS, Table, number},
};

/// What makes the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum With {
    /// wrk, on keep-alive connections.
    Wrk(Ask),
    /// Our own client, in batches.
    Batches,
    /// Our own client, a new connection for every request.
    NewConnections,
}

/// One kind of load, and so one table.
struct Kind {
    id: &'static str,
    title: &'static str,
    conns: usize,
    load: With,
    paced: Paced,
    pace: u32,
}

// Paces, per second: about half of what the slowest server sustains, so that nobody has a queue for want of speed.

/// Go and gin answer 80,000.
const PACE_64: u32 = 40_000;

/// Go and gin answer 58,000.
const PACE_1024: u32 = 30_000;

/// Batches; Go and gin answer 5,600.
const PACE_BATCHES: u32 = 2_500;

/// Less than half of the 22,000 that everybody answers: most of it is the kernel's work, on the load's core too.
const PACE_NEW: u32 = 8_000;

/// gin answers 60,000, nginx with its echo module 51,000.
const PACE_POST: u32 = 30_000;

/// hyper, axum and gin answer 33,000.
const PACE_BIG: u32 = 15_000;

/// A server that answers less of what was offered did not keep the pace: its latencies are those of a queue.
const KEPT: f64 = 0.98;

impl Kind {
    /// What the pace counts.
    fn paced_of(&self) -> &'static str {
        match self.load {
            With::Wrk(_) => "requests",
            With::Batches => "batches",
            With::NewConnections => "connections",
        }
    }
}

const KINDS: [Kind; 6] = [
    Kind {
        id: "requests-64",
        title: "Requests, 64 keep-alive connections",
        conns: 64,
        load: With::Wrk(Ask::Hello),
        paced: Paced::Hello,
        pace: PACE_64,
    },
    Kind {
        id: "requests-1024",
        title: "Requests, 1,024 keep-alive connections",
        conns: 1024,
        load: With::Wrk(Ask::Hello),
        paced: Paced::Hello,
        pace: PACE_1024,
    },
    Kind {
        id: "requests-pipelined",
        title: "Requests, 64 connections, 16 at once",
        conns: 64,
        load: With::Batches,
        paced: Paced::Batch,
        pace: PACE_BATCHES,
    },
    Kind {
        id: "requests-new",
        title: "Requests, a new connection each",
        conns: 64,
        load: With::NewConnections,
        paced: Paced::New,
        pace: PACE_NEW,
    },
    Kind {
        id: "requests-post",
        title: "POST of 1 KiB, echoed",
        conns: 64,
        load: With::Wrk(Ask::Post),
        paced: Paced::Post,
        pace: PACE_POST,
    },
    Kind {
        id: "requests-big",
        title: "Responses of 64 KiB",
        conns: 64,
        load: With::Wrk(Ask::Big),
        paced: Paced::Big,
        pace: PACE_BIG,
    },
];

/// Whom ours has to be below.
const PEERS: [&str; 6] = ["actix", "ntex", "nginx", "axum", "go-nethttp", "go-gin"];

/// The six tables of requests.
pub(super) fn requests(bench: &Bench) -> Result<Vec<Table>> {
    let kinds: Vec<&Kind> = KINDS.iter().filter(|kind| bench.wants(kind.id)).collect();
    let mut tables: Vec<Table> = kinds
        .iter()
        .map(|kind| Table::new(kind.id, kind.title, how(bench, kind), columns()))
        .collect();
    let failures = bench.alternate(bench.rounds, "requests", |server, round| {
        let running = server.start(pinned(bench))?;
        // Branches, buffers and allocators settle before anything counts.
        bench.load.wrk(running.address, Ask::Hello, 64, 1)?;
        for (kind, table) in kinds.iter().zip(&mut tables) {
            if kind.load == With::Wrk(Ask::Post) && !server.echoes() {
                table.notes.push(format!(
                    "{} cannot echo without its echo module",
                    server.name
                ));
                continue;
            }
            // One kind of load that fails does not take the others with it.
            match measure(bench, &running, kind) {
                Ok((found, cpu)) => {
                    let paced = bench.load.pace(
                        running.address,
                        kind.paced,
                        kind.conns,
                        kind.pace,
                        bench.seconds,
                    );
                    let notes = notes(kind, found, paced.as_ref());
                    table.notes.extend(
                        notes
                            .into_iter()
                            .map(|note| format!("{}: {note} in round {}", server.name, round + 1)),
                    );
                    table.push(server.name, round, &samples(found, cpu, paced.ok()));
                }
                Err(error) => {
                    eprintln!("!!! {}: {} FAILED: {error:#}", kind.id, server.name);
                    table.notes.push(format!(
                        "{}: failed in round {}: {error:#}",
                        server.name,
                        round + 1
                    ));
                }
            }
        }
        Ok(())
    });
    for table in &mut tables {
        table.notes.extend(failures.iter().cloned());
        if table.id == "requests-64" {
            table.goal_ratio(0, FLOOR, 1.15, "CPU per request at most 1.15x the floor");
            table.goal_ratio(
                0,
                BARE,
                1.03,
                "CPU per request at most 1.03x bare hyper, a thread per core",
            );
            table.goal_below(
                0,
                &PEERS,
                "CPU per request below actix, ntex, nginx, axum, Go and gin",
            );
        }
        table.goal_first("first, or within 3% of the first, in every column (the floor apart)");
    }
    Ok(tables)
}

/// What is to be known of one round of one server.
fn notes(kind: &Kind, found: Found, paced: Result<&Found, &Error>) -> Vec<String> {
    let mut notes = Vec::new();
    if found.errors > 0.0 {
        notes.push(format!("{} errors", found.errors));
    }
    match paced {
        Ok(paced) => {
            if paced.errors > 0.0 {
                notes.push(format!("{} errors at the pace", paced.errors));
            }
            let rate = paced.requests / paced.seconds;
            if rate < KEPT * f64::from(kind.pace) {
                notes.push(format!(
                    "only {} of the {} {} a second",
                    number(rate),
                    number(kind.pace.into()),
                    kind.paced_of()
                ));
            }
        }
        Err(error) => notes.push(format!("no latencies, {error:#},")),
    }
    notes
}

/// What was found, and the server's processor seconds meanwhile.
fn measure(bench: &Bench, running: &Running, kind: &Kind) -> Result<(Found, f64)> {
    let before = running.cpu_seconds()?;
    let found = match kind.load {
        With::Wrk(ask) => bench
            .load
            .wrk(running.address, ask, kind.conns, bench.seconds)?,
        With::Batches => bench
            .load
            .pipeline(running.address, kind.conns, bench.seconds)?,
        With::NewConnections => bench
            .load
            .churn(running.address, kind.conns, bench.seconds)?,
    };
    Ok((found, running.cpu_seconds()? - before))
}

/// Our layer with bare hyper's own service in it: the difference is the layer and nothing else.
const LAYER: &str = "layer";
const BARE: &str = "hyper-tpc";

/// Ours against bare hyper and nothing else, in more rounds.
pub(super) fn tracking(bench: &Bench, root: &Path, work: &Path) -> Result<Vec<Table>> {
    let how = format!(
        "The same load as `requests-64`, {} alternating rounds of {} s. The row {OURS} is its server on a runtime of one \
         thread with the very service of `{BARE}` in it: what exact connection states, limits and the ledger add to \
         hyper's own connection.",
        bench.rounds * 2,
        bench.seconds
    );
    let columns = vec![Column::new("CPU", "us/request", Better::Lower, true)];
    let mut table = Table::new(
        "tracking",
        "State tracking against bare hyper",
        how,
        columns,
    );
    let mut both = bench.with(&[BARE]);
    both.servers.push(Server::build(LAYER, root, work)?);
    let failures = both.alternate(bench.rounds * 2, "tracking", |server, round| {
        let running = server.start(pinned(bench))?;
        bench.load.wrk(running.address, Ask::Hello, 64, 1)?;
        let before = running.cpu_seconds()?;
        let found = bench
            .load
            .wrk(running.address, Ask::Hello, 64, bench.seconds)?;
        let cpu = running.cpu_seconds()? - before;
        let row = if server.name == LAYER {
            OURS
        } else {
            server.name
        };
        table.push(row, round, &[Some(cpu / found.requests * 1e6)]);
        Ok(())
    });
    table.notes.extend(failures);
    table.goal_ratio(
        0,
        BARE,
        1.05,
        "at most 5% more CPU per request than bare hyper",
    );
    Ok(vec![table])
}

/// One thread on a core of its own.
pub(super) fn pinned(bench: &Bench) -> Start {
    Start {
        threads: 1,
        core: bench.server_core(),
        linger_none: false,
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::new("CPU", "us/request", Better::Lower, true),
        Column::new("rate", "requests/s", Better::Higher, false),
        Column::latency("p50"),
        Column::latency("p99"),
        Column::latency("p99.9"),
    ]
}

/// Processor time and rate of the saturated server, latencies of the paced one.
fn samples(found: Found, cpu_seconds: f64, paced: Option<Found>) -> [Option<f64>; 5] {
    let latency = |of: fn(Found) -> f64| paced.map(of);
    [
        Some(cpu_seconds / found.requests * 1e6),
        Some(found.requests / found.seconds),
        latency(|paced| paced.p50_us),
        latency(|paced| paced.p99_us),
        latency(|paced| paced.p999_us),
    ]
}

fn how(bench: &Bench, kind: &Kind) -> String {
    let load = match kind.load {
        With::Wrk(_) => "wrk, one thread".to_owned(),
        With::Batches => format!(
            "our own client, one thread: {PIPELINED} requests in one write, the next when all are answered"
        ),
        With::NewConnections => {
            "our own client, one thread: connect, ask with `Connection: close`, read to the end"
                .to_owned()
        }
    };
    format!(
        "{} alternating rounds of {} s; load by {load}, {} connections. {} CPU is the user and system time of the \
         server's processes over the run, divided by the requests answered in it. Latencies are those of a second run \
         of {} s by our own client, which offers every server the same, {} {} a second; they count from when each was due.",
        bench.rounds,
        bench.seconds,
        kind.conns,
        bench.pinning(),
        bench.seconds,
        number(kind.pace.into()),
        kind.paced_of()
    )
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn found(requests: f64, errors: f64) -> Found {
        Found {
            requests,
            seconds: 2.0,
            p50_us: 3.0,
            p99_us: 4.0,
            p999_us: 5.0,
            errors,
        }
    }

    #[test]
    fn a_server_that_does_not_keep_the_pace_is_told() {
        let notes = |requests: f64, errors: f64| {
            notes(&KINDS[0], found(1.0, 0.0), Ok(&found(requests, errors)))
        };
        assert!(notes(80_000.0, 0.0).is_empty());
        assert!(notes(78_400.0, 0.0).is_empty());
        assert_eq!(
            notes(78_000.0, 2.0),
            [
                "2 errors at the pace",
                "only 39,000 of the 40,000 requests a second"
            ]
        );
    }

    #[test]
    fn without_a_pace_there_is_a_cost_and_no_latency() {
        let error = anyhow!("no luck");
        let notes = notes(&KINDS[0], found(1.0, 7.0), Err(&error));
        assert_eq!(notes, ["7 errors", "no latencies, no luck,"]);
        assert_eq!(
            samples(found(4.0, 0.0), 1.0, None),
            [Some(250_000.0), Some(2.0), None, None, None]
        );
    }
}
