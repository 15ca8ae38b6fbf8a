//! The commands that steer a running server over its control socket.

use clap::Args;
use curtsy::{BoxError, Control, ModeName};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Whom to steer.
#[derive(Args, Clone, Debug)]
pub(crate) struct Whom {
    /// The server's control socket [default: the only one in $XDG_RUNTIME_DIR, or else /tmp]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

/// Switch a listener to another mode while it is in use.
#[derive(Args, Clone, Debug)]
pub(crate) struct Switch {
    /// The listener: `main`, unless it was given another name
    name: String,
    /// plain, tls or both
    mode: ModeName,
    #[command(flatten)]
    whom: Whom,
}

/// Let a server read its certificates' files again.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReloadCertificates {
    #[command(flatten)]
    whom: Whom,
}

/// Switches.
pub(crate) fn switch(arguments: &Switch) -> ExitCode {
    run(async {
        let mut server = arguments.whom.connect().await?;
        server.switch(&arguments.name, arguments.mode).await?;
        Ok(format!("{} speaks {} now", arguments.name, arguments.mode))
    })
}

/// Reloads.
pub(crate) fn reload_certificates(arguments: &ReloadCertificates) -> ExitCode {
    run(async {
        let mut server = arguments.whom.connect().await?;
        server.reload_certificates().await?;
        Ok("the certificates were read again".to_owned())
    })
}

impl Whom {
    async fn connect(&self) -> Result<Control, BoxError> {
        let path = match &self.control {
            Some(path) => path.clone(),
            None => only_one(&default_directory())?,
        };
        Ok(Control::connect(path).await?)
    }
}

fn default_directory() -> PathBuf {
    let path = curtsy::control_path(0);
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// The control socket in `directory`, if there is exactly one.
fn only_one(directory: &Path) -> Result<PathBuf, String> {
    let place = directory.display();
    let listed = std::fs::read_dir(directory)
        .map_err(|error| format!("cannot look for servers in {place}: {error}"))?;
    let mut found: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("curtsy-") && name.ends_with(".sock"))
        })
        .collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(format!(
            "no server was found in {place}; name its socket with --control"
        )),
        several => {
            let names = several.iter().map(|path| path.display().to_string());
            let names = names.collect::<Vec<_>>().join(", ");
            Err(format!(
                "there are several servers; name one with --control: {names}"
            ))
        }
    }
}

#[allow(
    clippy::print_stderr,
    reason = "this is the command's conversation with its user"
)]
fn run(what: impl Future<Output = Result<String, BoxError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(what),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(text) => {
            eprintln!("curtsy: {text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("curtsy: {error}");
            ExitCode::from(1)
        }
    }
}
