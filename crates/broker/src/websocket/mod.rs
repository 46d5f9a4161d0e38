//! MQTT over WebSocket (MQTT 5.0 §6, RFC 6455), as far as it has nothing to do with sockets.
//!
//! Header syntax and the HTTP upgrade are tungstenite's. Its frames are not used: it keeps a whole message, and its room,
//! before anybody sees a byte of it, where MQTT asks for none of that: packets may span frames or share them
//! (`[MQTT-6.0.0-2]`), and have a limit of their own.
//!
//! | module | subject |
//! |---|---|
//! | [`frames`] | ◆ what the bytes of a client's frames carry |
//! | [`upgrade`] | ◆ the HTTP request before them |
//!
//! A browser sends `Origin`; it is not checked: no cookie and no other credential that a browser adds by itself lets a page in
//! here, for a client is known by the certificate or password that it shows.

pub mod frames;
pub mod upgrade;
