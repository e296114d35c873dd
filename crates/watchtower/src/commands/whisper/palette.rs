//! Which colours there are on a terminal, and whether there are any.

use std::env;

use clap::ValueEnum;

/// When colours are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Whatever the output is.
    Always,
    /// Not at all.
    Never,
}

impl Colour {
    /// Whether there are colours on an output that is a terminal, or none.
    pub(super) fn is_on(self, is_terminal: bool) -> bool {
        match self {
            Self::Auto => is_terminal && wants_colour(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// <https://no-color.org>
fn wants_colour() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Colours of the 256 of a terminal, whose contrast is at least 3.5 to black and to white alike.
/// Red is for warnings.
const NICKS: [u8; 14] = [166, 130, 100, 64, 28, 30, 32, 27, 63, 98, 134, 164, 162, 132];

/// A way in which text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// One of the colours of nicks.
    Nick(u8),
    /// Beside the point.
    Dim,
    /// A nick that is verified.
    Good,
    /// To be looked at.
    Warning,
    /// Names the reader.
    Bold,
}

impl Look {
    /// The look of a nick as it is shown: the same everywhere and always.
    pub(super) fn of_nick(nick: &str) -> Self {
        // FNV-1a: the standard library's hash may be another one in its next version.
        let hash = nick.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::Nick(NICKS[(hash % NICKS.len() as u64) as usize])
    }

    /// The text in this look, if there are colours.
    pub(super) fn paint(self, text: &str, colours: bool) -> String {
        if !colours || text.is_empty() {
            return text.to_owned();
        }
        let code = match self {
            Self::Nick(colour) => format!("38;5;{colour}"),
            Self::Dim => "2".to_owned(),
            Self::Good => "38;5;28".to_owned(),
            Self::Warning => "1;38;5;160".to_owned(),
            Self::Bold => "1".to_owned(),
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nick_has_the_same_colour_everywhere_and_always() {
        assert_eq!(Look::of_nick("goldy"), Look::Nick(32));
        assert_eq!(Look::of_nick("phil"), Look::Nick(134));
        let several: std::collections::HashSet<String> =
            (0..100).map(|n| Look::of_nick(&format!("nick{n}")).paint("x", true)).collect();
        assert_eq!(several.len(), NICKS.len());
    }

    #[test]
    fn without_colours_nothing_is_added() {
        assert_eq!(Look::Warning.paint("x", false), "x");
        assert_eq!(Look::Warning.paint("x", true), "\x1b[1;38;5;160mx\x1b[0m");
    }

    #[test]
    fn colours_may_be_asked_for_and_refused() {
        assert!(Colour::Always.is_on(false) && !Colour::Never.is_on(true) && !Colour::Auto.is_on(false));
    }

    /// The contrast of a colour of the 6×6×6 cube to black and to white, as WCAG defines it.
    #[test]
    fn nicks_can_be_read_on_black_and_on_white() {
        for colour in NICKS {
            let cube = usize::from(colour - 16);
            let channel = |level: usize| {
                let value = f64::from([0_u8, 95, 135, 175, 215, 255][level]) / 255.0;
                if value <= 0.03928 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            let light = 0.2126 * channel(cube / 36)
                + 0.7152 * channel(cube / 6 % 6)
                + 0.0722 * channel(cube % 6)
                + 0.05;
            assert!(light / 0.05 >= 3.5 && 1.05 / light >= 3.5, "{colour}");
        }
    }
}
