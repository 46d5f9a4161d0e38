//! GROUP, GROUPS and DIRECTIONS: shared subscriptions with members at several brokers.
//!
//! ```text
//!  129 GROUP              | connected u32 | all u32 | since u64 | length u16 | topic filter |
//!  130 GROUPS             | phase u8 |
//!  131 DIRECTIONS         | seq u64 | see [`crate::directions`] |
//! ```
//!
//! GROUP says how many members a group has at the sender of the frame, see [`Members`]; without any it has none any more. Between a
//! GROUPS of phase 0 and one of phase 1 come all that it has. DIRECTIONS comes before the ENTRY of that number and belongs to it.

use bytes::{Buf, BufMut, BytesMut};
use evermq_mqtt::Text;

use crate::directions::Directions;
use crate::groups::Members;

/// The minor of version 1 that brought them. Who does not know them ignores them.
pub(crate) const SINCE_MINOR: u8 = 2;

pub(super) const GROUP: u8 = 129;
pub(super) const GROUPS: u8 = 130;
pub(super) const DIRECTIONS: u8 = 131;

const BEGIN: u8 = 0;
const COMPLETE: u8 = 1;
const GROUP_FIELDS: usize = 18;

/// GROUP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// The topic filter, `$share/` and the group's name included.
    pub(crate) filter: Text,
    /// Its members at the sender of the frame.
    pub(crate) members: Members,
}

/// DIRECTIONS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directed {
    /// The number of the entry.
    pub(crate) seq: u64,
    /// Where it is to go.
    pub(crate) directions: Directions,
}

pub(super) fn put_group(group: &Group, out: &mut BytesMut) {
    let Members { connected, all, since } = group.members;
    out.put_u32(connected);
    out.put_u32(all);
    out.put_u64(since);
    super::claim::put_text(group.filter.as_str(), out);
}

pub(super) fn get_group(mut body: BytesMut) -> Option<Group> {
    let members =
        Members { connected: body.try_get_u32().ok()?, all: body.try_get_u32().ok()?, since: body.try_get_u64().ok()? };
    Some(Group { filter: super::claim::get_text(&mut body)?, members })
}

/// Length of the body of a GROUP.
pub(crate) fn group_body(group: &Group) -> usize {
    GROUP_FIELDS + group.filter.as_str().len()
}

pub(super) fn put_groups(is_complete: bool, out: &mut BytesMut) {
    out.put_u8(if is_complete { COMPLETE } else { BEGIN });
}

pub(super) fn get_groups(mut body: BytesMut) -> Option<bool> {
    match body.try_get_u8().ok()? {
        BEGIN => Some(false),
        COMPLETE => Some(true),
        _ => None,
    }
}

pub(super) fn put_directed(directed: &Directed, out: &mut BytesMut) {
    out.put_u64(directed.seq);
    out.put_slice(directed.directions.as_bytes());
}

pub(super) fn get_directed(mut body: BytesMut) -> Option<Directed> {
    Some(Directed { seq: body.try_get_u64().ok()?, directions: Directions::parse(&body)? })
}
