//! The frames between the two processes of an upgrade.
//!
//! ```text
//!  0                4        6             8              12             16
//! +----------------+--------+-------------+--------------+--------------+------------+-----------+
//! | "EVUP"         | format | descriptors | JSON's bytes | raw bytes    | JSON       | raw       |
//! +----------------+--------+-------------+--------------+--------------+------------+-----------+
//!                    u16 BE   u16 BE        u32 BE         u32 BE
//! ```
//!
//! JSON says what the frame is and may have members that the reader does not know; raw is what JSON would only make longer:
//! kept bytes. The descriptors come beside the bytes (SCM_RIGHTS, unix(7)), in the order in which JSON speaks of them.
//!
//! Pure.

/// First bytes of each frame.
const MAGIC: [u8; 4] = *b"EVUP";
/// What this header looks like. What JSON says is agreed on by [`super::message::Hello`].
const FORMAT: u16 = 1;
/// Bytes of a header.
pub const HEADER: usize = 16;
/// Several times what a full batch needs.
pub const MAX_JSON: usize = 4 << 20;
/// A batch of connections that all keep as much as they may, and then some.
pub const MAX_RAW: usize = 64 << 20;
/// Listening sockets of all workers, or those of a batch.
pub const MAX_DESCRIPTORS: usize = 3840;

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Descriptors that belong to the frame.
    pub descriptors: usize,
    /// Bytes of JSON after the header.
    pub json: usize,
    /// Raw bytes after that.
    pub raw: usize,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another protocol.
    #[error("what comes is not of an upgrade")]
    Magic,
    /// Another header.
    #[error("frames of format {0} are not understood here")]
    Format(u16),
    /// More than any frame may have.
    #[error("a frame is too large: {json} bytes of JSON, {raw} raw bytes, {descriptors} descriptors")]
    Size {
        /// Descriptors.
        descriptors: usize,
        /// Bytes of JSON.
        json: usize,
        /// Raw bytes.
        raw: usize,
    },
}

impl Header {
    /// The bytes of the header.
    ///
    /// # Errors
    /// The frame is larger than the other side would take.
    pub fn encode(&self) -> Result<[u8; HEADER], FrameError> {
        self.check()?;
        let Self { descriptors, json, raw } = *self;
        let size = FrameError::Size { descriptors, json, raw };
        let narrow = |length: usize| u32::try_from(length).map_err(|_| size);
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FORMAT.to_be_bytes());
        bytes[6..8].copy_from_slice(&u16::try_from(descriptors).map_err(|_| size)?.to_be_bytes());
        bytes[8..12].copy_from_slice(&narrow(json)?.to_be_bytes());
        bytes[12..].copy_from_slice(&narrow(raw)?.to_be_bytes());
        Ok(bytes)
    }

    /// Reads a header off the front of `bytes`; none if there are not enough yet.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let [m0, m1, m2, m3, f0, f1, d0, d1, j0, j1, j2, j3, r0, r1, r2, r3] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic);
        }
        let format = u16::from_be_bytes([f0, f1]);
        if format != FORMAT {
            return Err(FrameError::Format(format));
        }
        let header = Self {
            descriptors: usize::from(u16::from_be_bytes([d0, d1])),
            json: u32::from_be_bytes([j0, j1, j2, j3]) as usize,
            raw: u32::from_be_bytes([r0, r1, r2, r3]) as usize,
        };
        header.check()?;
        Ok(Some(header))
    }

    /// The whole frame's bytes.
    #[must_use]
    pub const fn length(&self) -> usize {
        HEADER + self.json + self.raw
    }

    const fn check(&self) -> Result<(), FrameError> {
        let Self { descriptors, json, raw } = *self;
        if json > MAX_JSON || raw > MAX_RAW || descriptors > MAX_DESCRIPTORS {
            return Err(FrameError::Size { descriptors, json, raw });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_has_this_layout() {
        let header = Header { descriptors: 0x0102, json: 0x03_0405, raw: 0x0306_0708 };
        let bytes = [b'E', b'V', b'U', b'P', 0, 1, 1, 2, 0, 3, 4, 5, 3, 6, 7, 8];
        assert_eq!(header.encode(), Ok(bytes));
        assert_eq!(Header::decode(&bytes), Ok(Some(header)));
        assert_eq!(Header::decode(&bytes[..15]), Ok(None));
        assert_eq!(header.length(), 16 + 0x03_0405 + 0x0306_0708);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let good = Header { descriptors: 1, json: 2, raw: 3 }.encode().unwrap();
        let with = |index: usize, byte| {
            let mut bytes = good;
            bytes[index] = byte;
            Header::decode(&bytes)
        };
        assert_eq!(with(0, b'e'), Err(FrameError::Magic));
        assert_eq!(with(5, 2), Err(FrameError::Format(2)));
        assert!(matches!(with(6, 0xff), Err(FrameError::Size { .. })));
        assert!(matches!(with(8, 1), Err(FrameError::Size { .. })));
        assert!(matches!(with(12, 0x10), Err(FrameError::Size { .. })));
        assert!(Header { descriptors: 0, json: 0, raw: MAX_RAW + 1 }.encode().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_refused(bytes in any::<[u8; HEADER]>()) {
            if let Ok(Some(header)) = Header::decode(&bytes) {
                prop_assert_eq!(header.encode(), Ok(bytes));
            }
        }
    }
}
