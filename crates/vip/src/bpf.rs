//! Filters in the kernel's classic BPF: what the bytes of a frame must be for it to wake this program.

use socket2::SockFilter;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// Longer than any frame that is looked at.
const WHOLE: u32 = 0xffff;

/// How much of the frame is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Byte,
    Half,
    Word,
}

/// A filter in the making: every condition that was added must hold.
#[derive(Debug, Default)]
pub(crate) struct Program {
    code: Vec<Instruction>,
}

#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    if_equal: u8,
    if_other: u8,
    value: u32,
}

impl Program {
    /// The number at `at`, in the network's byte order, must be `value`.
    pub(crate) fn require(&mut self, width: Width, at: usize, value: u32) {
        self.compare((width, at, value), (1, 0));
        self.end(0);
    }

    /// The bytes at `at` must be these.
    pub(crate) fn require_bytes(&mut self, at: usize, bytes: &[u8]) {
        for (width, at, value) in pieces(at, bytes) {
            self.require(width, at, value);
        }
    }

    /// The bytes at `at` must not be these.
    pub(crate) fn refuse_bytes(&mut self, at: usize, bytes: &[u8]) {
        let pieces: Vec<_> = pieces(at, bytes).collect();
        for (done, piece) in pieces.iter().enumerate() {
            // One that differs passes over the other comparisons and the refusal.
            let rest = 2 * (pieces.len() - 1 - done) + 1;
            self.compare(*piece, (0, rest as u8));
        }
        self.end(0);
    }

    /// The bytes at `at` must be one of these, at most 20 of at most 16 bytes: a jump reaches over 255 instructions.
    pub(crate) fn require_one_of(&mut self, at: usize, choices: &[Vec<u8>]) {
        let length = |choice: &Vec<u8>| 2 * pieces(at, choice).count();
        for (index, choice) in choices.iter().enumerate() {
            let pieces: Vec<_> = pieces(at, choice).collect();
            // Past the other choices, and the refusal behind them.
            let found: usize = choices[index + 1..].iter().map(length).sum::<usize>() + 1;
            for (done, piece) in pieces.iter().enumerate() {
                let left = pieces.len() - 1 - done;
                let if_equal = if left == 0 { found } else { 0 };
                self.compare(*piece, (if_equal as u8, 2 * left as u8));
            }
        }
        self.end(0);
    }

    /// What the kernel takes.
    pub(crate) fn accept(mut self) -> Vec<SockFilter> {
        self.end(WHOLE);
        self.code.iter().map(|step| SockFilter::new(step.code, step.if_equal, step.if_other, step.value)).collect()
    }

    /// Two instructions; the jumps count from behind them.
    fn compare(&mut self, (width, at, value): (Width, usize, u32), (if_equal, if_other): (u8, u8)) {
        let load = match width {
            Width::Byte => LOAD_BYTE,
            Width::Half => LOAD_HALF,
            Width::Word => LOAD_WORD,
        };
        self.code.push(Instruction { code: load, if_equal: 0, if_other: 0, value: at as u32 });
        self.code.push(Instruction { code: JUMP_IF_EQUAL, if_equal, if_other, value });
    }

    fn end(&mut self, verdict: u32) {
        self.code.push(Instruction { code: RETURN, if_equal: 0, if_other: 0, value: verdict });
    }
}

/// `bytes` in words, then in half ones.
fn pieces(at: usize, bytes: &[u8]) -> impl Iterator<Item = (Width, usize, u32)> {
    bytes.chunks(4).enumerate().flat_map(move |(index, chunk)| {
        let at = at + 4 * index;
        if let Ok(word) = <[u8; 4]>::try_from(chunk) {
            return vec![(Width::Word, at, u32::from_be_bytes(word))];
        }
        let halves = chunk.chunks(2).enumerate();
        halves
            .map(|(half, bytes)| match *bytes {
                [high, low] => (Width::Half, at + 2 * half, u32::from(u16::from_be_bytes([high, low]))),
                _ => (Width::Byte, at + 2 * half, u32::from(bytes[0])),
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's interpreter, as far as the programs here go.
    fn run(program: &Program, frame: &[u8]) -> bool {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let step = program.code[at];
            let start = step.value as usize;
            let load = |width: usize| {
                frame.get(start..start + width).map(|bytes| bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte)))
            };
            let loaded = match step.code {
                LOAD_WORD => load(4),
                LOAD_HALF => load(2),
                LOAD_BYTE => load(1),
                JUMP_IF_EQUAL => {
                    let jump = if accumulator == step.value { step.if_equal } else { step.if_other };
                    at += usize::from(jump);
                    Some(accumulator)
                }
                _ => return step.value != 0,
            };
            // A load past the frame's end discards it.
            let Some(value) = loaded else { return false };
            accumulator = value;
            at += 1;
        }
    }

    fn ended(build: impl FnOnce(&mut Program)) -> Program {
        let mut program = Program::default();
        build(&mut program);
        program.end(WHOLE);
        program
    }

    #[test]
    fn bytes_are_required_and_refused_whole() {
        let bytes = [1, 2, 3, 4, 5, 6, 7];
        let required = ended(|program| program.require_bytes(1, &bytes));
        let refused = ended(|program| program.refuse_bytes(1, &bytes));
        let mut frame = vec![9, 1, 2, 3, 4, 5, 6, 7];
        assert!(run(&required, &frame) && !run(&refused, &frame));
        for at in 1..8 {
            frame[at] ^= 0x80;
            assert!(!run(&required, &frame) && run(&refused, &frame), "byte {at}");
            frame[at] ^= 0x80;
        }
        assert!(!run(&required, &frame[..7]));
    }

    #[test]
    fn each_of_twenty_long_choices_is_found_and_nothing_else() {
        let choices: Vec<Vec<u8>> = (0..20).map(|last| [&[0xfd; 15][..], &[last]].concat()).collect();
        let program = ended(|program| {
            program.require_one_of(2, &choices);
            program.require(Width::Byte, 0, 7);
        });
        assert!(program.code.len() < 255);
        for choice in &choices {
            assert!(run(&program, &[&[7, 0][..], choice].concat()));
            assert!(!run(&program, &[&[8, 0][..], choice].concat()));
            for at in 0..16 {
                let mut other = choice.clone();
                other[at] ^= 0x80;
                assert!(!run(&program, &[&[7, 0][..], &other].concat()));
            }
        }
    }
}
