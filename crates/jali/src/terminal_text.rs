//! Text for a terminal: names come from files that others made, and a terminal obeys control
//! characters.

use std::borrow::Cow;

/// Returns whether a terminal obeys a character instead of showing it: control characters, and
/// those that turn the direction of text round.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the text with every character escaped that a terminal would obey, except for ends of
/// lines and tabs.
pub fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| acts(c) && !matches!(c, '\n' | '\t');
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Returns JSON with every character escaped, in JSON's way, that a terminal would obey; the values
/// stay the same.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    let hidden = |c: char| acts(c) && !matches!(c, '\n' | '\t');
    if !json.contains(hidden) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if hidden(c) { out += &format!("\\u{:04x}", u32::from(c)) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        assert_eq!(visible("fine\n\tä"), "fine\n\tä");
        assert_eq!(visible("a\u{1b}[2Jb\rc\u{9b}d\u{202e}e"), "a\\u{1b}[2Jb\\u{d}c\\u{9b}d\\u{202e}e");
        let json = serde_json::to_string_pretty(&["x\u{9b}y\u{202e}", "z\u{7f}"]).unwrap();
        let shown = visible_json(&json);
        assert!(!shown.contains(|c: char| acts(c) && c != '\n'));
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), ["x\u{9b}y\u{202e}", "z\u{7f}"]);
    }
}
