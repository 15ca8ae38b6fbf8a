//! What connections cost that do nothing: idle ones after a request, and silent ones that never sent a byte.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    Bench,
    process::TICK_SECONDS,
    server::{Running, Start},
    table::{Better, Column, OURS, Table},
};

/// Idle connections held.
const IDLE: usize = 10_000;

/// Silent connections held; with a descriptor limit of 20,000 not many more fit.
const SILENT: usize = 15_000;

/// How long after the last request the memory is read.
const SETTLED: Duration = Duration::from_secs(10);

/// How long silent connections are watched for what they cost in processor time. Together with opening them this
/// stays below the 10 s after which a silent connection may be closed.
const WATCHED: Duration = Duration::from_secs(5);

/// Connections that come and go before memory is first read, so that code and tables are there already.
const WARM: usize = 200;

const MIB: f64 = 1024.0 * 1024.0;

/// How the idle connections came to be: name of the column, word for the load client, limit in bytes.
const WAYS: [(&str, &str, f64); 3] = [
    ("one after another", "one", 256.0),
    ("all at once", "burst", 400.0),
    ("after 1 MiB uploads", "upload", 256.0),
];

/// Memory per idle connection.
pub(super) fn idle(bench: &Bench) -> Result<Vec<Table>> {
    let how = format!(
        "PSS of the server's processes with {IDLE} idle connections, {} s after the last request, minus the same \
         server's before (after {WARM} connections that came and went), per connection. Opened one after another with \
         a request each; all connected, then all asked at once; an upload of 1 MiB each, 32 at a time. The kernel's \
         own memory is not in it. {} threads, not pinned, {} rounds.",
        SETTLED.as_secs(),
        bench.cores,
        bench.memory_rounds()
    );
    let columns = WAYS
        .map(|(name, ..)| Column::new(name, "B/connection", Better::Lower, true))
        .to_vec();
    let mut table = Table::new("idle", "Memory per idle connection", how, columns);
    let failures = bench.alternate(bench.memory_rounds(), "idle", |server, round| {
        let mut samples = Vec::new();
        for (_, way, _) in WAYS {
            let running = server.start(everywhere(bench))?;
            let before = warmed(bench, &running)?;
            let mut held = bench.load.hold(running.address, IDLE, way)?;
            thread::sleep(SETTLED);
            let per_connection = (running.pss_bytes()? - before) / count(IDLE);
            let open = held.count()?;
            if open < count(IDLE) {
                table.notes.push(format!(
                    "{}: only {open} of {IDLE} were still open ({way})",
                    server.name
                ));
            }
            samples.push(Some(per_connection).filter(|_| open >= count(IDLE)));
        }
        table.push(server.name, round, &samples);
        Ok(())
    });
    table.notes.extend(failures);
    for (column, (name, _, limit)) in WAYS.into_iter().enumerate() {
        table.goal_at_most(column, limit, &format!("{name}: at most {limit} B"));
    }
    Ok(vec![table])
}

/// Memory and time with silent connections.
pub(super) fn silent(bench: &Bench) -> Result<Vec<Table>> {
    let how = format!(
        "{SILENT} connections that never send a byte. PSS above the empty server's, and processor time over {} s, \
         beginning 2 s after the last was opened. {} threads, not pinned, {} rounds. The clock counts in ticks of 10 ms.",
        WATCHED.as_secs(),
        bench.cores,
        bench.memory_rounds()
    );
    let columns = vec![
        Column::new("memory", "MiB", Better::Lower, true),
        Column::new("CPU", "ms", Better::Lower, false),
        Column::new("still open", "connections", Better::Higher, false),
    ];
    let mut table = Table::new("silent", "15,000 silent clients", how, columns);
    let failures = bench.alternate(bench.memory_rounds(), "silent", |server, round| {
        let running = server.start(everywhere(bench))?;
        let before = warmed(bench, &running)?;
        let mut held = bench.load.hold(running.address, SILENT, "silent")?;
        thread::sleep(Duration::from_secs(2));
        let cpu_before = running.cpu_seconds()?;
        thread::sleep(WATCHED);
        let cpu = running.cpu_seconds()? - cpu_before;
        let memory = running.pss_bytes()? - before;
        let open = held.count().context("counting")?;
        table.push(
            server.name,
            round,
            &[Some(memory / MIB), Some(cpu * 1e3), Some(open)],
        );
        Ok(())
    });
    table.notes.extend(failures);
    table.goal_at_most(0, 12.0, "under 12 MiB above the empty server");
    table.goal_at_most(
        1,
        TICK_SECONDS * 1e3,
        "no CPU (at most one tick of the clock)",
    );
    if let Some(open) = table
        .spread(OURS, 2)
        .filter(|open| open.median < count(SILENT))
    {
        table.notes.push(format!(
            "{OURS} had closed some of them by then: {} were open",
            open.median
        ));
    }
    Ok(vec![table])
}

/// As many threads as cores, wherever they like.
pub(super) fn everywhere(bench: &Bench) -> Start {
    Start {
        threads: bench.cores,
        core: None,
        linger_none: false,
    }
}

/// Memory of the server when its code and tables have been used once. A request each and nothing larger: buffers that
/// a warm-up of uploads left behind would be counted as memory that the idle connections gave back.
fn warmed(bench: &Bench, running: &Running) -> Result<f64> {
    drop(bench.load.hold(running.address, WARM, "one")?);
    thread::sleep(Duration::from_secs(1));
    running.pss_bytes()
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn count(connections: usize) -> f64 {
    connections as f64
}
