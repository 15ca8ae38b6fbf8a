//! Starting a program with an exact set of descriptors.
//!
//! Invariants: the child has the descriptors named here, at the numbers named here, and 0, 1 and 2; nothing else of this
//! process, close-on-exec or not. It starts with an empty signal mask and with `SIGPIPE` at its default. A program that
//! cannot be executed is an error here, not an exit status later.
//!
//! `posix_spawn(3)` and not `fork(2)`: the parent's page tables are not copied, so a server with gigabytes of memory and
//! thousands of connections does not stall for it; and no user code runs between the two halves.
//! `std::process::Command` cannot place descriptors at chosen numbers: its own error pipe may sit on one of them.
//!
//! Deliberately absent: process groups, user and group changes, piping of standard input and output.

use std::ffi::{CString, OsString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What to start, and what it may inherit.
#[derive(Debug)]
pub struct Spawn<'fd> {
    /// The file to execute. No search along `PATH`.
    pub program: PathBuf,
    /// The arguments, the program's name first.
    pub args: Vec<OsString>,
    /// The whole environment: nothing is added to it.
    pub vars: Vec<(OsString, OsString)>,
    /// Where it starts; this process's own directory if `None`.
    pub directory: Option<PathBuf>,
    /// What it inherits besides 0, 1 and 2: descriptor and number. A number of 0 to 2 replaces that stream.
    pub fds: Vec<(BorrowedFd<'fd>, RawFd)>,
}

impl Spawn<'_> {
    /// Starts it and gives back its number. The caller must wait for it, through [`crate::pidfd`] for instance.
    ///
    /// # Errors
    /// What execution says (`NotFound`, `PermissionDenied`, `ENOEXEC`), `InvalidInput` for a NUL inside a string or a
    /// number used twice, `EMFILE`.
    pub fn start(&self) -> io::Result<u32> {
        let program = c_string(self.program.as_os_str().to_owned())?;
        let args = self
            .args
            .iter()
            .cloned()
            .map(c_string)
            .collect::<io::Result<Vec<_>>>()?;
        let vars = self
            .vars
            .iter()
            .map(|(name, value)| assignment(name, value))
            .collect::<io::Result<Vec<_>>>()?;
        let directory = self
            .directory
            .clone()
            .map(|path| c_string(path.into_os_string()))
            .transpose()?;

        let last = self
            .fds
            .iter()
            .map(|(_, number)| *number)
            .max()
            .unwrap_or(2)
            .max(2);
        let mut numbers: Vec<RawFd> = self.fds.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.len() != self.fds.len() || numbers.first().is_some_and(|number| *number < 0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a descriptor number twice, or a negative one",
            ));
        }
        // Out of the way of every chosen number first, so that placing one cannot overwrite the source of another.
        let sources = self
            .fds
            .iter()
            .map(|(fd, _)| rustix::io::fcntl_dupfd_cloexec(fd, last + 1).map_err(io::Error::from))
            .collect::<io::Result<Vec<OwnedFd>>>()?;

        let mut actions = Actions::new()?;
        if let Some(directory) = &directory {
            actions.change_directory(directory)?;
        }
        for (source, (_, number)) in sources.iter().zip(&self.fds) {
            actions.place(source.as_fd(), *number)?;
        }
        for hole in (3..=last).filter(|number| numbers.binary_search(number).is_err()) {
            actions.close(hole)?;
        }
        actions.close_from(last + 1)?;
        let attributes = Attributes::new()?;
        spawn(&program, &args, &vars, &actions, &attributes)
    }
}

fn spawn(
    program: &CString,
    args: &[CString],
    vars: &[CString],
    actions: &Actions,
    attributes: &Attributes,
) -> io::Result<u32> {
    let pointers = |strings: &[CString]| -> Vec<*mut c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr().cast_mut())
            .chain([std::ptr::null_mut()])
            .collect()
    };
    let (args, vars) = (pointers(args), pointers(vars));
    let mut pid: libc::pid_t = 0;
    // SAFETY: the strings outlive the call, both arrays end with a null pointer, the actions and attributes were
    // initialised by their constructors, and the C library does not write through the `*mut` it asks for.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            args.as_ptr(),
            vars.as_ptr(),
        )
    };
    check(error)?;
    u32::try_from(pid).map_err(io::Error::other)
}

