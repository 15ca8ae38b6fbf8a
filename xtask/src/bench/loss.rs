//! Requests lost when a server is stopped under load, as the strict client counts them.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};

use super::{
    Bench,
    memory::everywhere,
    table::{Better, Column, OURS, Table},
};

/// Connections that ask all the time, or with a pause.
const CONNECTIONS: usize = 200;

/// Pauses between an answer and the next request, in milliseconds.
const PAUSES_MS: [u64; 3] = [0, 2, 50];

/// How often each server is stopped with each pause.
const STOPS: usize = 7;

/// When it is told to stop, and until when it has to be gone.
const STOP_AFTER: Duration = Duration::from_secs(1);
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

/// The client ends by itself when it is refused; this is when it ends in any case.
const CLIENT_SECONDS: u64 = 5;

/// Whom the issue of losing requests is settled with.
const SERVERS: [&str; 4] = [OURS, "go-nethttp", "nginx", "axum"];

/// Requests lost per stop.
pub(super) fn drain(bench: &Bench) -> Result<Vec<Table>> {
    let stops = if bench.quick { 2 } else { STOPS };
    let how = format!(
        "The strict client asks on {CONNECTIONS} keep-alive connections with a pause of 0, 2 or 50 ms; after 1 s the server \
         is told to stop in order, and started again for the next time: {stops} stops with each pause, alternating. A \
         request that was sent and not answered whole is lost; a refused connection is not. Per stop; {} threads, not \
         pinned.",
        bench.cores
    );
    let column =
        |pause: u64| Column::new(&format!("pause {pause} ms"), "lost", Better::Lower, true);
    let mut table = Table::new(
        "drain",
        "Requests lost per stop under load",
        how,
        PAUSES_MS.map(column).to_vec(),
    );
    let mut totals: Vec<(&str, f64, f64)> = Vec::new();
    let failures = bench
        .with(&SERVERS)
        .alternate(stops, "drain", |server, round| {
            let mut lost = Vec::new();
            for pause in PAUSES_MS {
                let mut running = server.start(everywhere(bench))?;
                let strict =
                    bench
                        .load
                        .strict(running.address, CONNECTIONS, pause, CLIENT_SECONDS)?;
                thread::sleep(STOP_AFTER);
                running.tell_to_stop()?;
                running.wait(STOPPED_WITHIN)?;
                let account = strict.finish()?;
                ensure!(account.answered > 0.0, "not one request was answered");
                lost.push(Some(account.lost));
                match totals.iter_mut().find(|(name, ..)| *name == server.name) {
                    Some((_, sent, lost)) => {
                        (*sent, *lost) = (*sent + account.sent, *lost + account.lost)
                    }
                    None => totals.push((server.name, account.sent, account.lost)),
                }
            }
            table.push(server.name, round, &lost);
            Ok(())
        });
    table.notes.extend(failures);
    table.notes.extend(
        totals
            .iter()
            .map(|(name, sent, lost)| format!("{name}: {lost} lost of {sent} sent, in all")),
    );
    table.goal_never(stops, "ours loses none, at no stop");
    Ok(vec![table])
}
