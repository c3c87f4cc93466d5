//! Makes lines that contain names of database objects printable.

/// Replaces some characters with escapes such as `\n`: control characters, separators of lines and paragraphs, and
/// characters that embed, override or isolate the direction of the text. A quoted name may contain any character, so a
/// name could otherwise forge a line of the output, such as one that says that the database has no differences from the
/// manifest.
pub(crate) fn escape_unprintable(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let changes_layout = matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || changes_layout {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}
