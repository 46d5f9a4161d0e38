//! Packets that no peer may send, and the reason code of MQTT 5.0 that each earns. For MQTT 3.1.1, which has no such codes, only whether a codec refuses counts.

use crate::codecs::Version::{self, V4, V5};

/// Whether `code` is what the standard wants where the list says `expected`. A topic name or filter that is not well-formed is malformed;
/// many say that it is invalid, which table 3-10 keeps for one that is well-formed and yet not accepted.
#[must_use]
pub fn is_exact(code: u8, expected: u8) -> bool {
    code == expected || (matches!(expected, NAME | FILTER) && code == MALFORMED)
}

/// Bytes, version, the code that the standard wants, and where it says so.
pub type Row = (&'static str, Version, u8, &'static str);

const MALFORMED: u8 = 0x81;
const PROTOCOL: u8 = 0x82;
const UNSUPPORTED: u8 = 0x84;
const FILTER: u8 = 0x8F;
const NAME: u8 = 0x90;
const ALIAS: u8 = 0x94;

/// The list. What a client may not say because of its role or of its session's state is not in it.
pub const ROWS: &[Row] = &[
    // Fixed header.
    ("00 00", V5, MALFORMED, "§2.1.2: type 0"),
    ("f0 00", V4, MALFORMED, "3.1.1 §2.2.1: type 15"),
    ("c1 00", V5, MALFORMED, "[MQTT-2.1.3-1]: flags of PINGREQ"),
    ("80 07 0001 00 0001'a' 00", V5, MALFORMED, "[MQTT-3.8.1-1]: flags of SUBSCRIBE"),
    ("80 06 0001 0001'a' 00", V4, MALFORMED, "3.1.1 [MQTT-3.8.1-1]"),
    ("60 02 0001", V5, MALFORMED, "[MQTT-3.6.1-1]: flags of PUBREL"),
    ("60 02 0001", V4, MALFORMED, "3.1.1 [MQTT-3.6.1-1]"),
    ("a0 06 0001 00 0001'a'", V5, MALFORMED, "[MQTT-3.10.1-1]: flags of UNSUBSCRIBE"),
    ("e1 00", V5, MALFORMED, "[MQTT-3.14.1-1]: flags of DISCONNECT"),
    ("c0 8000", V5, MALFORMED, "[MQTT-1.5.5-1]: a length in two bytes where one would do"),
    ("30 80808080 01", V5, MALFORMED, "§1.5.5: a length of five bytes"),
    ("c0 01 00", V5, MALFORMED, "§3.12: a PINGREQ with a body"),
    // CONNECT.
    ("10 0e 0004'MQTX' 05 02 000a 00 0001'a'", V5, UNSUPPORTED, "[MQTT-3.1.2-1]: protocol name"),
    ("10 0e 0004'MQTT' 06 02 000a 00 0001'a'", V5, UNSUPPORTED, "[MQTT-3.1.2-2]: protocol version"),
    ("10 0e 0004'MQTT' 05 03 000a 00 0001'a'", V5, MALFORMED, "[MQTT-3.1.2-3]: reserved flag"),
    ("10 0d 0004'MQTT' 04 03 000a 0001'a'", V4, MALFORMED, "3.1.1 [MQTT-3.1.2-3]"),
    ("10 0e 0004'MQTT' 05 0a 000a 00 0001'a'", V5, MALFORMED, "[MQTT-3.1.2-11]: will QoS without a will"),
    ("10 0e 0004'MQTT' 05 22 000a 00 0001'a'", V5, MALFORMED, "[MQTT-3.1.2-13]: will retain without a will"),
    ("10 14 0004'MQTT' 05 1e 000a 00 0001'a' 00 0001't' 0000", V5, MALFORMED, "[MQTT-3.1.2-12]: will QoS 3"),
    ("10 10 0004'MQTT' 04 42 000a 0001'a' 0001'p'", V4, MALFORMED, "3.1.1 [MQTT-3.1.2-22]: a password alone"),
    ("10 11 0004'MQTT' 05 02 000a 00 0001'a' 0001'u'", V5, MALFORMED, "[MQTT-3.1.2-16]: what no flag announces"),
    ("10 0d 0004'MQTT' 05 02 000a 00 0001", V5, MALFORMED, "§4.13: a string cut short"),
    ("10 0e 0004'MQTT' 05 02 000a 00 0001 ff", V5, MALFORMED, "[MQTT-1.5.4-1]: not UTF-8"),
    ("10 10 0004'MQTT' 05 02 000a 00 0003 eda080", V5, MALFORMED, "[MQTT-1.5.4-1]: a surrogate"),
    ("10 0f 0004'MQTT' 05 02 000a 00 0002'a'00", V5, MALFORMED, "[MQTT-1.5.4-2]: U+0000"),
    ("10 0e 0004'MQTT' 04 02 000a 0002'a'00", V4, MALFORMED, "3.1.1 [MQTT-1.5.3-2]: U+0000"),
    ("10 18 0004'MQTT' 05 02 000a 0a 11 00000001 11 00000001 0001'a'", V5, PROTOCOL, "§3.1.2.11.2: twice"),
    ("10 11 0004'MQTT' 05 02 000a 03 21 0000 0001'a'", V5, PROTOCOL, "§3.1.2.11.3: Receive Maximum 0"),
    ("10 13 0004'MQTT' 05 02 000a 05 27 00000000 0001'a'", V5, PROTOCOL, "§3.1.2.11.4: Maximum Packet Size 0"),
    ("10 10 0004'MQTT' 05 02 000a 02 17 02 0001'a'", V5, PROTOCOL, "§3.1.2.11.7: neither 0 nor 1"),
    ("10 12 0004'MQTT' 05 02 000a 04 16 0001'd' 0001'a'", V5, PROTOCOL, "§3.1.2.11.10: data without a method"),
    ("10 10 0004'MQTT' 05 02 000a 02 01 01 0001'a'", V5, MALFORMED, "§2.2.2.2: a property of PUBLISH"),
    ("10 10 0004'MQTT' 05 02 000a 02 7f 00 0001'a'", V5, MALFORMED, "§2.2.2.2: no such property"),
    (
        "10 17 0004'MQTT' 05 06 000a 00 0001'a' 00 0003'a/#' 0001'p'",
        V5,
        NAME,
        "[MQTT-4.7.0-1]: wildcard in a will topic",
    ),
    // PUBLISH.
    ("36 07 0001't' 0001 00 'p'", V5, MALFORMED, "[MQTT-3.3.1-4]: QoS 3"),
    ("36 06 0001't' 0001 'p'", V4, MALFORMED, "3.1.1 [MQTT-3.3.1-4]"),
    ("38 05 0001't' 00 'p'", V5, MALFORMED, "[MQTT-3.3.1-2]: DUP at QoS 0"),
    ("30 07 0003'a/+' 00 'p'", V5, NAME, "[MQTT-3.3.2-2]: wildcard in a topic name"),
    ("30 06 0003'a/+' 'p'", V4, NAME, "3.1.1 [MQTT-3.3.2-2]"),
    ("32 07 0001't' 0000 00 'p'", V5, PROTOCOL, "[MQTT-2.2.1-3]: packet identifier 0"),
    ("30 04 0000 00 'p'", V5, PROTOCOL, "§3.3.2.1: no topic and no alias"),
    ("30 08 0001't' 03 23 0000 'p'", V5, ALIAS, "[MQTT-3.3.2-8]: topic alias 0"),
    ("30 09 0001't' 04 01 00 01 00 'p'", V5, PROTOCOL, "§3.3.2.3.2: twice"),
    ("30 07 0001't' 02 01 02 'p'", V5, PROTOCOL, "§3.3.2.3.2: neither 0 nor 1"),
    ("30 0b 0001't' 06 08 0003'a/#' 'p'", V5, NAME, "[MQTT-3.3.2-14]: wildcard in a response topic"),
    ("30 07 0001't' 02 0b 00 'p'", V5, PROTOCOL, "§3.3.2.3.8: subscription identifier 0"),
    ("30 05 0001't' 05 'p'", V5, MALFORMED, "§2.2.2.1: properties longer than the packet"),
    ("30 03 0005't'", V5, MALFORMED, "§4.13: a topic longer than the packet"),
    ("30 05 0002 c328 00", V5, MALFORMED, "[MQTT-1.5.4-1]: not UTF-8"),
    ("30 05 0002't'00 00", V5, MALFORMED, "[MQTT-1.5.4-2]: U+0000"),
    // Acknowledgements.
    ("40 02 0000", V5, PROTOCOL, "[MQTT-2.2.1-3]: packet identifier 0"),
    ("40 01 00", V5, MALFORMED, "§4.13: cut short"),
    ("40 03 0001 01", V5, PROTOCOL, "[MQTT-3.4.2-1], §1.2: no reason of PUBACK"),
    ("62 03 0001 80", V5, PROTOCOL, "[MQTT-3.6.2-1]: no reason of PUBREL"),
    ("40 03 0001 00", V4, MALFORMED, "3.1.1 §3.4: a third byte"),
    // SUBSCRIBE, UNSUBSCRIBE.
    ("82 03 0001 00", V5, PROTOCOL, "[MQTT-3.8.3-2]: no filter"),
    ("82 02 0001", V4, PROTOCOL, "3.1.1 [MQTT-3.8.3-3]"),
    ("82 07 0001 00 0001'a' 40", V5, MALFORMED, "[MQTT-3.8.3-5]: reserved option bits"),
    ("82 06 0001 0001'a' 04", V4, MALFORMED, "3.1.1 [MQTT-3-8.3-4]"),
    ("82 07 0001 00 0001'a' 03", V5, PROTOCOL, "§3.8.3.1: QoS 3"),
    ("82 07 0001 00 0001'a' 30", V5, PROTOCOL, "§3.8.3.1: retain handling 3"),
    ("82 0f 0001 00 0009'$share/g/' 00", V5, FILTER, "[MQTT-4.8.2-2]: a share without a filter"),
    ("82 10 0001 00 000a'$share/g/a' 04", V5, PROTOCOL, "[MQTT-3.8.3-4]: No Local on a shared subscription"),
    ("82 09 0001 00 0003'a+b' 00", V5, FILTER, "[MQTT-4.7.1-2]: + within a level"),
    ("82 09 0001 00 0003'#/b' 00", V5, FILTER, "[MQTT-4.7.1-1]: # before the end"),
    ("82 06 0001 00 0000 00", V5, FILTER, "[MQTT-4.7.3-1]: an empty filter"),
    ("82 09 0001 02 0b 00 0001'a' 00", V5, PROTOCOL, "§3.8.2.1.2: subscription identifier 0"),
    ("82 0b 0001 04 0b 01 0b 02 0001'a' 00", V5, PROTOCOL, "§3.8.2.1.2: twice"),
    ("82 07 0000 00 0001'a' 00", V5, PROTOCOL, "[MQTT-2.2.1-3]: packet identifier 0"),
    ("a2 03 0001 00", V5, PROTOCOL, "[MQTT-3.10.3-2]: no filter"),
    // DISCONNECT, AUTH.
    ("e0 01 03", V5, PROTOCOL, "[MQTT-3.14.2-1]: no reason of DISCONNECT"),
    ("e0 02 00 05", V5, MALFORMED, "§2.2.2.1: properties longer than the packet"),
    ("f0 02 01 00", V5, PROTOCOL, "[MQTT-3.15.2-1]: no reason of AUTH"),
];
