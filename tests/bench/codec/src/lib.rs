//! `crates/mqtt` beside the MQTT codecs of the registry: the same bytes in, the same questions.
//!
//! | module | subject |
//! |---|---|
//! | [`codecs`] | each codec behind one trait |
//! | [`inputs`] | the packets that are measured, and a stream of them |
//! | [`malformed`] | packets that no peer may send, and the reason code that each earns |
//! | [`promises`] | headers that announce more than ever comes |
//! | [`allocations`] | an allocator that counts |

pub mod allocations;
pub mod codecs;
pub mod inputs;
pub mod malformed;
pub mod promises;

/// Bytes from a string of hexadecimal digits and, within quotes, plain characters: `30 03 0001 'a'`.
///
/// # Panics
/// Anything else.
#[must_use]
pub fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            out.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: String = part.chars().filter(|c| !c.is_whitespace()).collect();
        for at in (0..digits.len()).step_by(2) {
            out.push(u8::from_str_radix(&digits[at..at + 2], 16).expect("two hexadecimal digits"));
        }
    }
    out
}
