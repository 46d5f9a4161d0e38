use std::os::unix::net::UnixListener;

use super::*;

/// An lb that accepted the link; dropping it is its death.
fn linked() -> (tempfile::TempDir, LbLink, UnixStream) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lb.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut link = LbLink::new(&path);
    link.connect().unwrap();
    let (lb, _) = listener.accept().unwrap();
    (directory, link, lb)
}

#[test]
fn the_health_stream_is_asked_for_and_read_in_any_pieces() {
    let (_directory, mut link, mut lb) = linked();
    let mut request = [0; 64];
    let length = lb.read(&mut request).unwrap();
    assert_eq!(&request[..length], b"{\"request\":\"health\"}\n");
    assert_eq!(link.read(), Read::Nothing);
    for byte in b"{\"health\":\"up\"}" {
        lb.write_all(&[*byte]).unwrap();
        assert_eq!(link.read(), Read::Nothing);
    }
    lb.write_all(b"\n").unwrap();
    assert_eq!(link.read(), Read::Health(Health::Up));
    lb.write_all(b"{\"health\":\"up\"}\n{\"health\":\"degraded\"}\n").unwrap();
    assert_eq!(link.read(), Read::Health(Health::Degraded), "the latest line counts");
    assert_eq!(link.read(), Read::Nothing);
}

#[test]
fn more_lines_than_the_buffer_holds_are_all_read() {
    let (_directory, mut link, mut lb) = linked();
    for _ in 0..100 {
        lb.write_all(b"{\"health\":\"up\"}\n").unwrap();
    }
    lb.write_all(b"{\"health\":\"down\"}\n").unwrap();
    assert_eq!(link.read(), Read::Health(Health::Down));
}

#[test]
fn end_of_file_is_the_lbs_death_even_after_a_last_line() {
    let (_directory, mut link, mut lb) = linked();
    lb.write_all(b"{\"health\":\"up\"}\n").unwrap();
    drop(lb);
    assert_eq!(link.read(), Read::Lost);
    assert!(link.fd().is_none());
}

#[test]
fn what_is_not_a_health_line_ends_the_link() {
    for bytes in [&b"hello\n"[..], b"{\"health\":\"fine\"}\n", b"\n", &[b'x'; LONGEST_LINE]] {
        let (_directory, mut link, mut lb) = linked();
        lb.write_all(bytes).unwrap();
        assert_eq!(link.read(), Read::Lost, "{bytes:?}");
    }
}

#[test]
fn a_missing_or_refusing_socket_is_an_error_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lb.sock");
    let mut link = LbLink::new(&path);
    assert_eq!(link.connect().unwrap_err().kind(), io::ErrorKind::NotFound);
    drop(UnixListener::bind(&path).unwrap());
    // A program that another test is just starting holds it until its exec.
    while UnixStream::connect(&path).is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(link.connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_frozen_lb_whose_queue_is_full_does_not_block() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lb.sock");
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let mut links: Vec<_> = (0..8).map(|_| LbLink::new(&path)).collect();
    let refused = links.iter_mut().find_map(|link| link.connect().err()).unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
}
