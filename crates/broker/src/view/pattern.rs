//! Names with `*` for any characters, as operators look for clients and users.

/// Whether `text` is what `pattern` stands for.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        // The first place that fits leaves most for the others.
        let Some(place) = text.find(part) else { return false };
        text = &text[place + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("meter-17", "meter-17", true),
            ("meter-17", "meter-170", false),
            ("*", "", true),
            ("meter-*", "meter-", true),
            ("meter-*", "xmeter-1", false),
            ("*-17", "meter-17", true),
            ("*-17", "meter-17x", false),
            ("m*er*7", "meter-17", true),
            ("m*er*er", "meter", false),
            ("a*ba", "aba", true),
            ("a*aa", "aa", false),
            ("", "", true),
            ("", "a", false),
            ("ü*ü", "ü-ü", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
