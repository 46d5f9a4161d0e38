//! Bytes that are left over, as a rule none: then they take one word.

use bytes::{Buf as _, BytesMut};

/// Nothing, or a buffer.
#[derive(Debug, Default)]
pub(super) struct Rest(Option<Box<BytesMut>>);

impl Rest {
    pub(super) fn new(bytes: BytesMut) -> Self {
        Self((!bytes.is_empty()).then(|| Box::new(bytes)))
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// To be filled and taken from; what is left of it is for [`Rest::new`] to judge.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        self.0.get_or_insert_default()
    }

    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.buffer().extend_from_slice(bytes);
        }
    }

    /// The first `count` bytes are done with.
    pub(super) fn advance(&mut self, count: usize) {
        if let Some(bytes) = &mut self.0 {
            bytes.advance(count);
            if bytes.is_empty() {
                self.0 = None;
            }
        }
    }
}
