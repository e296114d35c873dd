//! Reading an input as a sequence of steps, in two forms: for what is said in bytes, and for
//! what is said in text.

/// Steps in bytes: each begins with one byte that says who does what.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Script<'a> {
        Script(input)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Two bytes, the lower one first; what is missing is 0.
    pub(crate) fn number(&mut self) -> usize {
        let low = self.byte().unwrap_or_default();
        usize::from(u16::from_le_bytes([low, self.byte().unwrap_or_default()]))
    }

    /// A length of one byte, and as many bytes as it says, or as there are.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte().unwrap_or_default()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }
}

/// Steps in text: each is a line, and its first two bytes say what is done, and by whom.
pub(crate) fn lines(input: &[u8]) -> impl Iterator<Item = (u8, usize, &[u8])> {
    input.split(|byte| *byte == b'\n').filter_map(|line| match line {
        [what, who, rest @ ..] => Some((*what, usize::from(*who), rest)),
        [what] => Some((*what, 0, &[][..])),
        [] => None,
    })
}
