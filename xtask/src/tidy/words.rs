//! Lengths, names and words: no file that is too long or vaguely named, and no text that leans on the world outside.

use super::{
    Finding,
    tree::{Tree, extension_of, name_of},
};

/// Lines a file may have, its tests included. About 500 before the tests is the habit; this is the wall.
const LINES_MAX: usize = 900;

/// What people write by hand. Lock files and results are as long as they are.
const WRITTEN_BY_HAND: [&str; 12] = [
    "rs", "go", "py", "sh", "lua", "js", "css", "html", "md", "toml", "yml", "yaml",
];

/// A file is named after its noun; these are not nouns of anything.
const VAGUE: [&str; 7] = [
    "util.rs",
    "utils.rs",
    "helper.rs",
    "helpers.rs",
    "manager.rs",
    "common.rs",
    "misc.rs",
];

/// The same as directories of modules.
const VAGUE_DIRECTORIES: [&str; 7] = [
    "util", "utils", "helper", "helpers", "manager", "common", "misc",
];

/// Names of places outside of the repository, which has to stand alone. Split so that this file does not name them.
const OUTSIDE: [&str; 6] = [
    concat!("crates", ".io"),
    concat!("registry", ".npmjs.org"),
    concat!("pypi", ".org"),
    concat!("deb", ".debian.org"),
    concat!("../", "shared"),
    concat!("/work/", "shared"),
];

/// As [`OUTSIDE`], but a field or a method of that name is somebody's right.
const OUTSIDE_DIRECTORY: &str = concat!(".lib", "rary");

/// No file written by hand is over [`LINES_MAX`].
pub(super) fn long_files(tree: &Tree) -> Vec<Finding> {
    let written = tree
        .texts()
        .filter(|(path, _)| extension_of(path).is_some_and(|ext| WRITTEN_BY_HAND.contains(&ext)));
    let counted = written.map(|(path, text)| (path, text.lines().count()));
    let long = counted.filter(|&(_, lines)| lines > LINES_MAX);
    long.map(|(path, lines)| Finding::new(path, 0, format!("{lines} lines, at most {LINES_MAX}")))
        .collect()
}

/// No file, and no directory of modules, has a name that says nothing.
pub(super) fn vague_names(tree: &Tree) -> Vec<Finding> {
    let vague = |path: &str| {
        let directories = path
            .rsplit_once('/')
            .map_or("", |(directories, _)| directories);
        VAGUE.contains(&name_of(path))
            // `tests/common/mod.rs` is cargo's own idiom for what test binaries share, and still says nothing.
            || directories.split('/').any(|directory| VAGUE_DIRECTORIES.contains(&directory))
    };
    let rust = tree.paths().filter(|path| extension_of(path) == Some("rs"));
    rust.filter(|path| vague(path))
        .map(|path| Finding::new(path, 0, "name it after its noun"))
        .collect()
}

/// No text names a registry's host or a directory outside of the repository. `Cargo.lock` cannot help it.
pub(super) fn outside_names(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree
        .texts()
        .filter(|(path, _)| name_of(path) != "Cargo.lock")
    {
        for (index, line) in text.lines().enumerate() {
            let named = OUTSIDE.into_iter().filter(|name| line.contains(name));
            let directory = names_directory(line).then_some(OUTSIDE_DIRECTORY);
            findings.extend(
                named
                    .chain(directory)
                    .map(|name| Finding::new(path, index + 1, format!("names `{name}`"))),
            );
        }
    }
    findings
}

fn names_directory(line: &str) -> bool {
    line.match_indices(OUTSIDE_DIRECTORY).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + OUTSIDE_DIRECTORY.len()..].chars().next();
        let part_of_code =
            before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ')' | ']' | '?'));
        let longer = after.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part_of_code && !longer
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::made_up::tree;
    use super::*;

    fn paths(findings: &[Finding]) -> Vec<&str> {
        findings
            .iter()
            .map(|finding| finding.path.as_str())
            .collect()
    }

    #[test]
    fn a_long_file_is_found() {
        let (at, over) = ("x\n".repeat(LINES_MAX), "x\n".repeat(LINES_MAX + 1));
        let findings = long_files(&tree(&[
            ("at.rs", &at),
            ("over.rs", &over),
            ("over.md", &over),
            ("Cargo.lock", &over),
        ]));
        assert_eq!(paths(&findings), ["over.md", "over.rs"]);
    }

    #[test]
    fn a_vague_name_is_found() {
        let findings = vague_names(&tree(&[
            ("src/utils.rs", ""),
            ("src/common/mod.rs", ""),
            ("tests/common.rs", ""),
            ("src/commonwealth.rs", ""),
            ("docs/common/a.md", ""),
        ]));
        assert_eq!(
            paths(&findings),
            ["src/common/mod.rs", "src/utils.rs", "tests/common.rs"]
        );
    }

    #[test]
    fn a_name_from_outside_is_found() {
        for name in OUTSIDE {
            let text = format!("fine\nsee https://{name}/x\n");
            let findings = outside_names(&tree(&[("a.md", &text), ("b/Cargo.lock", &text)]));
            assert_eq!(
                findings,
                [Finding::new("a.md", 2, format!("names `{name}`"))]
            );
        }
    }

    #[test]
    fn the_directory_is_found_and_a_field_is_not() {
        for bad in ["see /x/.LIB/y", "`.LIB`", ".LIB"] {
            let text = bad.replace(".LIB", OUTSIDE_DIRECTORY);
            assert_eq!(outside_names(&tree(&[("a.md", &text)])).len(), 1, "{text}");
        }
        for good in ["self.LIB", "a().LIB", ".LIBs", "a?.LIB"] {
            let text = good.replace(".LIB", OUTSIDE_DIRECTORY);
            assert!(
                outside_names(&tree(&[("a.rs", &text)])).is_empty(),
                "{text}"
            );
        }
    }
}
