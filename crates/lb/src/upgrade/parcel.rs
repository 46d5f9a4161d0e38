//! Connections on their way from one process to the other: what is said of them, the bytes that are kept, and two sockets each.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::message::Record;

/// One connection.
#[derive(Debug)]
pub struct Carried {
    /// All but what follows.
    pub record: Record,
    /// The client's socket.
    pub client: OwnedFd,
    /// The backend's.
    pub backend: OwnedFd,
    /// Read from the client and not yet taken.
    pub to_backend: Vec<u8>,
    /// Read from the backend and not yet taken.
    pub to_client: Vec<u8>,
}

/// Why a batch is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a batch of {connections} connections has {descriptors} descriptors and {raw} kept bytes, which do not fit together"
)]
pub struct Misfit {
    connections: usize,
    descriptors: usize,
    raw: usize,
}

/// What is sent of them. The sockets stay theirs.
#[must_use]
pub fn pack(connections: &[Carried]) -> (Vec<Record>, Vec<u8>, Vec<BorrowedFd<'_>>) {
    let mut records = Vec::with_capacity(connections.len());
    let mut raw = Vec::new();
    let mut descriptors = Vec::with_capacity(connections.len() * 2);
    for connection in connections {
        let mut record = connection.record.clone();
        record.to_backend.kept = connection.to_backend.len();
        record.to_client.kept = connection.to_client.len();
        records.push(record);
        raw.extend_from_slice(&connection.to_backend);
        raw.extend_from_slice(&connection.to_client);
        descriptors.extend([connection.client.as_fd(), connection.backend.as_fd()]);
    }
    (records, raw, descriptors)
}

/// What has come.
///
/// # Errors
/// It does not fit together.
pub fn unpack(records: Vec<Record>, raw: &[u8], descriptors: Vec<OwnedFd>) -> Result<Vec<Carried>, Misfit> {
    let misfit = Misfit { connections: records.len(), descriptors: descriptors.len(), raw: raw.len() };
    let mut rest = raw;
    let mut take = |length: usize| {
        let (kept, after) = rest.split_at_checked(length).ok_or(misfit)?;
        rest = after;
        Ok(kept.to_vec())
    };
    let mut sockets = descriptors.into_iter();
    let mut connections = Vec::with_capacity(records.len());
    for record in records {
        let (Some(client), Some(backend)) = (sockets.next(), sockets.next()) else { return Err(misfit) };
        let (to_backend, to_client) = (take(record.to_backend.kept)?, take(record.to_client.kept)?);
        connections.push(Carried { record, client, backend, to_backend, to_client });
    }
    if sockets.next().is_some() || !rest.is_empty() {
        return Err(misfit);
    }
    Ok(connections)
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::SocketAddr;
    use std::os::unix::net::UnixStream;

    use super::super::message::{Ages, Direction};
    use super::*;

    /// A connection of nobody.
    pub(crate) fn carried(port: u16, to_backend: &[u8], to_client: &[u8]) -> Carried {
        let (client, backend) = UnixStream::pair().unwrap();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let record = Record {
            listener: "main".to_owned(),
            mode: "passthrough".to_owned(),
            client: address(port),
            local: address(9000),
            backend: "broker1".to_owned(),
            backend_address: address(8883),
            id: port.into(),
            sni: Some("mqtt.example".to_owned()),
            client_id: Some(port.to_string().into_bytes()),
            to_backend: Direction::default(),
            to_client: Direction::default(),
            failed: None,
            first_ended: None,
            handshake_turns: None,
            ages: Ages::default(),
        };
        let (to_backend, to_client) = (to_backend.to_vec(), to_client.to_vec());
        Carried { record, client: client.into(), backend: backend.into(), to_backend, to_client }
    }

    fn copies(descriptors: &[BorrowedFd<'_>]) -> Vec<OwnedFd> {
        descriptors.iter().map(|descriptor| descriptor.try_clone_to_owned().unwrap()).collect()
    }

    #[test]
    fn kept_bytes_come_back_to_their_connections() {
        let sent = [carried(1, b"abc", b""), carried(2, b"", b""), carried(3, b"d", b"efgh")];
        let (records, raw, descriptors) = pack(&sent);
        assert_eq!((raw.as_slice(), descriptors.len()), (&b"abcdefgh"[..], 6));
        let came = unpack(records, &raw, copies(&descriptors)).unwrap();
        for (sent, came) in sent.iter().zip(&came) {
            assert_eq!(sent.record.client, came.record.client);
            assert_eq!((&sent.to_backend, &sent.to_client), (&came.to_backend, &came.to_client));
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let sent = [carried(1, b"abc", b"d")];
        let (records, raw, descriptors) = pack(&sent);
        let too_many = [copies(&descriptors), copies(&descriptors)].into_iter().flatten().collect();
        for (raw, descriptors) in [
            (&raw[..3], copies(&descriptors)),
            (&b"abcde"[..], copies(&descriptors)),
            (&raw[..], copies(&descriptors[..1])),
            (&raw[..], too_many),
        ] {
            assert!(unpack(records.clone(), raw, descriptors).is_err());
        }
        let mut absurd = records;
        absurd[0].to_backend.kept = usize::MAX;
        assert!(unpack(absurd, &raw, copies(&descriptors)).is_err());
    }
}
