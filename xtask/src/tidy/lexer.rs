//! Just enough of Rust's lexical grammar to tell code from comments and literals.
//!
//! [`code`] keeps every line where it was, so that a place in its result is a place in the source. Deliberately not a
//! parser: a check that needs one belongs in clippy.

/// `source` with comments and the insides of string and character literals blanked out.
pub(super) fn code(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match opening(&chars, at) {
            Opening::LineComment => line_comment(&chars, at),
            Opening::BlockComment => block_comment(&chars, at),
            Opening::Raw { hashes, quote } => raw_string(&chars, quote, hashes),
            Opening::String => quoted(&chars, at, '"'),
            Opening::Char => quoted(&chars, at, '\''),
            Opening::Code => {
                out.push(chars[at]);
                at += 1;
                continue;
            }
        };
        out.extend(
            chars[at..end]
                .iter()
                .map(|&c| if c == '\n' { '\n' } else { ' ' }),
        );
        at = end;
    }
    out
}

/// The lines (from 1) on which `word` stands by itself in `code`.
pub(super) fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    let stands_alone = |line: &str| {
        line.match_indices(word).any(|(start, _)| {
            let before = line[..start].chars().next_back();
            let after = line[start + word.len()..].chars().next();
            !before.is_some_and(in_word) && !after.is_some_and(in_word)
        })
    };
    code.lines()
        .enumerate()
        .filter(|(_, line)| stands_alone(line))
        .map(|(index, _)| index + 1)
        .collect()
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

enum Opening {
    LineComment,
    BlockComment,
    Raw { hashes: usize, quote: usize },
    String,
    Char,
    Code,
}

fn opening(chars: &[char], at: usize) -> Opening {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => Opening::LineComment,
        '/' if next == Some('*') => Opening::BlockComment,
        '"' => Opening::String,
        // 'a' and '\n' are characters, 'a without a closing quote is a lifetime.
        '\'' if next == Some('\\') || chars.get(at + 2) == Some(&'\'') => Opening::Char,
        'r' if !ends_in_word(chars, at) => {
            let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
            let quote = at + 1 + hashes;
            if chars.get(quote) == Some(&'"') {
                Opening::Raw { hashes, quote }
            } else {
                Opening::Code
            }
        }
        _ => Opening::Code,
    }
}

/// Whether what stands before `at` makes a word of it; `br"` and `cr"` are raw strings too.
fn ends_in_word(chars: &[char], at: usize) -> bool {
    let Some(&before) = at.checked_sub(1).and_then(|index| chars.get(index)) else {
        return false;
    };
    if matches!(before, 'b' | 'c') {
        return at
            .checked_sub(2)
            .and_then(|index| chars.get(index))
            .is_some_and(|&c| in_word(c));
    }
    in_word(before)
}

fn line_comment(chars: &[char], at: usize) -> usize {
    chars[at..]
        .iter()
        .position(|&c| c == '\n')
        .map_or(chars.len(), |length| at + length)
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut here) = (0_usize, at);
    while here < chars.len() {
        match (chars[here], chars.get(here + 1)) {
            ('/', Some('*')) => (depth, here) = (depth + 1, here + 2),
            ('*', Some('/')) => (depth, here) = (depth - 1, here + 2),
            _ => here += 1,
        }
        if depth == 0 {
            return here;
        }
    }
    chars.len()
}

fn raw_string(chars: &[char], quote: usize, hashes: usize) -> usize {
    let closes = |at: usize| {
        chars[at] == '"'
            && chars[at + 1..]
                .iter()
                .take_while(|&&c| c == '#')
                .take(hashes)
                .count()
                == hashes
    };
    (quote + 1..chars.len())
        .find(|&at| closes(at))
        .map_or(chars.len(), |at| at + 1 + hashes)
}

fn quoted(chars: &[char], at: usize, quote: char) -> usize {
    let mut here = at + 1;
    while here < chars.len() {
        match chars[here] {
            '\\' => here += 2,
            c if c == quote => return here + 1,
            _ => here += 1,
        }
    }
    chars.len()
}

#[cfg(test)]
mod tests {
    use super::{code, lines_with_word};

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let source = concat!(
            "let a = \"unsafe \\\" unsafe\"; // unsafe\n",
            "/* unsafe /* unsafe */ unsafe\n */ let b = br##\"unsafe\"# unsafe\"##;\n",
            "let c: &'a str = r\"unsafe\\\"; let d = '\"'; let e = '\\''; real unsafe\n",
        );
        let code = code(source);
        assert_eq!(code.lines().count(), source.lines().count());
        assert_eq!(lines_with_word(&code, "unsafe"), [4]);
    }

    #[test]
    fn a_word_is_not_part_of_another() {
        assert!(lines_with_word("forbid(unsafe_code) not_unsafe", "unsafe").is_empty());
        assert_eq!(lines_with_word("a\n#[unsafe(no_mangle)]", "unsafe"), [2]);
    }

    #[test]
    fn what_does_not_end_is_blanked_to_the_end() {
        for source in ["\"unsafe", "/* unsafe", "r#\"unsafe\"", "'\\"] {
            assert!(
                lines_with_word(&code(source), "unsafe").is_empty(),
                "{source}"
            );
        }
    }
}
