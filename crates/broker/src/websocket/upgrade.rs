//! The HTTP request that begins WebSocket (RFC 6455 §4).
//!
//! Pure.

use tungstenite::handshake::machine::TryParse as _;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderValue;
use tungstenite::http::header::{SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};

/// Bytes of a request: cookies and all, a browser's have 2 kB.
pub const MAX_REQUEST: usize = 8 * 1024;
/// `[MQTT-6.0.0-3]`, `[MQTT-6.0.0-4]`; and what libraries from before MQTT 3.1.1 offer instead.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What came of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// More has to come.
    NeedMore,
    /// The client speaks WebSocket from now on.
    Accepted {
        /// Bytes of the request; behind them are frames.
        consumed: usize,
        /// The answer.
        response: Vec<u8>,
    },
    /// It does not get in.
    Refused {
        /// The answer; empty for who does not speak HTTP.
        response: Vec<u8>,
        /// Why.
        reason: &'static str,
    },
}

/// Judges the request that `bytes` begin with.
#[must_use]
pub fn judge(bytes: &[u8]) -> Upgrade {
    if !bytes.iter().zip(b"GET ").all(|(byte, wanted)| byte == wanted) {
        return Upgrade::Refused { response: Vec::new(), reason: "not an HTTP request for WebSocket" };
    }
    let (consumed, request) = match Request::try_parse(bytes) {
        Ok(Some(parsed)) => parsed,
        Ok(None) if bytes.len() >= MAX_REQUEST => {
            return refuse("431 Request Header Fields Too Large", "", "HTTP request too large");
        }
        Ok(None) => return Upgrade::NeedMore,
        Err(_) => return refuse("400 Bad Request", "", "malformed HTTP request"),
    };
    if request.headers().get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version != "13") {
        // RFC 6455 §4.2.2.
        return refuse("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", "another version of WebSocket");
    }
    let Some(subprotocol) = subprotocol(&request) else {
        return refuse("400 Bad Request", "", "the WebSocket subprotocol mqtt is not among those offered");
    };
    let Ok(mut accepted) = create_response(&request) else {
        return refuse("400 Bad Request", "", "not an HTTP request for WebSocket");
    };
    accepted.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    let mut response = Vec::new();
    match write_response(&mut response, &accepted) {
        Ok(()) => Upgrade::Accepted { consumed, response },
        Err(_) => refuse("500 Internal Server Error", "", "the HTTP answer cannot be written"),
    }
}

/// The first of ours that the client offers.
fn subprotocol(request: &Request) -> Option<&'static str> {
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    SUBPROTOCOLS.into_iter().find(|ours| {
        let mut names = offered.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        names.any(|name| name.trim() == *ours)
    })
}

fn refuse(status: &str, headers: &str, reason: &'static str) -> Upgrade {
    let response = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n");
    Upgrade::Refused { response: response.into_bytes(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(more: &str) -> Vec<u8> {
        format!(
            "GET /mqtt HTTP/1.1\r\nHost: b\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
        .into_bytes()
    }

    fn refusal(bytes: &[u8]) -> String {
        match judge(bytes) {
            Upgrade::Refused { response, .. } => String::from_utf8(response).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mqtt_is_chosen_and_the_rest_of_the_bytes_is_left() {
        let whole = request("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n");
        for end in 0..whole.len() {
            assert_eq!(judge(&whole[..end]), Upgrade::NeedMore, "{end}");
        }
        let Upgrade::Accepted { consumed, response } = judge(&[&whole[..], b"\x82"].concat()) else { panic!() };
        assert_eq!(consumed, whole.len());
        let response = String::from_utf8(response).unwrap().to_lowercase();
        assert!(response.starts_with("http/1.1 101 "), "{response}");
        assert!(response.contains("sec-websocket-protocol: mqtt\r\n"), "{response}");
        // RFC 6455 §1.3 has this key and its answer.
        assert!(response.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{response}");
        let old = request(
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqttv3.1\r\n",
        );
        let Upgrade::Accepted { response, .. } = judge(&old) else { panic!() };
        assert!(String::from_utf8(response).unwrap().to_lowercase().contains("sec-websocket-protocol: mqttv3.1\r\n"));
    }

    #[test]
    fn who_wants_something_else_is_told() {
        assert_eq!(refusal(b"\x10\x0d"), "");
        assert_eq!(refusal(b"POST / HTTP/1.1\r\n\r\n"), "");
        assert!(refusal(b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert!(refusal(b"GET \0 HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let chat = request("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, mqttx\r\n");
        assert!(refusal(&chat).starts_with("HTTP/1.1 400 "), "[MQTT-6.0.0-3]");
        let old = request("Sec-WebSocket-Version: 8\r\nSec-WebSocket-Protocol: mqtt\r\n");
        let told = refusal(&old);
        assert!(told.starts_with("HTTP/1.1 426 ") && told.contains("Sec-WebSocket-Version: 13\r\n"), "{told}");
        let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; MAX_REQUEST]].concat();
        assert!(refusal(&endless).starts_with("HTTP/1.1 431 "));
    }
}
