//! What a request costs: processor time, rate and latency, for six kinds of load; and ours against bare hyper.

use std::path::Path;

use anyhow::Result;

use super::{
    Bench,
    load::{Ask, Found, PIPELINED},
    server::{Running, Server, Start},
    table::{Better, Column, FLOOR, OURS, Table},
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
}

const KINDS: [Kind; 6] = [
    Kind {
        id: "requests-64",
        title: "Requests, 64 keep-alive connections",
        conns: 64,
        load: With::Wrk(Ask::Hello),
    },
    Kind {
        id: "requests-1024",
        title: "Requests, 1,024 keep-alive connections",
        conns: 1024,
        load: With::Wrk(Ask::Hello),
    },
    Kind {
        id: "requests-pipelined",
        title: "Requests, 64 connections, 16 at once",
        conns: 64,
        load: With::Batches,
    },
    Kind {
        id: "requests-new",
        title: "Requests, a new connection each",
        conns: 64,
        load: With::NewConnections,
    },
    Kind {
        id: "requests-post",
        title: "POST of 1 KiB, echoed",
        conns: 64,
        load: With::Wrk(Ask::Post),
    },
    Kind {
        id: "requests-big",
        title: "Responses of 64 KiB",
        conns: 64,
        load: With::Wrk(Ask::Big),
    },
];

/// Whom ours has to be below.
const PEERS: [&str; 6] = ["actix", "ntex", "nginx", "axum", "go-nethttp", "go-gin"];

/// The six tables of requests.
pub(super) fn requests(bench: &Bench) -> Result<Vec<Table>> {
    let mut tables: Vec<Table> = KINDS
        .iter()
        .map(|kind| Table::new(kind.id, kind.title, how(bench, kind), columns()))
        .collect();
    let failures = bench.alternate(bench.rounds, "requests", |server, round| {
        let running = server.start(pinned(bench))?;
        // Branches, buffers and allocators settle before anything counts.
        bench.load.wrk(running.address, Ask::Hello, 64, 1)?;
        for (kind, table) in KINDS.iter().zip(&mut tables) {
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
                    if found.errors > 0.0 {
                        table.notes.push(format!(
                            "{}: {} errors in round {}",
                            server.name,
                            found.errors,
                            round + 1
                        ));
                    }
                    table.push(server.name, round, &samples(found, cpu));
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
        Column::new("p50", "us", Better::Lower, false),
        Column::new("p99", "us", Better::Lower, false),
        Column::new("p99.9", "us", Better::Lower, false),
    ]
}

fn samples(found: Found, cpu_seconds: f64) -> [Option<f64>; 5] {
    let cpu = cpu_seconds / found.requests * 1e6;
    let rate = found.requests / found.seconds;
    [cpu, rate, found.p50_us, found.p99_us, found.p999_us].map(Some)
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
         server's processes over the run, divided by the requests answered in it. Latencies are those of a saturated \
         server.",
        bench.rounds,
        bench.seconds,
        kind.conns,
        bench.pinning()
    )
}
