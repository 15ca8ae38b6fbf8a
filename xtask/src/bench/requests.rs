//! What a request costs: processor time, rate and latency, for six kinds of load; and ours against bare hyper.

use anyhow::Result;

use super::{
    Bench,
    load::{Ask, Found},
    server::Start,
    table::{Better, Column, FLOOR, OURS, Table},
};

/// One kind of load, and so one table.
struct Kind {
    id: &'static str,
    title: &'static str,
    conns: usize,
    /// None: a new connection for every request.
    ask: Option<Ask>,
}

const KINDS: [Kind; 6] = [
    Kind {
        id: "requests-64",
        title: "Requests, 64 keep-alive connections",
        conns: 64,
        ask: Some(Ask::Hello),
    },
    Kind {
        id: "requests-1024",
        title: "Requests, 1,024 keep-alive connections",
        conns: 1024,
        ask: Some(Ask::Hello),
    },
    Kind {
        id: "requests-pipelined",
        title: "Requests, 64 connections, 16 at once",
        conns: 64,
        ask: Some(Ask::Pipelined),
    },
    Kind {
        id: "requests-new",
        title: "Requests, a new connection each",
        conns: 64,
        ask: None,
    },
    Kind {
        id: "requests-post",
        title: "POST of 1 KiB, echoed",
        conns: 64,
        ask: Some(Ask::Post),
    },
    Kind {
        id: "requests-big",
        title: "Responses of 64 KiB",
        conns: 64,
        ask: Some(Ask::Big),
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
            if kind.ask == Some(Ask::Post) && !server.echoes() {
                table.notes.push(format!(
                    "{} cannot echo without its echo module",
                    server.name
                ));
                continue;
            }
            let before = running.cpu_seconds()?;
            let found = match kind.ask {
                Some(ask) => bench
                    .load
                    .wrk(running.address, ask, kind.conns, bench.seconds)?,
                None => bench
                    .load
                    .churn(running.address, kind.conns, bench.seconds)?,
            };
            let cpu = running.cpu_seconds()? - before;
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
        Ok(())
    });
    for table in &mut tables {
        table.notes.extend(failures.iter().cloned());
        if table.id == "requests-64" {
            table.goal_ratio(0, FLOOR, 1.15, "CPU per request at most 1.15x the floor");
            table.goal_ratio(
                0,
                "hyper-tpc",
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

/// Ours against bare hyper and nothing else, in more and shorter rounds.
pub(super) fn tracking(bench: &Bench) -> Result<Vec<Table>> {
    let how = format!(
        "The same load as `requests-64`, {} against `hyper-tpc` alone, {} alternating rounds of {} s: what exact \
         connection states, limits and the ledger add to hyper's own connection on the same kind of runtime.",
        OURS,
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
    let both = bench.with(&[OURS, "hyper-tpc"]);
    let failures = both.alternate(bench.rounds * 2, "tracking", |server, round| {
        let running = server.start(pinned(bench))?;
        bench.load.wrk(running.address, Ask::Hello, 64, 1)?;
        let before = running.cpu_seconds()?;
        let found = bench
            .load
            .wrk(running.address, Ask::Hello, 64, bench.seconds)?;
        let cpu = running.cpu_seconds()? - before;
        table.push(server.name, round, &[Some(cpu / found.requests * 1e6)]);
        Ok(())
    });
    table.notes.extend(failures);
    table.goal_ratio(
        0,
        "hyper-tpc",
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
    let load = match kind.ask {
        Some(_) => "wrk, one thread",
        None => {
            "our own client, one thread: connect, ask with `Connection: close`, read to the end"
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
