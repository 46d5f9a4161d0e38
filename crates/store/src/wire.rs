//! Integers and strings within a record: numbers in 7 bits to the byte, the lowest first (LEB128), strings with their length.

use bytes::{BufMut as _, BytesMut};

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record ends within a field.
    #[error("record ends within a field")]
    Short,
    /// There is more than the record's fields.
    #[error("record is longer than its fields")]
    Long,
    /// A number of more than 64 bits, or larger than its field.
    #[error("number is too large for its field")]
    Number,
    /// Bytes that should be text.
    #[error("text is not UTF-8")]
    Text,
    /// A kind or flag that this version does not know.
    #[error("unknown kind or flag {0}")]
    Unknown(u8),
    /// The PUBLISH within it cannot be read.
    #[error("message cannot be read")]
    Publish,
}

/// Appends `value`.
pub(crate) fn put_number(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends the length and the bytes.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What is left of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.0.split_first().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                return Err(DecodeError::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Number)
    }

    /// A number that its field's type can hold.
    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.number()?).map_err(|_| DecodeError::Number)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.small::<usize>()?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Text)
    }

    /// A count of entries, and then the entries. Nothing is reserved for the count: each entry has bytes of its own.
    pub(crate) fn list<T>(
        &mut self,
        mut entry: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.number()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(entry(self)?);
        }
        Ok(list)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Long) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, bytes: Vec<u8>) {
            let mut out = BytesMut::new();
            put_number(&mut out, value);
            put_bytes(&mut out, &bytes);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.number(), Ok(value));
            prop_assert_eq!(reader.bytes(), Ok(&bytes[..]));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn numbers_of_more_than_64_bits_are_refused() {
        let mut bytes = [0xFF; 10];
        bytes[9] = 0x01;
        assert_eq!(Reader::new(&bytes).number(), Ok(u64::MAX));
        bytes[9] = 0x02;
        assert_eq!(Reader::new(&bytes).number(), Err(DecodeError::Number));
        assert_eq!(Reader::new(&[0x80; 11]).number(), Err(DecodeError::Number));
        assert_eq!(Reader::new(&[0x80]).number(), Err(DecodeError::Short));
        assert_eq!(Reader::new(&[0x80, 0x02]).small::<u8>(), Err(DecodeError::Number));
    }

    #[test]
    fn a_count_does_not_allocate() {
        let mut out = BytesMut::new();
        put_number(&mut out, u64::MAX);
        assert_eq!(Reader::new(&out).list(Reader::u8), Err(DecodeError::Short));
    }
}
