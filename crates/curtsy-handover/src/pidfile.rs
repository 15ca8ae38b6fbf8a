//! The file that says which process serves.
//!
//! Invariant: a reader finds the old number or the new one, never half of one or none: a new file is renamed over the
//! old.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes the number, replacing what was there.
///
/// # Errors
/// What the file system says; the old file is untouched then.
pub fn write(path: &Path, pid: u32) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a directory"))?;
    // In the same directory, because a rename cannot cross file systems; with our own number, because two generations
    // may write at once.
    let mut temporary = name.to_owned();
    temporary.push(format!(".{pid}.new"));
    let temporary = path.with_file_name(temporary);
    let written = fs::File::create(&temporary).and_then(|mut file| {
        writeln!(file, "{pid}")?;
        file.sync_data()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

/// The number in the file, if there is one.
///
/// # Errors
/// What the file system says, and `InvalidData` for a file with something else in it.
pub fn read(path: &Path) -> io::Result<u32> {
    let text = fs::read_to_string(path)?;
    text.trim()
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Removes the file if it still names this process, and not its heir. Says whether it did.
///
/// # Errors
/// What the file system says; a file that is gone already is no error.
pub fn remove_own(path: &Path, pid: u32) -> io::Result<bool> {
    match read(path) {
        Ok(found) if found == pid => fs::remove_file(PathBuf::from(path)).map(|()| true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_whole_and_removed_by_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.pid");
        write(&path, 10).unwrap();
        write(&path, 20).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "20\n");
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left over"
        );
        assert!(!remove_own(&path, 10).unwrap());
        assert!(remove_own(&path, 20).unwrap());
        assert!(!remove_own(&path, 20).unwrap());
        assert!(write(&directory.path().join("missing/server.pid"), 1).is_err());
        fs::write(&path, "nonsense").unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
