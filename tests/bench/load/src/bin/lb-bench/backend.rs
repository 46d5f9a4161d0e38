//! A server that sends back whatever comes, and costs little of the cores that it shares with the balancer. Who asks with
//! [`SOURCE`] gets bytes without end instead.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use clap::Args;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

/// What one read takes at most; one buffer for all connections.
const BUFFER: usize = 256 << 10;
/// Asks for bytes without end.
pub(crate) const SOURCE: &[u8] = b"bytes without end, please";
/// PROXY protocol §2.1, §2.2.
const PROXY_V1: &[u8] = b"PROXY ";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[derive(Debug, Args)]
pub(crate) struct BackendArgs {
    /// Where to listen
    #[arg(required = true)]
    addresses: Vec<SocketAddr>,
}

type Buffer = Rc<RefCell<Vec<u8>>>;

pub(crate) async fn run(args: BackendArgs) -> anyhow::Result<Value> {
    let buffer: Buffer = Rc::new(RefCell::new(vec![0; BUFFER]));
    for address in args.addresses {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(4096)?;
        let buffer = Rc::clone(&buffer);
        tokio::task::spawn_local(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(serve(stream, Rc::clone(&buffer)));
                }
            }
        });
    }
    std::future::pending().await
}

/// Until the other side ends, whichever way.
async fn serve(mut stream: TcpStream, buffer: Buffer) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Some(Vec::new());
    loop {
        stream.readable().await?;
        let rest = {
            let mut buffer = buffer.borrow_mut();
            let count = match stream.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let mut data = &buffer[..count];
            if let Some(begun) = &mut head {
                begun.extend_from_slice(data);
                let Some(length) = proxy_header(begun) else { continue };
                data = &data[data.len() - (begun.len() - length)..];
            }
            head = None;
            if data == SOURCE { None } else { Some(unsent(&stream, data)?) }
        };
        match rest {
            Some(rest) => stream.write_all(&rest).await?,
            None => return pour(&stream, &buffer).await,
        }
    }
}

async fn pour(stream: &TcpStream, buffer: &Buffer) -> io::Result<()> {
    loop {
        stream.writable().await?;
        match stream.try_write(&buffer.borrow()) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Writes what goes at once; the rest is copied.
fn unsent(stream: &TcpStream, data: &[u8]) -> io::Result<Vec<u8>> {
    match stream.try_write(data) {
        Ok(written) => Ok(data[written..].to_vec()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(data.to_vec()),
        Err(error) => Err(error),
    }
}

/// The length of the PROXY protocol header at the beginning, 0 where there is none; none where more is needed to tell.
fn proxy_header(begun: &[u8]) -> Option<usize> {
    if begun.starts_with(PROXY_V1) {
        return begun.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
    }
    if !PROXY_V2.starts_with(&begun[..begun.len().min(PROXY_V2.len())]) {
        return Some(0);
    }
    let length = begun.get(14..16)?;
    let whole = 16 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    (begun.len() >= whole).then_some(whole)
}
