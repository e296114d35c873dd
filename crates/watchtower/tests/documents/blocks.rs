//! The fenced blocks of a document, as `main` describes them. Runs nothing.

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
    pub(crate) output: Option<String>,
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
    let mut lines = document.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let text: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .map(|line| format!("{line}\n"))
            .collect();
        let script = |text| Script { line: index + 1, text, output: None };
        let words: Vec<&str> = info.split(' ').collect();
        blocks.push(match words[..] {
            ["sh"] => Block::Run(script(text)),
            ["sh", "serve"] => Block::Serve(script(text)),
            ["sh", "listen"] => Block::Listen(script(text)),
            ["sh", "unchecked"] => Block::Other,
            ["sh", ..] => panic!("line {}: {info} is none of the blocks there are", index + 1),
            ["output"] => {
                expect(&mut blocks, text, index + 1);
                continue;
            }
            [_, name] => Block::File(File { name: name.to_owned(), text }),
            _ => Block::Other,
        });
    }
    blocks
}

/// Notes what the last block prints.
fn expect(blocks: &mut [Block], text: String, line: usize) {
    match blocks.last_mut() {
        Some(Block::Run(script) | Block::Listen(script)) => script.output = Some(text),
        Some(Block::Other) => {}
        _ => panic!("line {line}: an output after nothing that prints it"),
    }
}

/// Whether `text` is what `shown` says, in which each `…` stands for anything. White space at the
/// ends does not count.
pub(crate) fn fits(shown: &str, text: &str) -> bool {
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
";
    let script = Script { line: 2, text: "one\ntwo\n".into(), output: Some("1…\n".into()) };
    let file = File { name: "receive.py".into(), text: "pass\n".into() };
    assert_eq!(read(document), [Block::Run(script), Block::File(file), Block::Other, Block::Other]);
}
