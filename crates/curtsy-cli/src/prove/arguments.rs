//! The command line of `curtsy prove`, and the plan that it means.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use curtsy_prove::{Error, Plan};

use crate::{duration, number};

/// Account for every request while something is done to the server.
///
/// Keeps the server at URL busy and retries nothing: each request is answered whole, or lost for a cause that is named. With
/// --while, a command (a reload, a restart) is run again and again meanwhile. It works against any HTTP server.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "See 'curtsy prove --help' for examples.",
    after_long_help = EXAMPLES
)]
pub(crate) struct Arguments {
    #[arg(help = "http://HOST[:PORT]/PATH, https://..., or unix:SOCKET[:PATH]")]
    pub(super) url: String,
    /// Connections at a time, each with one client
    #[arg(
        long,
        visible_alias = "connections",
        value_name = "N",
        default_value = "200",
        value_parser = number::at_least_one
    )]
    conns: NonZeroUsize,
    /// Pauses between an answer and the next request, in ms; the clients take turns in the list
    #[arg(long, value_name = "MS,...", value_delimiter = ',', default_value = "0,2,50", value_parser = milliseconds)]
    think: Vec<Duration>,
    /// How long to ask, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub(super) seconds: Duration,
    /// A shell command to run again and again meanwhile; implies --refused-is-loss
    #[arg(long = "while", value_name = "CMD")]
    pub(super) command: Option<String>,
    /// Before the first run of the command, and from each end to the next run
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse, requires = "command")]
    pub(super) pause: Duration,
    /// How long one run of the command may take; then it is killed, and has failed
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse, requires = "command")]
    pub(super) while_timeout: Duration,
    /// Speak HTTP/2, with so many clients on each connection
    #[arg(long, value_name = "STREAMS", value_parser = number::at_least_one, help_heading = "What is asked")]
    http2: Option<NonZeroUsize>,
    /// Speak WebSocket to a server that echoes, in messages of so many bytes
    #[arg(long, value_name = "BYTES", value_parser = bytes, conflicts_with_all = ["http2", "upload", "new_connections", "expect_status", "pids"], help_heading = "What is asked")]
    websocket: Option<u64>,
    /// POST a body of so many bytes (64k, 1M)
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = "What is asked")]
    upload: Option<u64>,
    /// A new connection for each request
    #[arg(long, help_heading = "What is asked")]
    new_connections: bool,
    /// Take any certificate, also one that nobody vouches for
    #[arg(long, help_heading = "What is asked")]
    insecure: bool,
    /// The time for one whole request, and for a connect
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, help_heading = "What counts")]
    timeout: Duration,
    /// A refused connection is a loss (by default it ends its client: the listener was closed)
    #[arg(long, help_heading = "What counts")]
    refused_is_loss: bool,
    /// The one status that is right [default: any of 200 to 399]
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(100..=999), help_heading = "What counts")]
    expect_status: Option<u16>,
    /// Tell the different answers apart, as `pid=7 generation=1` of the demo's /pid
    #[arg(long, help_heading = "The report")]
    pids: bool,
    /// Write the report as one JSON document
    #[arg(long, help_heading = "The report")]
    pub(super) json: bool,
    /// Draw the timeline into this file
    #[arg(long, value_name = "FILE", help_heading = "The report")]
    pub(super) svg: Option<PathBuf>,
}

