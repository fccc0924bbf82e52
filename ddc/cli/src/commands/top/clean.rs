//! Texts from the network, made harmless for a terminal and short.

/// The longest text that is kept of anything a listener says, in characters.
pub(super) const LONGEST: usize = 300;

/// The text in one line of at most `longest` characters. What could steer a terminal or turn the reading direction
/// (escape sequences, control characters, bidirectional and invisible marks) becomes `?`; a line end becomes a blank.
pub(super) fn clean(text: &str, longest: usize) -> String {
    let mut out = String::new();
    for (count, character) in text.trim().chars().enumerate() {
        if count >= longest {
            out.push('…');
            break;
        }
        out.push(match character {
            '\n' | '\r' | '\t' => ' ',
            harmful if is_harmful(harmful) => '?',
            other => other,
        });
    }
    out
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
                // Marks that pile up on the character before them.
                | '\u{300}'..='\u{36f}' | '\u{20d0}'..='\u{20ff}' | '\u{1ab0}'..='\u{1aff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        let hostile = "a\u{1b}[2J\u{1b}]0;x\u{7}b\u{9b}31mc\u{202e}d\u{200b}e\u{7f}\u{0}";
        let cleaned = clean(hostile, 100);
        assert_eq!(cleaned, "a?[2J?]0;x?b?31mc?d?e??");
        assert!(!cleaned.chars().any(is_harmful));
        assert_eq!(clean("  two\r\nlines\t ", 100), "two  lines");
        assert_eq!(clean("Müller 漢字 →", 100), "Müller 漢字 →", "what people write stays");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdefg", 6), "abcdef…");
        assert_eq!(clean(&"\u{1b}".repeat(1_000_000), 3), "???…");
    }
}
