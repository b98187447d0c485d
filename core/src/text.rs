//! Text that somebody else wrote, such as a plugin's log line, made fit to stand in a line of ours.
//!
//! Invariant: what comes out is one line, with no character that a terminal, a log viewer or the eye takes
//! for anything but itself. Ordinary writing of any language stays as it is. Idempotent.

use std::{borrow::Cow, fmt::Write as _};

/// Lines of a process's standard error that say why it ended.
pub const LAST_LINES: usize = 3;

/// A longer line is cut: it is for people.
pub const MAX_LINE: usize = 500;

/// `text` with its line ends, control characters and marks of writing direction written out, as
/// `\n` or `\u{202e}`.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if is_unsafe(c) => {
                // Writing to a string cannot fail.
                write!(line, "\\u{{{:x}}}", u32::from(c)).ok();
            }
            c => line.push(c),
        }
    }
    Cow::Owned(line)
}

/// The same, and at most `max` bytes of it, cut between characters.
pub fn short_line(text: &str, max: usize) -> String {
    // What is escaped only grows: more of the text than this is never needed.
    let text = &text[..text.floor_char_boundary(max)];
    let mut line = one_line(text).into_owned();
    line.truncate(line.floor_char_boundary(max));
    line
}

/// The last lines of an output, for people.
pub fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join(" | ");
    short_line(&last, LAST_LINES * MAX_LINE)
}

/// What could end a line, move a cursor, turn the writing around or hide between other characters.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Line and paragraph separators.
            '\u{2028}' | '\u{2029}'
            // Marks, embeddings, overrides and isolates of writing direction.
            | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Without width or meaning: soft hyphen, word joiner and invisible operators, byte order mark,
            // annotations, tags. The joiners U+200C and U+200D are part of words in Persian and of emoji.
            | '\u{00ad}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_forge_a_line_is_written_out() {
        for (text, line) in [
            ("car: 3 \"objects\" in C:\\clips", "car: 3 \"objects\" in C:\\clips"),
            ("Straße, 道路, طريق, 👨‍👩‍👧", "Straße, 道路, طريق, 👨‍👩‍👧"),
            ("a\n2026 ERROR forged", "a\\n2026 ERROR forged"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\u{0}"),
            ("\u{1b}[2J\u{9b}31m", "\\u{1b}[2J\\u{9b}31m"),
            ("\u{202e}txt\u{2066}", "\\u{202e}txt\\u{2066}"),
            ("a\u{2028}b\u{85}c\u{feff}\u{e0041}", "a\\u{2028}b\\u{85}c\\u{feff}\\u{e0041}"),
        ] {
            assert_eq!(one_line(text), line);
        }
        assert_eq!(short_line("é\n\n", 3), "é\\");
        assert_eq!(short_line("éé", 3), "é");
        assert_eq!(short_line("ab", 2), "ab");
    }

    proptest! {
        #[test]
        fn it_is_one_line_and_stays_as_it_is(text: String, max in 0_usize..64) {
            let line = one_line(&text);
            prop_assert!(line.lines().count() <= 1 && !line.contains(is_unsafe));
            prop_assert_eq!(one_line(&line), line.clone());
            let short = short_line(&text, max);
            prop_assert!(short.len() <= max && line.starts_with(&short));
        }
    }
}