impl Arguments {
    /// What clap cannot know about the values together.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.command.is_some() && self.pause >= self.seconds {
            return Err(format!(
                "the command would never run: the pause before it ({:?}) is no shorter than the run ({:?})",
                self.pause, self.seconds
            ));
        }
        if self.timeout.is_zero() {
            return Err("a timeout of 0 leaves no time for an answer".to_owned());
        }
        Ok(())
    }

    pub(super) fn connections(&self) -> usize {
        self.conns.get()
    }

    /// A service that is being reloaded is to be there all the time; one that is only watched may end.
    pub(super) fn is_refusal_a_loss(&self) -> bool {
        self.refused_is_loss || self.command.is_some()
    }

    /// The plan, without its end, which the session decides.
    pub(super) fn plan(&self) -> Result<Plan, Error> {
        let mut plan = match self.url.strip_prefix("unix:") {
            Some(socket) => {
                let (socket, path) = socket.split_once(':').unwrap_or((socket, "/"));
                Plan::to_unix(socket, path)
            }
            None => Plan::to(&self.url)?,
        };
        plan = plan
            .connections(self.conns.get())
            .think(self.think.iter().copied())
            .timeout(self.timeout);
        if let Some(streams) = self.http2 {
            plan = plan.http2(streams.get());
        }
        if let Some(bytes) = self.websocket {
            plan = plan.websocket(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        if let Some(bytes) = self.upload {
            plan = plan.upload(bytes);
        }
        if let Some(status) = self.expect_status {
            plan = plan.expect_status(status);
        }
        for (is_wanted, with) in [
            (
                self.new_connections,
                Plan::connection_per_request as fn(Plan) -> Plan,
            ),
            (self.insecure, Plan::insecure),
            (self.is_refusal_a_loss(), Plan::refused_is_loss),
            (self.pids, Plan::record_answers),
        ] {
            if is_wanted {
                plan = with(plan);
            }
        }
        Ok(plan)
    }
}

/// Ends the program as clap does for a wrong command line.
pub(super) fn usage(why: &str) -> ! {
    let mut command = crate::Arguments::command().bin_name("curtsy");
    command.build();
    let prove = command.find_subcommand("prove").cloned();
    prove
        .unwrap_or(command)
        .error(ErrorKind::ValueValidation, why)
        .exit()
}

/// `2` or `0.5` in milliseconds, or with a unit.
fn milliseconds(text: &str) -> Result<Duration, String> {
    in_units_of(Duration::from_millis(1), text)
}

/// `10` in seconds, or with a unit.
fn seconds(text: &str) -> Result<Duration, String> {
    match in_units_of(Duration::from_secs(1), text)? {
        Duration::ZERO => Err("a run needs some time".to_owned()),
        seconds => Ok(seconds),
    }
}

fn in_units_of(unit: Duration, text: &str) -> Result<Duration, String> {
    match text.trim().parse::<f64>() {
        Ok(number) => Duration::try_from_secs_f64(number * unit.as_secs_f64())
            .map_err(|error| error.to_string()),
        Err(_) => duration::parse(text.trim()),
    }
}

/// `1000`, `64k`, `1M`, `2G`: the units are powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "write a number of bytes: 1000, 64k, 1M".to_owned())
}

const EXAMPLES: &str = "\
Examples:
  Does a reload lose anything? Run it again and again for ten seconds under load:
    curtsy prove http://127.0.0.1:9000/ --while 'systemctl reload my-app'

  Half a minute, a hundred connections that wait 2 ms between two requests, the
  report for a program and a picture for people:
    curtsy prove http://127.0.0.1:9000/ --conns 100 --think 2 --seconds 30 \\
      --while 'nginx -s reload' --json --svg reload.svg

  Which process answers, and when does the new one take over?
    curtsy prove http://127.0.0.1:9000/pid --pids --while 'kill -HUP $(cat app.pid)'

  Stop a server by hand meanwhile: a closed port ends the run and is no loss.
    curtsy prove http://127.0.0.1:9000/ --seconds 60

  The other ways in:
    curtsy prove https://localhost:9443/ --insecure --http2 10 --conns 20
    curtsy prove http://127.0.0.1:9000/upload --upload 1M --conns 20
    curtsy prove http://127.0.0.1:9000/ws --websocket 100
    curtsy prove http://127.0.0.1:9000/ --new-connections --think 0
    curtsy prove unix:/run/my-app.sock:/health

A TIME has its unit: 500ms, 30s, 1m 30s; or it is 0.

Ctrl-C ends the run early, and the report is printed all the same; again, it ends
without one.

Exit codes:
  0  every request was answered, and the command never failed
  1  something was lost, the command failed, or the server could not be reached
  2  usage";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_unit_or_get_it() {
        assert_eq!(milliseconds("2").unwrap(), Duration::from_millis(2));
        assert_eq!(milliseconds("0.5").unwrap(), Duration::from_micros(500));
        assert_eq!(milliseconds("2ms").unwrap(), Duration::from_millis(2));
        assert_eq!(milliseconds("0").unwrap(), Duration::ZERO);
        assert_eq!(seconds("10").unwrap(), Duration::from_secs(10));
        assert_eq!(seconds("2m").unwrap(), Duration::from_secs(120));
        for wrong in ["", "-1", "nan", "inf", "soon", "1e400"] {
            assert!(milliseconds(wrong).is_err(), "{wrong}");
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        assert!(seconds("0").is_err());
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(bytes("1000").unwrap(), 1000);
        assert_eq!(bytes("64k").unwrap(), 64 << 10);
        assert_eq!(bytes("1M").unwrap(), 1 << 20);
        assert_eq!(bytes("2G").unwrap(), 2 << 30);
        for wrong in ["", "k", "-1", "1.5M", "1MB", "99999999999G"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
