//! `cargo xtask bench`: builds ours and the peers, loads them in alternating rounds, and writes what it found.
//!
//! Nothing is a single run, and no server is measured apart from those it is compared with: a round measures each of
//! them once, beginning with another one each time. Deliberately absent: any network but loopback, any process that
//! is not started here, and any number that was not measured in the run that reports it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, ensure};

mod chart;
mod clock;
mod ends;
mod load;
mod loss;
mod memory;
mod process;
mod readme;
mod report;
mod requests;
mod restart;
mod server;
mod table;
mod tls;
mod web;

use load::Load;
use server::{NAMES, Server, Start};
use table::{Outcome, Table};

/// What to measure, and how long.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Which tables: requests, tracking, idle, silent, wake, stop, drain, restart, web, tls. All of them without a name.
    #[arg(value_enum)]
    tables: Vec<Which>,
    /// Alternating rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds of load per server, kind and round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=60))]
    seconds: u16,
    /// Only these servers, separated by commas: curtsy, floor, hyper-tpc, axum, actix, ntex, nginx, go-nethttp, go-gin.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Of these tables only the ones with these ids, as their charts' files are named: requests-64, tls-requests.
    #[arg(long, value_name = "ID", value_delimiter = ',', requires = "tables")]
    table: Vec<String>,
    /// Two rounds of one second, to see that everything works; written to bench/work/, never to the results.
    #[arg(long)]
    quick: bool,
    /// Fail when a goal is not met, or could not be measured.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Requests,
    Tracking,
    Idle,
    Silent,
    Wake,
    Stop,
    Drain,
    Restart,
    Web,
    Tls,
}

const ALL: [Which; 10] = [
    Which::Requests,
    Which::Tracking,
    Which::Idle,
    Which::Silent,
    Which::Wake,
    Which::Stop,
    Which::Drain,
    Which::Restart,
    Which::Web,
    Which::Tls,
];

/// More rounds of these take long and tell little: memory hardly varies.
const MEMORY_ROUNDS_MAX: usize = 3;

/// Everything a table needs.
struct Bench {
    servers: Vec<Server>,
    load: std::rc::Rc<Load>,
    cores: usize,
    rounds: usize,
    seconds: u64,
    quick: bool,
    /// Only these tables, if there are any.
    ids: Vec<String>,
    root: std::rc::Rc<Path>,
}

/// Measures and writes; false when `--check` found a goal that is not met.
///
/// # Errors
/// When there is nothing to measure, no load to measure with, or nowhere to write to.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let work = root.join("bench/work");
    fs::create_dir_all(&work).context("creating bench/work")?;
    for name in &options.only {
        ensure!(
            NAMES.contains(&name.as_str()),
            "no server is named {name:?}; there are {}",
            NAMES.join(", ")
        );
    }
    let (bench, skipped) = Bench::prepare(root, &work, options)?;
    let wanted = if options.tables.is_empty() {
        &ALL[..]
    } else {
        &options.tables
    };
    let load_before = report::load_average();
    let mut tables = Vec::new();
    for which in wanted {
        tables.extend(match which {
            Which::Requests => requests::requests(&bench)?,
            Which::Tracking => requests::tracking(&bench, root, &work)?,
            Which::Idle => memory::idle(&bench)?,
            Which::Silent => memory::silent(&bench)?,
            Which::Wake => ends::wake(&bench)?,
            Which::Stop => ends::stop(&bench)?,
            Which::Drain => loss::drain(&bench)?,
            Which::Restart => restart::restart(&bench)?,
            Which::Web => web::web(&bench, root, &work)?,
            Which::Tls => tls::tls(&bench, root, &work)?,
        });
    }
    tables.retain(|table| bench.wants(&table.id));
    ensure!(
        !tables.is_empty(),
        "no table has the id {}",
        options.table.join(" or ")
    );
    for table in &mut tables {
        table.notes.extend(skipped.iter().cloned());
        table.notes.sort();
        table.notes.dedup();
        table.rows.sort_by_key(|row| {
            NAMES
                .iter()
                .position(|name| *name == row.server)
                .unwrap_or(NAMES.len())
        });
    }
    let directory = if options.quick {
        work.join("quick")
    } else {
        root.join("bench/results")
    };
    let results = report::write(&directory, tables.clone(), &load_before)?;
    for table in &tables {
        println!("\n{}", report::markdown(table, None));
    }
    println!("written to {}", directory.display());
    if options.quick {
        println!("README.md is left alone: this was a quick run");
    } else {
        readme::update(root, &results)?;
    }
    let missed: Vec<_> = tables
        .iter()
        .flat_map(|table| &table.goals)
        .filter(|goal| goal.outcome != Outcome::Met)
        .collect();
    println!("{} goals are not met or not measured", missed.len());
    Ok(!options.check || missed.is_empty())
}

