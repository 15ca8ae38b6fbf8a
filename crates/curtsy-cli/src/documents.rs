//! Shell completions and man pages, made from the same definitions as the commands themselves.

use clap::{Args, Command, CommandFactory, ValueEnum, ValueHint};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The shells that completions are made for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    /// source <(curtsy completions bash)
    Bash,
    /// curtsy completions zsh > ~/.zfunc/_curtsy
    Zsh,
    /// curtsy completions fish > ~/.config/fish/completions/curtsy.fish
    Fish,
}

/// Print a shell's completions of these commands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Completions {
    shell: Shell,
}

/// Write the man pages, one for each command, into a directory.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: curtsy man /usr/local/share/man/man1, and then man curtsy-drain")]
pub(crate) struct Man {
    /// Made if it is not there
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
}

pub(crate) fn completions(arguments: &Completions) -> ExitCode {
    let mut text = Vec::new();
    let mut command = visible();
    let shell = match arguments.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(shell, &mut command, "curtsy", &mut text);
    let mut out = io::stdout().lock();
    match out.write_all(&text).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("cannot print: {error}")),
    }
}

pub(crate) fn man(arguments: &Man) -> ExitCode {
    // `curtsy.1`, `curtsy-drain.1` and so on; none of what is hidden.
    let written = std::fs::create_dir_all(&arguments.directory)
        .and_then(|()| clap_mangen::generate_to(crate::Arguments::command(), &arguments.directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let place = arguments.directory.display();
            failed(&format!("cannot write man pages into {place}: {error}"))
        }
    }
}

/// The commands without those that are nobody's to call: what makes completions does not leave them out.
fn visible() -> Command {
    let all = crate::Arguments::command();
    let shown = all.get_subcommands().filter(|below| !below.is_hide_set());
    Command::new("curtsy")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .subcommands(shown.cloned())
}

fn failed(text: &str) -> ExitCode {
    crate::voice::say(&format!("curtsy: {text}\n"));
    ExitCode::from(1)
}
