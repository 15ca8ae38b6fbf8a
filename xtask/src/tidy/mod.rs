//! `cargo xtask tidy`: the invariants of the repository that no compiler checks.
//!
//! A check is a pure function from a [`Tree`] (paths and texts) to findings, so that each is tested on a made-up tree
//! that breaks it. Only [`run`] touches git, cargo and the disk. Deliberately absent: anything that rewrites a file.

use std::{fmt, path::Path};

use anyhow::Result;

mod decisions;
mod layers;
mod lexer;
mod links;
mod rust;
mod tree;
mod words;

use tree::Tree;

/// One broken invariant, at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    path: String,
    /// Counted from 1; 0 when the finding is about the file as a whole.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// Runs every check over the repository at `root`; true when nothing was found.
///
/// # Errors
/// When git, cargo or a file cannot be read: then nothing is known, which is not the same as tidy.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let tree = Tree::read(root)?;
    let crates = layers::crates(root)?;
    let mut findings = Vec::new();
    findings.extend(layers::check(&tree, &crates));
    findings.extend(rust::unsafe_code(&tree));
    findings.extend(rust::module_docs(&tree));
    findings.extend(rust::unfinished(&tree));
    findings.extend(words::long_files(&tree));
    findings.extend(words::vague_names(&tree));
    findings.extend(words::outside_names(&tree));
    findings.extend(links::check(&tree));
    findings.extend(decisions::check(&tree));
    for finding in &findings {
        eprintln!("{finding}");
    }
    if findings.is_empty() {
        println!(
            "tidy: {} files, {} crates, nothing to mend",
            tree.paths().count(),
            crates.len()
        );
    } else {
        eprintln!("tidy: {} to mend", findings.len());
    }
    Ok(findings.is_empty())
}