impl Bench {
    /// Whether the table with that id is to be measured.
    fn wants(&self, id: &str) -> bool {
        self.ids.is_empty() || self.ids.iter().any(|wanted| wanted == id)
    }

    /// Builds everything, and says loudly what is missing.
    fn prepare(root: &Path, work: &Path, options: &Options) -> Result<(Self, Vec<String>)> {
        let cores = thread::available_parallelism()?.get();
        let (_, load_core) = pinned_cores(cores).unzip();
        let load = Load::build(root, work, load_core)?;
        let (mut servers, mut skipped) = (Vec::new(), Vec::new());
        let wanted = NAMES.iter().filter(|name| {
            options.only.is_empty() || options.only.iter().any(|only| only == *name)
        });
        for name in wanted {
            let ready = Server::build(name, root, work).and_then(|server| {
                let running = server.start(Start {
                    threads: 1,
                    core: None,
                    linger_none: false,
                })?;
                server.check(&running)?;
                Ok(server)
            });
            match ready {
                Ok(server) => servers.push(server),
                Err(error) => {
                    eprintln!("\n!!! SKIPPED {name}: {error:#}\n");
                    skipped.push(format!("{name} was skipped: {error:#}"));
                }
            }
        }
        ensure!(!servers.is_empty(), "there is no server to measure");
        let (rounds, seconds) = if options.quick {
            (2, 1)
        } else {
            (options.rounds.into(), options.seconds.into())
        };
        let bench = Self {
            servers,
            load: load.into(),
            cores,
            rounds,
            seconds,
            quick: options.quick,
            ids: options.table.clone(),
            root: root.into(),
        };
        Ok((bench, skipped))
    }

    /// The same with only the named servers.
    fn with(&self, names: &[&str]) -> Self {
        let servers = self
            .servers
            .iter()
            .filter(|server| names.contains(&server.name))
            .cloned()
            .collect();
        Self {
            servers,
            load: self.load.clone(),
            root: self.root.clone(),
            ids: self.ids.clone(),
            ..*self
        }
    }

    /// Measures every server once a round, beginning with the next one each time. Returns what went wrong.
    fn alternate(
        &self,
        rounds: usize,
        what: &str,
        mut measure: impl FnMut(&Server, usize) -> Result<()>,
    ) -> Vec<String> {
        let mut failures = Vec::new();
        for round in 0..rounds {
            let (later, first) = self.servers.split_at(round % self.servers.len().max(1));
            for server in first.iter().chain(later) {
                eprintln!("{what}: round {}/{rounds}, {}", round + 1, server.name);
                if let Err(error) = measure(server, round) {
                    eprintln!("\n!!! {what}: {} FAILED: {error:#}\n", server.name);
                    failures.push(format!(
                        "{}: failed in round {}: {error:#}",
                        server.name,
                        round + 1
                    ));
                }
            }
        }
        failures
    }

    /// The repository.
    fn root(&self) -> &Path {
        &self.root
    }

    /// Where to write what is needed for a while.
    fn work(&self) -> PathBuf {
        self.root.join("bench/work")
    }

    fn memory_rounds(&self) -> usize {
        self.rounds
            .min(if self.quick { 1 } else { MEMORY_ROUNDS_MAX })
    }

    fn server_core(&self) -> Option<usize> {
        pinned_cores(self.cores).map(|(server, _)| server)
    }

    fn pinning(&self) -> String {
        pinned_cores(self.cores).map_or_else(
            || "There is one core, shared by server and load.".to_owned(),
            |(server, load)| {
                format!(
                    "The server has one thread and core {server} to itself, the load core {load}."
                )
            },
        )
    }
}

/// One core for the server and another for the load, if there are two.
fn pinned_cores(cores: usize) -> Option<(usize, usize)> {
    (cores > 1).then_some((0, 1))
}

/// Where charts and results lie.
fn chart_name(date: &str, table: &Table) -> PathBuf {
    PathBuf::from(format!("{date}-{}.svg", table.id))
}
