//! Which server is meant: the one that was named, or the only one there is.

use clap::{Args, ValueHint};
use curtsy::BoxError;
use curtsy::control::{Control, Status, control_paths};
use futures_util::future::join_all;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a server that was not named may take to say who it is.
const ASK_MOST: Duration = Duration::from_secs(5);

/// Whom to steer.
#[derive(Args, Clone, Debug)]
pub(crate) struct Whom {
    /// The control socket of the server or supervisor
    /// [default: the only one of this user's in $XDG_RUNTIME_DIR, or else in /tmp]
    #[arg(long, value_name = "PATH", env = "CURTSY_CONTROL", value_hint = ValueHint::FilePath)]
    pub(crate) control: Option<PathBuf>,
}

/// A server that was found.
struct Found {
    path: PathBuf,
    /// Why not, if it does not say.
    status: Result<Status, String>,
}

impl Whom {
    pub(crate) async fn connect(&self) -> Result<Control, BoxError> {
        let path = match &self.control {
            Some(path) => path.clone(),
            None => only_one().await?,
        };
        Ok(Control::connect(path).await?)
    }
}

async fn only_one() -> Result<PathBuf, BoxError> {
    let somewhere = curtsy::control_path(0);
    let place = somewhere.parent().unwrap_or(Path::new("/")).display();
    let paths =
        control_paths().map_err(|error| format!("cannot look for servers in {place}: {error}"))?;
    let found: Vec<Found> = join_all(paths.into_iter().map(look))
        .await
        .into_iter()
        .flatten()
        .collect();
    if found.is_empty() {
        return Err(
            format!("no server was found in {place}; name its socket with --control").into(),
        );
    }
    Ok(choose(&found)?.to_owned())
}

/// Who is there; nobody, if the socket is dead.
async fn look(path: PathBuf) -> Option<Found> {
    // One that is dead refuses at once.
    let mut control = Control::connect(&path).await.ok()?;
    let status = match tokio::time::timeout(ASK_MOST, control.status()).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("does not answer".to_owned()),
    };
    Some(Found { path, status })
}

/// The one that is meant by nobody being named: not a program behind a supervisor that is there, too,
/// and not an old process whose heir is.
fn choose(found: &[Found]) -> Result<&Path, String> {
    let known = || found.iter().filter_map(|one| one.status.as_ref().ok());
    let is_behind = |status: &Status| {
        known().any(|other| other.kind == "supervisor" && other.pid == status.parent)
    };
    let is_succeeded = |status: &Status| {
        let heir = status.restart.as_ref().filter(|r| r.step == "serves");
        heir.is_some_and(|heir| known().any(|other| Some(other.pid) == heir.pid))
    };
    let meant: Vec<&Found> = found
        .iter()
        .filter(|one| match &one.status {
            Ok(status) => !is_behind(status) && !is_succeeded(status),
            Err(_) => true,
        })
        .collect();
    if let [one] = meant.as_slice() {
        return Ok(&one.path);
    }
    let mut text = "there are several servers; name one with --control:".to_owned();
    for one in found {
        let path = one.path.display();
        // Writing to a string does not fail.
        let _ = match &one.status {
            Err(why) => write!(text, "\n  {path}  {why}"),
            Ok(status) => write!(
                text,
                "\n  {path}  {} pid {}, generation {}, {}{}",
                status.kind,
                status.pid,
                status.generation,
                status.phase,
                addresses(status)
            ),
        };
    }
    Err(text)
}

fn addresses(status: &Status) -> String {
    let listeners = status.listeners.iter();
    listeners
        .map(|listener| format!(", {} on {}", listener.name, listener.address))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Found, choose};
    use curtsy::control::{RestartStatus, Status};

    fn found(path: &str, kind: &str, pid: u32, parent: u32) -> Found {
        let mut status = Status::default();
        status.kind = kind.to_owned();
        (status.pid, status.parent) = (pid, parent);
        Found {
            path: path.into(),
            status: Ok(status),
        }
    }

    #[test]
    fn the_only_one_is_meant() {
        let one = [found("a", "server", 10, 1)];
        assert_eq!(choose(&one).unwrap().to_str(), Some("a"));
        let two = [found("a", "server", 10, 1), found("b", "server", 11, 1)];
        let text = choose(&two).unwrap_err();
        assert!(
            text.contains("several") && text.contains("b  server pid 11"),
            "{text}"
        );
    }

    #[test]
    fn a_supervisor_is_meant_and_not_what_is_behind_it() {
        let both = [found("a", "server", 10, 9), found("b", "supervisor", 9, 1)];
        assert_eq!(choose(&both).unwrap().to_str(), Some("b"));
    }

    #[test]
    fn the_heir_is_meant_once_it_serves() {
        let mut old = found("a", "server", 10, 1);
        let set = |old: &mut Found, step: &str| {
            let status = old.status.as_mut().unwrap();
            status.restart = Some(RestartStatus {
                step: step.to_owned(),
                generation: 1,
                pid: Some(11),
            });
        };
        set(&mut old, "ready");
        let heir = || found("b", "server", 11, 10);
        assert!(choose(&[old, heir()]).is_err());
        let mut old = found("a", "server", 10, 1);
        set(&mut old, "serves");
        assert_eq!(choose(&[old, heir()]).unwrap().to_str(), Some("b"));
    }

    #[test]
    fn one_that_does_not_answer_is_told_of() {
        let silent = Found {
            path: "a".into(),
            status: Err("does not answer".to_owned()),
        };
        let text = choose(&[silent, found("b", "server", 1, 1)]).unwrap_err();
        assert!(text.contains("a  does not answer"), "{text}");
    }
}
