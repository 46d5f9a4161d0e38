//! The process that systemd is about to restart: leaves what it has for the next one, or goes on with all of it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::bequest::Bequest;
use super::giver::{BATCH, Holdings, Summary, begin};
use super::message::{Batch, Message, Offer, Socket};
use super::parcel::{self, Carried};

/// For clients that have not said what they want, or are being connected: evermq-vip hears nothing meanwhile, so not for long.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two looks for those.
const LOOK: Duration = Duration::from_millis(10);

/// Gives systemd all that can be handed over, by way of a file in `directory`. Afterwards this process has to end: nothing of it is served here any more. Those that
/// cannot be moved end with it.
///
/// # Errors
/// Something is missing; this process serves as before.
pub(crate) async fn leave(holdings: &mut impl Holdings, directory: &Path) -> io::Result<Summary> {
    let began = Instant::now();
    let bequest = Bequest::new(directory)?;
    let (offer, sockets) = holdings.offer().await?;
    let mut moved = Vec::new();
    holdings.suspend().await;
    match write(bequest, holdings, (offer, &sockets), &mut moved, began).await {
        Ok(left) => {
            let took = began.elapsed();
            Ok(Summary { process: std::process::id(), moved: moved.len(), left, took, longest: took })
        }
        Err(error) => {
            holdings.take_back(moved, false).await;
            holdings.resume().await;
            Err(error)
        }
    }
}

/// Gives the number of connections that stay.
async fn write(
    mut bequest: Bequest,
    holdings: &mut impl Holdings,
    (offer, sockets): (Offer, &[OwnedFd]),
    moved: &mut Vec<Carried>,
    began: Instant,
) -> io::Result<usize> {
    // systemd has those where clients connect already; other lbs connect anew.
    let control = |socket: &Socket| matches!(socket, Socket::Control { .. });
    let descriptors: Vec<_> =
        offer.sockets.iter().zip(sockets).filter(|(socket, _)| control(socket)).map(|(_, file)| file.as_fd()).collect();
    let sockets = offer.sockets.iter().filter(|socket| control(socket)).cloned().collect();
    bequest.put(&Message::Offer(Offer { sockets, ..offer }), &[], &descriptors)?;
    let (message, raw, clients) = begin(holdings);
    bequest.put(&message, &raw, &clients)?;
    let mut batch = 0;
    let left = loop {
        let exported = holdings.export(BATCH).await;
        if exported.connections.is_empty() {
            if exported.left == 0 || began.elapsed() >= PATIENCE {
                break exported.left;
            }
            tokio::time::sleep(LOOK).await;
            continue;
        }
        batch += 1;
        let from = moved.len();
        moved.extend(exported.connections);
        let (connections, raw, sockets) = parcel::pack(&moved[from..]);
        bequest.put(&Message::Batch(Batch { batch, connections }), &raw, &sockets)?;
    };
    if moved.is_empty() && left > 0 {
        return Err(io::Error::other(
            "no connection can wait for another process: their TLS ends here, or they are not greeted yet",
        ));
    }
    bequest.put(&Message::Settled, &[], &[])?;
    bequest.leave()?;
    Ok(left)
}
