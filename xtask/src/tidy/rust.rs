//! What Rust sources must and must not say: where `unsafe` may stand, how a file begins, nothing left unfinished.

use super::{
    Finding,
    lexer::{code, lines_with_word},
    tree::Tree,
};

/// The only crate with `unsafe` in it.
const UNSAFE_HOME: &str = "crates/curtsy-sys/";

/// `unsafe` stands only in its home, and every other library forbids it.
pub(super) fn unsafe_code(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree
        .texts_of("rs")
        .filter(|(path, _)| !path.starts_with(UNSAFE_HOME))
    {
        let code = code(text);
        let places = lines_with_word(&code, "unsafe");
        findings.extend(
            places
                .into_iter()
                .map(|line| Finding::new(path, line, format!("`unsafe` outside of {UNSAFE_HOME}"))),
        );
        let squeezed: String = code.split_whitespace().collect();
        if path.ends_with("src/lib.rs") && !squeezed.contains("#![forbid(unsafe_code)]") {
            findings.push(Finding::new(path, 0, "lacks #![forbid(unsafe_code)]"));
        }
    }
    findings
}

/// Every file begins by saying what it is.
pub(super) fn module_docs(tree: &Tree) -> Vec<Finding> {
    let silent = tree
        .texts_of("rs")
        .filter(|(_, text)| !text.starts_with("//!"));
    silent
        .map(|(path, _)| Finding::new(path, 1, "does not begin with `//!`"))
        .collect()
}

/// No placeholder, and no test that is not run.
pub(super) fn unfinished(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts_of("rs") {
        for (index, line) in code(text).lines().enumerate() {
            let squeezed: String = line.split_whitespace().collect();
            for placeholder in ["todo!(", "unimplemented!(", "#[ignore"] {
                if squeezed.contains(placeholder) {
                    findings.push(Finding::new(
                        path,
                        index + 1,
                        format!("`{placeholder}` is unfinished work"),
                    ));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tree::made_up::tree;
    use super::*;

    #[test]
    fn unsafe_is_found_outside_of_its_home_only() {
        let clean = "//! x\n#![forbid(unsafe_code)]\n";
        let dirty = "//! unsafe in words\n// unsafe too\nfn f() { unsafe { g() } }\n";
        let findings = unsafe_code(&tree(&[
            ("crates/curtsy-sys/src/lib.rs", dirty),
            ("crates/a/src/lib.rs", clean),
            ("crates/a/src/b.rs", dirty),
        ]));
        assert_eq!(
            findings,
            [Finding::new(
                "crates/a/src/b.rs",
                3,
                "`unsafe` outside of crates/curtsy-sys/"
            )]
        );
    }

    #[test]
    fn a_library_that_does_not_forbid_unsafe_is_found() {
        let findings = unsafe_code(&tree(&[
            (
                "crates/a/src/lib.rs",
                "//! Says #![forbid(unsafe_code)] only in words.\n",
            ),
            ("crates/b/src/lib.rs", "//! x\n#![forbid( unsafe_code )]\n"),
            ("crates/b/src/c.rs", "//! x\n"),
        ]));
        assert_eq!(
            findings,
            [Finding::new(
                "crates/a/src/lib.rs",
                0,
                "lacks #![forbid(unsafe_code)]"
            )]
        );
    }

    #[test]
    fn a_file_that_says_nothing_about_itself_is_found() {
        let findings = module_docs(&tree(&[
            ("a.rs", "//! A.\n"),
            ("b.rs", "// b\n"),
            ("c.rs", "use x;\n//! C.\n"),
            ("d.md", "d"),
        ]));
        let paths: Vec<_> = findings
            .iter()
            .map(|finding| finding.path.as_str())
            .collect();
        assert_eq!(paths, ["b.rs", "c.rs"]);
    }

    #[test]
    fn placeholders_and_skipped_tests_are_found() {
        let text = concat!(
            "//! todo!( in words is fine\nfn a() { to",
            "do!() }\nfn b() { unimple",
            "mented! (\"x\") }\n",
            "#[ig",
            "nore = \"slow\"]\nfn c() { d(\"todo!(\") }\n",
        );
        let lines: Vec<_> = unfinished(&tree(&[("a.rs", text)]))
            .iter()
            .map(|finding| finding.line)
            .collect();
        assert_eq!(lines, [2, 3, 4]);
    }
}
