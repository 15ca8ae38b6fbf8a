//! `curtsy reload`: asks a supervisor for a reload and says what came of it.

use clap::Args;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

/// Have a supervisor start the next generation.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 the new generation serves · 1 the old one was kept, with the reason · 2 usage"
)]
pub(crate) struct Arguments {
    /// The supervisor's control socket, as given to `curtsy run`
    #[arg(long, value_name = "FILE")]
    control: PathBuf,
}

/// Asks, tells, and ends as the reload did.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match ask(arguments) {
        Ok(Ok(done)) => {
            say(&done);
            ExitCode::SUCCESS
        }
        Ok(Err(why)) => {
            say(&format!("not reloaded: {why}"));
            ExitCode::from(1)
        }
        Err(error) => {
            let place = arguments.control.display();
            say(&format!(
                "not reloaded, as far as is known: {place}: {error}"
            ));
            ExitCode::from(1)
        }
    }
}

fn ask(arguments: &Arguments) -> io::Result<Result<String, String>> {
    let mut stream = UnixStream::connect(&arguments.control)?;
    stream.write_all(b"{\"command\":\"reload\"}\n")?;
    for line in BufReader::new(stream).lines() {
        let answer: Value = serde_json::from_str(&line?)?;
        let text = |key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
        if let Some(progress) = text("progress") {
            say(&progress);
        } else if let Some(done) = text("ok") {
            return Ok(Ok(done));
        } else if let Some(why) = text("error") {
            return Ok(Err(why));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the supervisor ended before it told",
    ))
}

#[allow(
    clippy::print_stderr,
    reason = "this is the command's conversation with its user"
)]
fn say(text: &str) {
    eprintln!("curtsy: {text}");
}
