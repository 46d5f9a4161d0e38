//! The lab's network: a bridge as the switch, one cable (a veth pair) for each host. Netlink, so that nothing need be installed.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::unistd::Pid;

/// The host's end of its cable.
pub(super) const INTERFACE: &str = "eth0";
/// The switch.
pub(super) const BRIDGE: &str = "switch";
/// Longest acknowledgement of the kernel: it repeats the request.
const ANSWER_SIZE: usize = 8192;

/// The links of the network namespace in which it was opened.
pub(super) struct Links {
    socket: Socket,
    sequence: u32,
}

/// One end of a cable.
pub(super) struct CableEnd<'a> {
    /// The host's process: its network namespace gets the other end.
    pub(super) process: Pid,
    /// Port of the switch.
    pub(super) port: &'a str,
    /// Hardware address of the host's end.
    pub(super) mac: [u8; 6],
}

impl Links {
    /// A netlink socket in this network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes the switch. It forwards from the first moment and floods multicast, as a plain switch does.
    pub(super) fn add_switch(&mut self) -> io::Result<()> {
        let options = vec![InfoBridge::StpState(0), InfoBridge::ForwardDelay(0), InfoBridge::MulticastSnooping(0)];
        let mut message = LinkMessage::default();
        bring(&mut message, true);
        message.attributes = vec![
            LinkAttribute::IfName(BRIDGE.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(options))]),
        ];
        self.create(RouteNetlinkMessage::NewLink(message))
    }

    /// Plugs a cable into the switch and into a host.
    pub(super) fn add_cable(&mut self, cable: &CableEnd<'_>) -> io::Result<()> {
        let mut host = LinkMessage::default();
        host.attributes = vec![
            LinkAttribute::IfName(INTERFACE.to_owned()),
            LinkAttribute::Address(cable.mac.to_vec()),
            LinkAttribute::NetNsPid(cable.process.as_raw().unsigned_abs()),
        ];
        let mut port = LinkMessage::default();
        bring(&mut port, true);
        port.attributes = vec![
            LinkAttribute::IfName(cable.port.to_owned()),
            LinkAttribute::Controller(index(BRIDGE)?),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(host))),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(port))
    }

    /// Brings a link up or down. From down on, nothing that its other end sends arrives, not even what is on its way.
    pub(super) fn set_up(&mut self, name: &str, up: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index(name)?;
        bring(&mut message, up);
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Isolates a port of the switch, or not: between isolated ports nothing passes, to and from all others everything does.
    pub(super) fn isolate(&mut self, port: &str, isolated: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index(port)?;
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(isolated)])),
        ])];
        self.request(RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Removes a link, and with it its other end.
    pub(super) fn delete(&mut self, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index(name)?;
        self.request(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Gives a link an address.
    pub(super) fn add_address(&mut self, name: &str, address: Ipv4Addr, prefix_length: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix_length;
        message.header.index = index(name)?;
        let mask = u32::MAX.checked_shr(u32::from(prefix_length)).unwrap_or(0);
        message.attributes = vec![
            AddressAttribute::Local(address.into()),
            AddressAttribute::Address(address.into()),
            AddressAttribute::Broadcast(Ipv4Addr::from(u32::from(address) | mask)),
        ];
        self.create(RouteNetlinkMessage::NewAddress(message))
    }

    fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let mut answer = Vec::with_capacity(ANSWER_SIZE);
            self.socket.recv(&mut answer, 0)?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(error) = answer.payload {
                return if error.code.is_none() { Ok(()) } else { Err(error.to_io()) };
            }
        }
    }
}

/// Whether a link of that name is up.
pub(super) fn is_up(name: &str) -> bool {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces
        .filter(|interface| interface.interface_name == name)
        .any(|interface| interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP))
}

fn index(name: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}

fn bring(message: &mut LinkMessage, up: bool) {
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    message.header.change_mask = LinkFlags::Up;
}
