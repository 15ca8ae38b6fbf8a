//! Waking and stopping: what being parked costs the next request, and how soon a server is gone.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    Bench,
    memory::everywhere,
    requests::pinned,
    server::{Running, Server, Start},
    table::{Better, Column, FLOOR, Table},
};

/// Connections that take turns resting, and turns of each.
const RESTING: usize = 100;
const TURNS: usize = 4;

/// Idle connections at a stop.
const IDLE: usize = 15_000;

/// How often a server is started and stopped with a response under way.
const STOPS: usize = 20;

/// When a stop has failed.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

/// What the request under way takes, and when the stop comes.
const SLOW: &str = "GET /slow?ms=200 HTTP/1.1\r\nHost: localhost\r\n\r\n";
const STOP_AFTER: Duration = Duration::from_millis(100);

/// A request after a pause against one on a connection in use.
pub(super) fn wake(bench: &Bench) -> Result<Vec<Table>> {
    let how = format!(
        "One request at a time. {RESTING} connections take turns, so that each has rested for 1 s when it is asked, {TURNS} \
         times; between two of them a connection that is always in use is asked, of a server that is asleep in both \
         cases. {} {} rounds.",
        bench.pinning(),
        bench.rounds
    );
    let column = |name: &str, charted| Column::new(name, "us", Better::Lower, charted);
    let columns = vec![
        column("p50 more", true),
        column("p50 rested", false),
        column("p50 hot", false),
        column("p99 rested", false),
        column("p99 hot", false),
    ];
    let mut table = Table::new("wake", "A request after 1 s of rest", how, columns);
    let failures = bench.alternate(bench.rounds, "wake", |server, round| {
        let running = server.start(pinned(bench))?;
        let [rested_p50, rested_p99, hot_p50, hot_p99] =
            bench.load.wake(running.address, RESTING, TURNS)?;
        table.push(
            server.name,
            round,
            &[
                rested_p50 - hot_p50,
                rested_p50,
                hot_p50,
                rested_p99,
                hot_p99,
            ]
            .map(Some),
        );
        Ok(())
    });
    table.notes.extend(failures);
    table.goal_at_most(0, 40.0, "at most 40 us more at the median");
    Ok(vec![table])
}

/// Two tables: after the last response, and with idle connections.
pub(super) fn stop(bench: &Bench) -> Result<Vec<Table>> {
    Ok(vec![
        after_the_last_response(bench),
        with_idle_connections(bench),
    ])
}

fn after_the_last_response(bench: &Bench) -> Table {
    let runs = if bench.quick { 3 } else { STOPS };
    let how = format!(
        "A request that takes 200 ms is under way when the server is told to stop; from its response's last byte to \
         the process's end. {} threads, not pinned, {runs} alternating runs.",
        bench.cores
    );
    let columns = vec![Column::new(
        "last response to exit",
        "ms",
        Better::Lower,
        true,
    )];
    let mut table = Table::new("stop", "From the last response to the exit", how, columns);
    let orderly: Vec<&str> = bench
        .servers
        .iter()
        .filter(|server| server.stops_in_order())
        .map(|server| server.name)
        .collect();
    let failures = bench
        .with(&orderly)
        .alternate(runs, "stop", |server, round| {
            let mut running = server.start(everywhere(bench))?;
            let took = last_response_to_exit(&mut running)?;
            table.push(server.name, round, &[Some(took.as_secs_f64() * 1e3)]);
            Ok(())
        });
    table.notes.extend(failures);
    table.goal_at_most(0, 2.0, "median under 2 ms");
    table
}

fn last_response_to_exit(running: &mut Running) -> Result<Duration> {
    let mut stream = TcpStream::connect(running.address)?;
    stream.set_read_timeout(Some(STOPPED_WITHIN))?;
    stream.write_all(SLOW.as_bytes())?;
    thread::sleep(STOP_AFTER);
    running.tell_to_stop()?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    // The body's last byte ends the response; all routes of this kind say the same, or end the stream.
    let answered = loop {
        let read = stream.read(&mut buffer)?;
        let now = Instant::now();
        answer.extend_from_slice(&buffer[..read]);
        if read == 0 || is_whole(&answer) {
            break now;
        }
    };
    ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "the request under way was not answered"
    );
    drop(stream);
    // The end may even come first: the response is then still on its way to us.
    Ok(running
        .wait(STOPPED_WITHIN)?
        .saturating_duration_since(answered))
}

/// Whether all of a response with a length, or all chunks of one without, are there.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    length.map_or_else(
        || body.ends_with("0\r\n\r\n"),
        |length| body.len() >= length,
    )
}

fn with_idle_connections(bench: &Bench) -> Table {
    let how = format!(
        "{IDLE} connections, idle for 1 s after a request each, when the server is told to stop; from the signal to \
         the process's end. Ours with `--linger 0`. The floor closes its sockets one after another with close(2) and \
         exits: the bare loop. {} threads, not pinned, {} rounds.",
        bench.cores, bench.rounds
    );
    let columns = vec![Column::new("signal to exit", "ms", Better::Lower, true)];
    let mut table = Table::new(
        "stop-idle",
        "15,000 idle connections to the exit",
        how,
        columns,
    );
    let mut names: Vec<&str> = bench
        .servers
        .iter()
        .filter(|server| server.stops_in_order())
        .map(|server| server.name)
        .collect();
    names.push(FLOOR);
    let failures = bench
        .with(&names)
        .alternate(bench.rounds, "stop-idle", |server, round| {
            let took = idle_to_exit(bench, server)?;
            table.push(server.name, round, &[Some(took.as_secs_f64() * 1e3)]);
            Ok(())
        });
    table.notes.extend(failures);
    table.goal_ratio(0, FLOOR, 1.5, "at most 1.5x a bare close loop");
    table
}

fn idle_to_exit(bench: &Bench, server: &Server) -> Result<Duration> {
    let mut running = server.start(Start {
        linger_none: true,
        ..everywhere(bench)
    })?;
    let held = bench.load.hold(running.address, IDLE, "one")?;
    thread::sleep(Duration::from_secs(1));
    let told = Instant::now();
    running.tell_to_stop()?;
    let took = running
        .wait(STOPPED_WITHIN)?
        .saturating_duration_since(told);
    drop(held);
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn a_response_is_whole_at_its_length_or_last_chunk() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
        assert!(!is_whole(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
        ));
        assert!(is_whole(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        ));
    }
}
