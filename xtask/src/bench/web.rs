//! The framework: its router against others, its requests against other frameworks', and what it costs more than the
//! server under it.
//!
//! The router's tables are measured in process, one program per language; the others as requests are, by wrk and the
//! server's processor time. In all of them the row `curtsy` is the framework with `Engine::new()`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Bench,
    load::Ask,
    requests::pinned,
    server::{self, Running, Server},
    table::{Better, Column, OURS, Table},
};

/// A body that every peer accepts.
pub(super) const SIGNUP: &str = r#"{"name":"ada","email":"ada@example.org","age":36}"#;

/// One that every peer refuses: so that nobody is fast because it does not look.
const REFUSED: &str = r#"{"name":"ada","email":"ada@example.org","age":3}"#;

const ROUTES: &str = "crates/curtsy-web/tests/web/github.txt";

/// Passes over the 203 routes in a round.
const PASSES: u32 = 2_000;

/// The framework's server, and the same answers without a framework.
const FRAMEWORK: &str = "curtsy-web";
const BARE: &str = "curtsy-bare";

const PEERS: [&str; 3] = ["actix", "axum", "go-gin"];

/// What a route with a parameter may cost over the bare server, in microseconds of processor time.
const OVERHEAD_MAX_US: f64 = 0.3;

/// The five tables of the framework.
pub(super) fn web(bench: &Bench, root: &Path, work: &Path) -> Result<Vec<Table>> {
    let mut tables = routers(bench, root, work)?;
    tables.extend(frameworks(bench, root, work)?);
    Ok(tables)
}

/// Nanoseconds and allocations for each of the GitHub API's routes.
fn routers(bench: &Bench, root: &Path, work: &Path) -> Result<Vec<Table>> {
    let peers = root.join("bench/peers");
    server::cargo(&["build", "--release", "--package", "inprocess"], &peers)?;
    let program = |name: &str| peers.join("target/release").join(name);
    let gin = server::go("go-gin-router", root, work);
    let rounds = bench.rounds;
    let columns = |unit: &str| {
        vec![
            Column::new("time", &format!("ns/{unit}"), Better::Lower, true),
            Column::new("allocations", &format!("1/{unit}"), Better::Lower, false),
        ]
    };
    let how = format!(
        "The GitHub API's 203 routes, each asked for once a pass, {PASSES} passes in each of {rounds} rounds, in process. \
         A tree for each method. actix's router is a list of patterns, and allocates a map for each attempt."
    );
    let title = "Router alone: the GitHub API's 203 routes";
    let mut alone = Table::new("router", title, how, columns("match"));
    let how = format!(
        "The same routes, {rounds} rounds, as a function from request to answer, without a socket, handlers that do \
         nothing. curtsy and axum use a request up and make a response; gin is asked as its own benchmark asks it: the \
         request is there already, the writer keeps nothing, and so no response is made. Its row is to be read beside \
         the router alone: no less of it can be measured."
    );
    let title = "Router and framework, in process";
    let mut whole = Table::new("router-whole", title, how, columns("request"));
    let counts = lines(&program("counts"), &[])?;
    for round in 0..rounds {
        eprintln!("router: round {}/{rounds}", round + 1);
        let mut found = lines(&program("routes"), &[&PASSES.to_string()])?;
        match &gin {
            Ok(gin) => {
                let routes = root.join(ROUTES).display().to_string();
                found.extend(lines(gin, &[&routes])?);
            }
            Err(error) => whole.notes.push(format!("gin was skipped: {error:#}")),
        }
        for line in &found {
            let (what, of) = (text(line, "what")?, text(line, "of")?);
            let counted = counts
                .iter()
                .find(|count| count["what"] == what && count["of"] == of)
                .unwrap_or(line);
            let samples = [line["ns"].as_f64(), counted["allocations"].as_f64()];
            match what {
                "match" => alone.push(of, round, &samples),
                _ => whole.push(of, round, &samples),
            }
        }
    }
    alone.goal_first("first, or within 3% of the first, in every column");
    alone.goal_at_most(1, 0.0, "no allocation per match");
    whole.goal_below(0, &["axum"], "below axum");
    Ok(vec![alone, whole])
}

/// What a program writes: a value on each line.
fn lines(program: &PathBuf, arguments: &[&str]) -> Result<Vec<Value>> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{} ended with {}: {}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let line = |line| serde_json::from_str(line).context("a line that is no JSON");
    said.lines().map(line).collect()
}

