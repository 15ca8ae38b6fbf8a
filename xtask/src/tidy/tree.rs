//! The files of the repository as plain data: paths relative to the root, with `/`, and their text.
//!
//! Holds what git tracks and what it would track (new files that are not ignored), so that a mistake is found before
//! it is committed. A file that is not UTF-8 has a path and no text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// Paths and texts.
#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<String, Option<String>>,
    directories: BTreeSet<String>,
}

impl Tree {
    /// Reads what git knows below `root`.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let listing = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root)
            .output()
            .context("git ls-files")?;
        ensure!(
            listing.status.success(),
            "git ls-files: {}",
            String::from_utf8_lossy(&listing.stderr).trim()
        );
        let mut tree = Self::default();
        for path in listing
            .stdout
            .split(|&byte| byte == 0)
            .filter(|path| !path.is_empty())
        {
            let path = std::str::from_utf8(path).context("a tracked path is not UTF-8")?;
            let full = root.join(path);
            // Deleted but not yet committed: it is on its way out.
            if !full.is_file() {
                continue;
            }
            let bytes = fs::read(&full).with_context(|| format!("reading {path}"))?;
            tree.insert(path, String::from_utf8(bytes).ok());
        }
        Ok(tree)
    }

    fn insert(&mut self, path: &str, text: Option<String>) {
        let mut directory = path;
        while let Some((parent, _)) = directory.rsplit_once('/') {
            self.directories.insert(parent.to_owned());
            directory = parent;
        }
        self.files.insert(path.to_owned(), text);
    }

    /// Every path, sorted.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Every file that is text, sorted by path.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// Every text whose path ends in `.extension`.
    pub(super) fn texts_of<'a>(
        &'a self,
        extension: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.texts()
            .filter(move |(path, _)| extension_of(path) == Some(extension))
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// Whether `path` is a file or a directory of the tree; the root is `""`.
    pub(super) fn has(&self, path: &str) -> bool {
        path.is_empty() || self.files.contains_key(path) || self.directories.contains(path)
    }
}

/// What follows the last dot of the file's name.
pub(super) fn extension_of(path: &str) -> Option<&str> {
    name_of(path)
        .rsplit_once('.')
        .map(|(_, extension)| extension)
}

/// The last part of a path.
pub(super) fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

#[cfg(test)]
pub(super) mod made_up {
    //! Small trees for the tests of the checks.
    use super::Tree;

    pub(in crate::tidy) fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.insert(path, Some((*text).to_owned()));
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::{extension_of, made_up, name_of};

    #[test]
    fn a_tree_knows_its_directories() {
        let tree = made_up::tree(&[("a/b/c.rs", ""), ("d.md", "")]);
        for there in ["", "a", "a/b", "a/b/c.rs", "d.md"] {
            assert!(tree.has(there), "{there}");
        }
        for absent in ["b", "a/b/c", "d"] {
            assert!(!tree.has(absent), "{absent}");
        }
    }

    #[test]
    fn names_and_extensions() {
        assert_eq!(name_of("a/b.rs"), "b.rs");
        assert_eq!(name_of("b.rs"), "b.rs");
        assert_eq!(extension_of("a.b/c"), None);
        assert_eq!(extension_of("a.b/c.d.rs"), Some("rs"));
    }
}
