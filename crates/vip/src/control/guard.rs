//! Keeps a guard: starts another one when it is gone or does not read.

use std::convert::Infallible;
use std::time::Duration;

use evermq_config::VipConfig;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::driver::Letter;
use crate::guard::keeper::{self, Keeper};
use crate::mailbox::Post;

/// A guard that dies at once is started no more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// A trouble that lasts is logged again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// The keeper's keeper.
#[derive(Debug)]
pub(super) struct Minder {
    keeper: Option<Keeper>,
    config: VipConfig,
    post: Post<Letter>,
    lost: mpsc::Receiver<()>,
}

impl Minder {
    /// Of the guard that runs already, if any; and where to say that it is lost.
    pub(super) fn new(keeper: Option<Keeper>, config: VipConfig, post: Post<Letter>) -> (mpsc::Sender<()>, Self) {
        let (sender, lost) = mpsc::channel(1);
        if keeper.is_none() {
            // It could not be started: the first thing to do is to try again.
            let _ = sender.try_send(());
        }
        (sender, Self { keeper, config, post, lost })
    }

    /// For ever; dropped, it waits for the guard's end.
    pub(super) async fn run(mut self) -> Infallible {
        let mut started = Instant::now();
        let mut told: Option<Instant> = None;
        loop {
            if self.lost.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            if told.is_none_or(|told| told.elapsed() >= AGAIN) {
                told = Some(Instant::now());
                tracing::warn!(
                    "the guard of the VIP is gone; another one is started (a killed evermq-vip would leave the VIP)"
                );
            }
            // Dead before the line to it is cut: it would take this program for dead.
            if let Some(keeper) = self.keeper.take() {
                keeper.kill();
            }
            loop {
                tokio::time::sleep_until(started + PAUSE).await;
                started = Instant::now();
                match keeper::start(self.config.vip.realtime, &self.config.control_socket) {
                    Ok((keeper, line)) => {
                        self.keeper = Some(keeper);
                        self.post.deliver(Letter::Guard(Box::new(line))).await;
                        break;
                    }
                    Err(error) => tracing::debug!(%error, "the guard could not be started"),
                }
            }
        }
    }
}
