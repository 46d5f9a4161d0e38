//! Load for a TCP load balancer, and what it costs the balancer: `tests/bench/lb/run` uses it for evermq-lb and its peers
//! alike.
//!
//! ```text
//! lb-bench backend ADDRESS                      echoes whatever comes
//! lb-bench connect ADDRESS PID COUNT            connect, one byte there and back, close; one after the other, 4 at a time
//! lb-bench echo    ADDRESS PID SECONDS RATE     64 bytes there and back over 64 connections; RATE 0: as fast as it goes
//! lb-bench bulk    ADDRESS PID SECONDS          8 connections full of bytes, both ways
//! lb-bench idle    ADDRESS PID COUNT            COUNT connections that do nothing
//! ```
//!
//! PID is the balancer's process; its CPU time is read from `/proc/PID/task/*/schedstat` (nanoseconds), its children's
//! likewise, its memory from `/proc/PID/smaps_rollup`. One line of JSON is printed.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a generator that fails is to say where; it measures time"
)]

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _ = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map(|(_, hard)| nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        match words[..] {
            ["backend", address] => backend(parse(address)).await,
            ["connect", address, pid, count] => connect(parse(address), parse(pid), parse(count)).await,
            ["echo", address, pid, seconds, rate] => {
                echo(parse(address), parse(pid), Duration::from_secs(parse(seconds)), parse(rate)).await;
            }
            ["bulk", address, pid, seconds] => {
                bulk(parse(address), parse(pid), Duration::from_secs(parse(seconds))).await;
            }
            ["idle", address, pid, count] => idle(parse(address), parse(pid), parse(count)).await,
            _ => panic!("see the head of this program's source for its arguments"),
        }
    });
}

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("not understood: {text}"))
}

/// CPU time of a process and its children so far.
fn cpu(pid: u32) -> Duration {
    let mut all = Duration::ZERO;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let nanos = read("schedstat").split_whitespace().next().map_or(0, parse);
        all += Duration::from_nanos(nanos);
        all += read("children").split_whitespace().map(|child| cpu(parse(child))).sum();
    }
    all
}

/// Private and shared memory of a process and its children, in bytes.
fn memory(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let own = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    parse::<u64>(own.split_whitespace().nth(1).unwrap()) * 1024
        + children.split_whitespace().map(|child| memory(parse(child))).sum::<u64>()
}

async fn backend(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).unwrap();
        tokio::task::spawn_local(async move {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if count == buffer.len() {
                    return sink(stream).await;
                }
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A connection full of bytes gets as many back, not the same: two sides that only echo would stop each other.
async fn sink(stream: TcpStream) {
    let (mut reader, mut writer) = stream.into_split();
    tokio::task::spawn_local(async move {
        let data = vec![0; 256 << 10];
        while writer.write_all(&data).await.is_ok() {}
    });
    let mut buffer = vec![0; 256 << 10];
    while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
}

async fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn connect(address: SocketAddr, pid: u32, count: u32) {
    let one = move || async move {
        let mut stream = open(address).await;
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
    };
    one().await;
    let (before, start) = (cpu(pid), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        tasks.spawn_local(async move {
            for _ in 0..count / 4 {
                one().await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let each = (cpu(pid) - before).as_secs_f64() * 1e6 / f64::from(count);
    println!("{{\"cpu_us\":{each:.2},\"per_second\":{:.0}}}", f64::from(count) / start.elapsed().as_secs_f64());
}

async fn echo(address: SocketAddr, pid: u32, time: Duration, rate: u32) {
    const CONNECTIONS: u32 = 64;
    let times = Rc::new(RefCell::new(Vec::new()));
    let stop = Rc::new(Cell::new(false));
    let mut tasks = JoinSet::new();
    for number in 0..CONNECTIONS {
        let (times, stop) = (Rc::clone(&times), Rc::clone(&stop));
        let mut stream = open(address).await;
        tasks.spawn_local(async move {
            let mut buffer = [7; 64];
            let pause = Duration::from_secs(1) * CONNECTIONS / rate.max(1);
            let mut next = tokio::time::Instant::now() + pause * number / CONNECTIONS;
            while !stop.get() {
                if rate > 0 {
                    tokio::time::sleep_until(next).await;
                    next += pause;
                }
                let start = Instant::now();
                stream.write_all(&buffer).await.unwrap();
                stream.read_exact(&mut buffer).await.unwrap();
                times.borrow_mut().push(start.elapsed());
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    times.borrow_mut().clear();
    let before = cpu(pid);
    tokio::time::sleep(time).await;
    let used = cpu(pid) - before;
    let mut measured = times.take();
    stop.set(true);
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    measured.sort_unstable();
    let count = measured.len();
    println!(
        "{{\"cpu_us\":{:.3},\"per_second\":{:.0},\"p50_us\":{},\"p99_us\":{}}}",
        used.as_secs_f64() * 1e6 / count as f64,
        count as f64 / time.as_secs_f64(),
        measured[count / 2].as_micros(),
        measured[count * 99 / 100].as_micros()
    );
}

async fn bulk(address: SocketAddr, pid: u32, time: Duration) {
    let moved = Rc::new(Cell::new(0_u64));
    for _ in 0..8 {
        let stream = open(address).await;
        let (mut reader, mut writer) = stream.into_split();
        tokio::task::spawn_local(async move {
            let data = vec![1; 256 << 10];
            while writer.write_all(&data).await.is_ok() {}
        });
        let moved = Rc::clone(&moved);
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                moved.set(moved.get() + count as u64);
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (before, start) = (cpu(pid), moved.get());
    tokio::time::sleep(time).await;
    let bytes = (moved.get() - start) as f64;
    let used = (cpu(pid) - before).as_secs_f64();
    // What comes back is counted; about as much goes there.
    println!(
        "{{\"cpu_s_per_gb_back\":{:.3},\"gb_per_second_back\":{:.2}}}",
        used / bytes * 1e9,
        bytes / time.as_secs_f64() / 1e9
    );
}

async fn idle(address: SocketAddr, pid: u32, count: usize) {
    let mut all = Vec::with_capacity(count);
    // What is allocated once and for all is no connection's.
    for _ in 0..100 {
        all.push(warm(address).await);
    }
    let before = memory(pid);
    for _ in 0..count {
        all.push(warm(address).await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let each = memory(pid).saturating_sub(before) as f64 / count as f64;
    println!("{{\"bytes_each\":{each:.0},\"connections\":{}}}", all.len());
}

async fn warm(address: SocketAddr) -> TcpStream {
    let mut stream = open(address).await;
    stream.write_all(b"x").await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    stream
}
