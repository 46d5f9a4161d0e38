//! 64 bytes there and back at a fixed rate: the connections send in turn, whether or not the answer before has come.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde_json::{Value, json};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::echo::{MESSAGE, WARM_UP};
use crate::target::{Stream, TargetArgs};
use crate::{meter, say};

/// How long answers may take once nothing is sent any more.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct PacedArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Messages in a second, over all connections
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// Seconds that count
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// What a connection still waits for, and what became of it.
#[derive(Default)]
struct Lane {
    /// When each message that has no answer yet was sent.
    waiting: VecDeque<Instant>,
    lost: Option<String>,
}

/// Of all connections.
#[derive(Default)]
struct Record {
    times: Vec<Duration>,
    longest: Duration,
    /// When the message that waited longest was sent.
    longest_sent: Option<Instant>,
}

type Lanes = Vec<Rc<RefCell<Lane>>>;

pub(crate) async fn run(args: PacedArgs) -> anyhow::Result<Value> {
    ensure!(args.rate > 0 && args.connections > 0, "a rate and connections are needed");
    let record = Rc::new(RefCell::new(Record::default()));
    let (mut lanes, mut writers, mut readers) = (Lanes::new(), Vec::new(), JoinSet::new());
    for opened in args.target.target()?.open_all(args.connections).await? {
        let (reader, writer) = tokio::io::split(opened.stream);
        let lane = Rc::default();
        readers.spawn_local(receive(reader, Rc::clone(&lane), Rc::clone(&record)));
        lanes.push(lane);
        writers.push(writer);
    }
    let sender = tokio::task::spawn_local(send(writers, lanes.clone(), args.rate));
    sleep(WARM_UP).await;
    *record.borrow_mut() = Record::default();
    let before = args.target.pid.map(meter::cpu).transpose()?;
    let start = Instant::now();
    say("ready");
    sleep(Duration::from_secs_f64(args.seconds)).await;
    // A process that has been replaced by another one cannot be asked any more.
    let used = meter::since(args.target.pid, before).unwrap_or_default();
    let took = start.elapsed();
    let answered = record.borrow().times.len();
    sender.abort();
    // Dropped with the task, the sending halves let the readers' connections end only when those have all that was sent.
    let unanswered = last_answers(&lanes).await;
    readers.abort_all();
    let mut record = record.take();
    record.times.sort_unstable();
    let mut lost: Vec<_> = lanes.iter().filter_map(|lane| lane.borrow().lost.clone()).collect();
    let lost_count = lost.len();
    lost.sort_unstable();
    lost.dedup();
    Ok(json!({
        "cpu_us": meter::micros_each(used, answered),
        "per_second": answered as f64 / took.as_secs_f64(),
        "p50_us": meter::percentile(&record.times, 0.5),
        "p99_us": meter::percentile(&record.times, 0.99),
        "longest_ms": record.longest.as_secs_f64() * 1e3,
        "longest_sent_ms": record.longest_sent.map(|sent| sent.duration_since(start).as_secs_f64() * 1e3),
        "connections": args.connections,
        "lost": lost_count,
        "lost_why": lost,
        "unanswered": unanswered,
    }))
}

async fn send(mut writers: Vec<WriteHalf<Box<dyn Stream>>>, lanes: Lanes, rate: u32) -> anyhow::Result<()> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    let interval = TimeSpec::from_duration(Duration::from_secs(1) / rate);
    timer.set(Expiration::Interval(interval), TimerSetTimeFlags::empty())?;
    // SAFETY: an OwnedFd is the same open descriptor until it is dropped, which is after its registration.
    let timer = unsafe { AsyncFd::register(OwnedFd::from(timer)) }?;
    let mut next = 0;
    loop {
        let mut ready = timer.readable().await?;
        let mut passed = [0; 8];
        let read = ready.try_io(|timer| Ok(nix::unistd::read(timer.get_ref(), &mut passed)?));
        if read.is_err() {
            continue;
        }
        for _ in 0..u64::from_ne_bytes(passed) {
            let (lane, writer) = (&lanes[next], &mut writers[next]);
            next = (next + 1) % lanes.len();
            if lane.borrow().lost.is_some() {
                continue;
            }
            lane.borrow_mut().waiting.push_back(Instant::now());
            let sent = match writer.write_all(&[7; MESSAGE]).await {
                Ok(()) => writer.flush().await,
                failed => failed,
            };
            if let Err(error) = sent {
                lane.borrow_mut().lost.get_or_insert(format!("send: {error}"));
            }
        }
    }
}

async fn receive(mut reader: ReadHalf<Box<dyn Stream>>, lane: Rc<RefCell<Lane>>, record: Rc<RefCell<Record>>) {
    let mut buffer = [0; 4 * MESSAGE];
    let mut part = 0;
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => {
                lane.borrow_mut().lost.get_or_insert_with(|| "closed".to_owned());
                return;
            }
            Ok(count) => part += count,
            Err(error) => {
                lane.borrow_mut().lost.get_or_insert(format!("receive: {error}"));
                return;
            }
        }
        let now = Instant::now();
        while part >= MESSAGE {
            part -= MESSAGE;
            if let Some(sent) = lane.borrow_mut().waiting.pop_front() {
                record.borrow_mut().add(sent, now);
            }
        }
    }
}

impl Record {
    fn add(&mut self, sent: Instant, now: Instant) {
        let took = now - sent;
        self.times.push(took);
        if took > self.longest {
            (self.longest, self.longest_sent) = (took, Some(sent));
        }
    }
}

/// Messages that never came back.
async fn last_answers(lanes: &Lanes) -> usize {
    let open = || lanes.iter().map(|lane| lane.borrow().waiting.len()).sum::<usize>();
    let all = async {
        while open() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = timeout(LAST_ANSWERS, all).await;
    open()
}