/// What the child does with its descriptors before it executes, in order.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given, and says so by returning zero.
        unsafe {
            check(libc::posix_spawn_file_actions_init(raw.as_mut_ptr()))?;
            Ok(Self(raw.assume_init()))
        }
    }

    fn place(&mut self, source: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
        // SAFETY: initialised in `new`; numbers are plain integers, checked by the C library.
        check(unsafe {
            libc::posix_spawn_file_actions_adddup2(&raw mut self.0, source.as_raw_fd(), number)
        })
    }

    fn close(&mut self, number: RawFd) -> io::Result<()> {
        // SAFETY: as above. Closing what is not open is no error in the child.
        check(unsafe { libc::posix_spawn_file_actions_addclose(&raw mut self.0, number) })
    }

    /// Closes everything from `number` up. Other C libraries have no such call: there, the rule that everything in this
    /// workspace is opened close-on-exec has to be enough.
    fn close_from(&mut self, number: RawFd) -> io::Result<()> {
        #[cfg(target_env = "gnu")]
        // SAFETY: as above.
        check(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(&raw mut self.0, number) })?;
        #[cfg(not(target_env = "gnu"))]
        let _ = number;
        Ok(())
    }

    fn change_directory(&mut self, directory: &CString) -> io::Result<()> {
        // SAFETY: as above; the C library copies the string.
        check(unsafe {
            libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, directory.as_ptr())
        })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// An empty signal mask and the default `SIGPIPE`: a child must not inherit that its parent ignores `SIGPIPE`.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given, and says so by returning zero.
        let mut this = unsafe {
            check(libc::posix_spawnattr_init(raw.as_mut_ptr()))?;
            Self(raw.assume_init())
        };
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: each set is initialised by the call before it is read, and copied into the attributes.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(
                &raw mut this.0,
                set.as_ptr(),
            ))?;
            libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
            check(libc::posix_spawnattr_setsigdefault(
                &raw mut this.0,
                set.as_ptr(),
            ))?;
            check(libc::posix_spawnattr_setflags(&raw mut this.0, flags))?;
        }
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

fn check(error: c_int) -> io::Result<()> {
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

fn c_string(string: OsString) -> io::Result<CString> {
    CString::new(string.into_vec())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn assignment(name: &OsString, value: &OsString) -> io::Result<CString> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(b'=');
    bytes.extend_from_slice(value.as_bytes());
    CString::new(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::pidfd;

    fn shell(script: &str, fds: Vec<(BorrowedFd<'_>, RawFd)>) -> (pidfd::Exit, String) {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut fds = fds;
        fds.push((writer.as_fd(), 1));
        let spawn = Spawn {
            program: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            vars: vec![("ONLY".into(), "this".into())],
            directory: Some("/".into()),
            fds,
        };
        let held = pidfd::open(spawn.start().unwrap()).unwrap();
        drop(writer);
        let mut out = String::new();
        std::fs::File::from(reader)
            .read_to_string(&mut out)
            .unwrap();
        let ended = rustix::event::PollFd::new(&held, rustix::event::PollFlags::IN);
        rustix::event::poll(&mut [ended], None).unwrap();
        (pidfd::reap(&held).unwrap().unwrap(), out)
    }

    #[test]
    fn only_what_is_named_is_inherited_and_at_its_number() {
        let (leak, _keep) = rustix::pipe::pipe().unwrap();
        let (a, a_writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&a_writer, b"from-five\n").unwrap();
        let (exit, out) = shell(
            "ls /proc/self/fd | tr '\\n' ' '; head -n 1 <&5; pwd; echo $ONLY",
            vec![(a.as_fd(), 5)],
        );
        // The listing's own directory is 3, the lowest that is free.
        assert_eq!(out, "0 1 2 3 5 from-five\n/\nthis\n", "{exit} {leak:?}");
        assert_eq!(exit, pidfd::Exit::Status(0));
    }

    #[test]
    fn numbers_may_cross_over_each_other() {
        let (a, a_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (b, b_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(&a_writer, b"a\n").unwrap();
        rustix::io::write(&b_writer, b"b\n").unwrap();
        // A shell names descriptors of one digit only: place each at the other's number when that is possible.
        let (x, y) = (a.as_raw_fd(), b.as_raw_fd());
        let (x, y) = if x < 10 && y < 10 { (y, x) } else { (4, 3) };
        let (_, out) = shell(
            &format!("head -n 1 <&{x}; head -n 1 <&{y}"),
            vec![(a.as_fd(), x), (b.as_fd(), y)],
        );
        assert_eq!(out, "a\nb\n");
    }

    #[test]
    fn what_cannot_be_executed_is_an_error_here() {
        let mut spawn = Spawn {
            program: "/nonexistent/program".into(),
            args: vec!["x".into()],
            vars: vec![],
            directory: None,
            fds: vec![],
        };
        assert_eq!(spawn.start().unwrap_err().kind(), io::ErrorKind::NotFound);
        spawn.program = "/etc/passwd".into();
        assert_eq!(
            spawn.start().unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        spawn.args = vec!["nul\0inside".into()];
        assert_eq!(
            spawn.start().unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
