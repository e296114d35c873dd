//! Corpora as text: an input a line, with what does not print escaped as in Rust's byte strings.
//!
//! So a corpus is one file that can be read, changed by hand and compared.

use std::fmt::Write;

/// The inputs in a corpus.
///
/// # Errors
///
/// The line that is not escaped right, for a person.
pub fn parse(corpus: &str) -> Result<Vec<Vec<u8>>, String> {
    let line = |(index, line)| unescape(line).ok_or_else(|| format!("line {}: {line}", index + 1));
    corpus.lines().enumerate().map(line).collect()
}

/// A corpus of these inputs, sorted, each once.
#[must_use]
pub fn render(inputs: &[Vec<u8>]) -> String {
    let mut lines: Vec<String> = inputs.iter().map(|input| input.escape_ascii().to_string()).collect();
    lines.sort_by_key(|line| (line.len(), line.clone()));
    lines.dedup();
    lines.iter().fold(String::new(), |mut corpus, line| {
        // Writing to a string cannot fail.
        let _ = writeln!(corpus, "{line}");
        corpus
    })
}

fn unescape(line: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line.as_bytes();
    while let [first, behind @ ..] = rest {
        let (byte, behind) = match (first, behind) {
            (b'\\', [b'x', high, low, behind @ ..]) => (16 * digit(*high)? + digit(*low)?, behind),
            (b'\\', [b't', behind @ ..]) => (b'\t', behind),
            (b'\\', [b'r', behind @ ..]) => (b'\r', behind),
            (b'\\', [b'n', behind @ ..]) => (b'\n', behind),
            (b'\\', [same @ (b'\'' | b'"' | b'\\'), behind @ ..]) => (*same, behind),
            (b'\\', _) => return None,
            (byte, behind) => (*byte, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_that_was_written_is_read_as_it_was() {
        let inputs = vec![b"".to_vec(), b"R".to_vec(), (0..=255).collect()];
        assert_eq!(parse(&render(&inputs)), Ok(inputs));
    }

    #[test]
    fn a_line_that_is_not_escaped_right_is_named() {
        assert_eq!(parse("R\n\\q"), Err("line 2: \\q".to_owned()));
        assert_eq!(parse("\\x4"), Err("line 1: \\x4".to_owned()));
    }
}