fn text<'l>(line: &'l Value, name: &str) -> Result<&'l str> {
    line[name].as_str().with_context(|| format!("no {name}"))
}

/// JSON out, JSON in with validation, and the framework against the bare server.
fn frameworks(bench: &Bench, root: &Path, work: &Path) -> Result<Vec<Table>> {
    let mut all = bench.with(&PEERS);
    let mut skipped = Vec::new();
    for name in [FRAMEWORK, BARE] {
        all.servers.insert(0, Server::build(name, root, work)?);
    }
    all.servers.retain(|server| {
        let running = server.start(pinned(bench));
        let fits = running.and_then(|running| check(&running));
        if let Err(error) = &fits {
            eprintln!("\n!!! SKIPPED {}: {error:#}\n", server.name);
            skipped.push(format!("{} was skipped: {error:#}", server.name));
        }
        fits.is_ok()
    });
    let mut json = table(
        bench,
        "web-json",
        "A parameter, answered as JSON",
        Ask::Json,
    );
    let mut signup = table(
        bench,
        "web-signup",
        "JSON read, validated, and answered as JSON",
        Ask::Signup,
    );
    let mut over = table(
        bench,
        "web-overhead",
        "The framework over the bare server: a parameter, answered as text",
        Ask::User,
    );
    let failures = all.alternate(bench.rounds, "web", |server, round| {
        let running = server.start(pinned(bench))?;
        // Branches, buffers and allocators settle before anything counts.
        bench.load.wrk(running.address, Ask::Json, 64, 1)?;
        let row = if server.name == FRAMEWORK {
            OURS
        } else {
            server.name
        };
        for (ask, table) in [
            (Ask::Json, &mut json),
            (Ask::Signup, &mut signup),
            (Ask::User, &mut over),
        ] {
            if ask == Ask::User && ![FRAMEWORK, BARE].contains(&server.name) {
                continue;
            }
            let before = running.cpu_seconds()?;
            let found = bench.load.wrk(running.address, ask, 64, bench.seconds)?;
            let cpu = (running.cpu_seconds()? - before) / found.requests * 1e6;
            if found.errors > 0.0 {
                table.notes.push(format!(
                    "{row}: {} errors in round {}",
                    found.errors,
                    round + 1
                ));
            }
            table.push(
                row,
                round,
                &[Some(cpu), Some(found.requests / found.seconds)],
            );
        }
        Ok(())
    });
    for table in [&mut json, &mut signup] {
        table.goal_below(0, &PEERS, "CPU per request below actix, axum and gin");
    }
    over.goal_difference(
        0,
        BARE,
        OVERHEAD_MAX_US,
        "at most 0.3 us over the bare server",
    );
    let mut tables = vec![json, signup, over];
    for table in &mut tables {
        table.notes.extend(failures.iter().chain(&skipped).cloned());
    }
    Ok(tables)
}

/// Every route that is measured, and a body that must not pass.
fn check(running: &Running) -> Result<()> {
    let address = running.address;
    server::expect(address, "GET", "/user/ada", "", "Hello, ada!")?;
    server::expect(
        address,
        "GET",
        "/json/ada",
        "",
        r#"{"name":"ada","admin":false}"#,
    )?;
    server::expect(
        address,
        "POST",
        "/signup",
        SIGNUP,
        r#"{"name":"ada","admin":false}"#,
    )?;
    let refused = server::expect(address, "POST", "/signup", REFUSED, "");
    let refused = refused
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    ensure!(
        refused.contains(" 400"),
        "a wrong signup is not refused: {refused}"
    );
    Ok(())
}

fn table(bench: &Bench, id: &str, title: &str, ask: Ask) -> Table {
    let asked = if ask == Ask::Signup {
        format!("POST /signup with {SIGNUP}")
    } else {
        format!("GET {}", ask.path())
    };
    let how = format!(
        "{asked}; wrk, one thread, 64 keep-alive connections, {} alternating rounds of {} s. {} CPU is the user and \
         system time of the server's process over the run, divided by the requests answered in it. `{BARE}` is \
         Curtsy's server with a function that compares paths; `curtsy` is the framework on it, with `Engine::new()`. \
         Validation is each one's own: garde, gin's binding, the crate validator for axum and actix.",
        bench.rounds,
        bench.seconds,
        bench.pinning()
    );
    let columns = vec![
        Column::new("CPU", "us/request", Better::Lower, true),
        Column::new("rate", "requests/s", Better::Higher, false),
    ];
    Table::new(id, title, how, columns)
}
