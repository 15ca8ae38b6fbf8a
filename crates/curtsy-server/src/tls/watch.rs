//! Watching the certificates' files.
//!
//! By looking at them every now and then: what renews certificates writes them in place, renames
//! them into place, or moves a link to a directory of theirs, and a look sees all of it alike.

use crate::handle::Handle;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::sleep;

/// What tells one state of a file from another; `None` if it cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

type Stamps = Vec<(PathBuf, Option<Stamp>)>;

/// Reloads the certificates of all listeners after their files have changed, for as long as the
/// server runs. Files that change while they are looked at, chain first and key later, are looked
/// at again: a reload that fails is tried again after the next change.
pub(crate) async fn watch(handle: Handle, every: Duration) {
    // Nothing is known at first: the files may have changed since they were read.
    let mut known = Stamps::new();
    loop {
        let now = look(&handle).await;
        if now != known {
            known = now;
            reload(&handle).await;
        }
        sleep(every).await;
    }
}

async fn reload(handle: &Handle) {
    let reloading = handle.clone();
    let reloaded = tokio::task::spawn_blocking(move || reloading.reload_certificates()).await;
    match reloaded {
        Ok(Ok(())) => tracing::info!("the certificates were read again"),
        Ok(Err(error)) => {
            tracing::error!(%error, "the certificates cannot be used; the old ones stay");
        }
        Err(error) => tracing::error!(%error, "the certificates could not be reloaded"),
    }
}

async fn look(handle: &Handle) -> Stamps {
    let files = handle.certificate_files();
    let looked = tokio::task::spawn_blocking(move || {
        let stamps = files.into_iter().map(|path| {
            let stamp = std::fs::metadata(&path).ok().map(|found| Stamp {
                device: found.dev(),
                inode: found.ino(),
                size: found.size(),
                modified: (found.mtime(), found.mtime_nsec()),
            });
            (path, stamp)
        });
        stamps.collect()
    });
    looked.await.unwrap_or_default()
}
