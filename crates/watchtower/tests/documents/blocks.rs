//! The fenced blocks of a document, as `main` describes them. Runs nothing.

use serde_json::Value;

/// A block and what is to be done with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Run(Script),
    Serve(Script),
    Listen(Script),
    File(File),
    /// Nothing.
    Other,
}

/// Commands for a shell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Script {
    /// Of the fence, counted from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    /// What they print, if the document says so.
    pub(crate) output: Option<Output>,
}

/// What a document says that something prints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// This, see [`fits`].
    Text(String),
    /// Such JSON values, see [`is_alike`].
    Json(String),
    /// The same but for its numbers, see [`without_numbers`].
    Example(String),
}

/// A file to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// All blocks of a document, in order.
pub(crate) fn read(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut after_last = usize::MAX;
    let mut lines = document.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let text: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .map(|line| format!("{line}\n"))
            .collect();
        let after_this = index + text.lines().count() + 2;
        let script = |text| Script { line: index + 1, text, output: None };
        let words: Vec<&str> = info.split(' ').collect();
        let after_last = std::mem::replace(&mut after_last, after_this);
        blocks.push(match words[..] {
            ["sh"] => Block::Run(script(text)),
            ["sh", "serve"] => Block::Serve(script(text)),
            ["sh", "listen"] => Block::Listen(script(text)),
            ["sh", "unchecked"] => Block::Other,
            ["sh", ..] => panic!("line {}: {info} is none of the blocks there are", index + 1),
            ["output"] => {
                expect(&mut blocks, Output::Text(text), index + 1);
                continue;
            }
            ["output", "example"] => {
                expect(&mut blocks, Output::Example(text), index + 1);
                continue;
            }
            ["json"] if index == after_last => {
                expect(&mut blocks, Output::Json(text), index + 1);
                continue;
            }
            [_, name] => Block::File(File { name: name.to_owned(), text }),
            _ => Block::Other,
        });
    }
    blocks
}

/// Notes what the last block prints.
fn expect(blocks: &mut [Block], output: Output, line: usize) {
    match blocks.last_mut() {
        Some(Block::Run(script) | Block::Listen(script)) => script.output = Some(output),
        Some(Block::Other) => {}
        _ => panic!("line {line}: an output after nothing that prints it"),
    }
}

/// Whether `text` is what `shown` says, in which each `…` stands for anything. White space at the
/// ends does not count.
fn fits(shown: &str, text: &str) -> bool {
    let mut parts = shown.trim().split('…');
    let Some(mut rest) = text.trim().strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

impl Output {
    /// Whether `text` is what the document says.
    pub(crate) fn is_met_by(&self, text: &str) -> bool {
        match self {
            Output::Text(shown) => fits(shown, text),
            Output::Json(shown) => is_alike(shown, text),
            Output::Example(shown) => without_numbers(shown) == without_numbers(text),
        }
    }
}

/// A text with 0 for each of its numbers, hexadecimal ones included, as different ones stand there
/// each time; and without white space at its ends.
fn without_numbers(text: &str) -> String {
    let mut without = String::new();
    for piece in text.trim().split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let number = piece.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        let is_number = number.contains(|c: char| c.is_ascii_digit());
        without.push_str(if is_number { "0" } else { number });
        without.push_str(&piece[number.len()..]);
    }
    without
}

/// Whether both are as many JSON values, of the same kinds and with the same names in them:
/// numbers and texts are examples.
fn is_alike(shown: &str, text: &str) -> bool {
    fn shape(value: Value) -> Value {
        match value {
            Value::Number(_) => 0.into(),
            Value::String(_) => "".into(),
            Value::Array(items) => items.into_iter().map(shape).collect(),
            Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, shape(value))).collect(),
            other => other,
        }
    }
    let shapes = |text: &str| -> Option<Vec<Value>> {
        let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        values.map(|value| value.ok().map(shape)).collect()
    };
    let shown = shapes(shown);
    shown.is_some() && shown == shapes(text)
}

#[test]
fn json_is_compared_by_its_shape() {
    for (shown, text, expected) in [
        (r#"{"id":72}"#, r#"{"id":5}"#, true),
        (r#"{"id":72}"#, r#"{"error":"x","message":"y"}"#, false),
        (r#"{"id":72}"#, r#"{"id":"5"}"#, false),
        ("[1]", "[1,2]", false),
        ("[1]\n[\"a\"]", "[2][\"b\"]\n", true),
        ("[1]", "", false),
        ("", "", true),
        ("not", "not", false),
    ] {
        assert_eq!(is_alike(shown, text), expected, "{shown} {text}");
    }
}

#[test]
fn the_numbers_of_an_example_may_be_others() {
    for (text, expected) in [
        ("00048[ok] 2718281828!5d41402abc", "0[ok] 0!0"),
        ("\na bad face\n", "a bad face"),
        ("12", "0"),
        ("", ""),
    ] {
        assert_eq!(without_numbers(text), expected);
    }
}

#[test]
fn dots_stand_for_anything_and_the_rest_for_itself() {
    for (shown, text, expected) in [
        ("a", "a\n", true),
        ("a", "ab", false),
        ("a…", "ab", true),
        ("…b", "ab", true),
        ("a…c…e", "abcde", true),
        ("a…c…e", "ac\ne", true),
        ("a…c…e", "ace f", false),
        ("a…c…e", "aXe", false),
        ("ab…b", "ab", false),
        ("…", "", true),
    ] {
        assert_eq!(fits(shown, text), expected, "{shown} {text}");
    }
}

#[test]
fn a_block_is_told_by_its_fence() {
    let document = "\
text
```sh
one
two
```
prints

```output
1…
```
```python receive.py
pass
```
```sh unchecked
rm
```
```text
any
```
```sh
get
```
```json
{}
```

```json
[]
```
";
    let output = Some(Output::Text("1…\n".into()));
    let script = Script { line: 2, text: "one\ntwo\n".into(), output };
    let file = File { name: "receive.py".into(), text: "pass\n".into() };
    let get = Script { line: 20, text: "get\n".into(), output: Some(Output::Json("{}\n".into())) };
    let expected =
        [Block::Run(script), Block::File(file), Block::Other, Block::Other, Block::Run(get), Block::Other];
    assert_eq!(read(document), expected);
}
