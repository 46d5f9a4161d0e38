//! Where the messages of `evermq pub` come from.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use super::failure::Failure;

/// Lines read ahead: the reader's pace is the network's.
const LINES_AHEAD: usize = 64;
/// The largest payload that can ever be sent; a longer line would only fill memory.
const LONGEST_LINE: u64 = 268_435_455;

/// Payloads, one after the other.
pub(super) enum Source {
    /// `-l`: lines of standard input.
    Lines(mpsc::Receiver<io::Result<Bytes>>),
    /// One payload, `--repeat` times.
    Repeated { payload: Bytes, left: u64, pause: Option<Interval> },
}

impl Source {
    pub(super) fn repeated(payload: Bytes, times: u64, pause: Duration) -> Self {
        let pause = (!pause.is_zero()).then(|| {
            let mut interval = tokio::time::interval(pause);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Self::Repeated { payload, left: times, pause }
    }

    /// Reads lines on a thread of its own, which ends with the input or the process.
    pub(super) fn lines() -> Result<Self, Failure> {
        let (sender, receiver) = mpsc::channel(LINES_AHEAD);
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || read_lines(&mut io::stdin().lock(), &sender))
            .map_err(Failure::Runtime)?;
        Ok(Self::Lines(receiver))
    }

    /// The next payload, `None` at the end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Lines(lines) => lines.recv().await.transpose().map_err(Failure::Input),
            Self::Repeated { left: 0, .. } => Ok(None),
            Self::Repeated { payload, left, pause } => {
                if let Some(pause) = pause {
                    pause.tick().await;
                }
                *left -= 1;
                Ok(Some(payload.clone()))
            }
        }
    }

    /// A payload that is there already.
    pub(super) fn ready(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Lines(lines) => lines.try_recv().ok().transpose().map_err(Failure::Input),
            Self::Repeated { left: 0, .. } | Self::Repeated { pause: Some(_), .. } => Ok(None),
            Self::Repeated { payload, left, pause: None } => {
                *left -= 1;
                Ok(Some(payload.clone()))
            }
        }
    }
}

fn read_lines(input: &mut impl BufRead, lines: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        match read_line(input) {
            Ok(None) => return,
            Ok(Some(line)) => {
                if lines.blocking_send(Ok(line)).is_err() {
                    return;
                }
            }
            Err(error) => {
                // Nobody listens any more if this fails.
                let _ = lines.blocking_send(Err(error));
                return;
            }
        }
    }
}

fn read_line(input: &mut impl BufRead) -> io::Result<Option<Bytes>> {
    let mut line = Vec::new();
    let length = input.take(LONGEST_LINE + 1).read_until(b'\n', &mut line)?;
    if length == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > LONGEST_LINE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than an MQTT message can be"));
    }
    Ok(Some(Bytes::from(line)))
}

/// `-f`
pub(super) fn read_file(path: &Path) -> Result<Bytes, Failure> {
    std::fs::read(path).map(Bytes::from).map_err(|source| Failure::File { path: path.to_owned(), source })
}

/// `-s`
pub(super) fn read_all() -> Result<Bytes, Failure> {
    let mut payload = Vec::new();
    io::stdin().lock().take(LONGEST_LINE + 1).read_to_end(&mut payload).map_err(Failure::Input)?;
    Ok(Bytes::from(payload))
}
