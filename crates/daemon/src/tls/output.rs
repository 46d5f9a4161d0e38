//! A worker's scratch: room that is made once and filled again and again.

/// Bytes that were written, and room behind them.
#[derive(Debug, Default)]
pub struct Output {
    /// As long as it ever was, so that room is cleared only when it is new.
    bytes: Vec<u8>,
    filled: usize,
}

impl Output {
    /// Room for `size` bytes from the start.
    #[must_use]
    pub fn with_room(size: usize) -> Self {
        Self { bytes: vec![0; size], filled: 0 }
    }

    /// What was written.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// How much that is.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.filled
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Adds `bytes`.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Forgets what was written.
    pub const fn clear(&mut self) {
        self.filled = 0;
    }

    /// Forgets what was written behind the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.filled = self.filled.min(length);
    }

    /// Room for `size` bytes behind what was written; [`Output::advance`] says how much of it has been used.
    pub fn space(&mut self, size: usize) -> &mut [u8] {
        let end = self.filled + size;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.filled..end).unwrap_or_default()
    }

    /// The first `written` bytes of the last [`Output::space`] have been written.
    pub fn advance(&mut self, written: usize) {
        self.filled = (self.filled + written).min(self.bytes.len());
    }
}
