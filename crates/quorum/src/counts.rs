//! What was sent, received and dropped.

use serde::Serialize;

use crate::message::Discard;

/// Every counter of a member. Plain numbers: a member belongs to one thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages made to be sent.
    pub sent: u64,
    /// Messages that the kernel would not send.
    pub send_errors: u64,
    /// Messages received that were authentic and new.
    pub received: u64,
    /// Errors of the socket.
    pub receive_errors: u64,
    /// Dropped: the length is no message's.
    pub length_errors: u64,
    /// Dropped: not this protocol, or not this version.
    pub version_errors: u64,
    /// Dropped: another cluster's.
    pub cluster_errors: u64,
    /// Dropped: for another host.
    pub receiver_errors: u64,
    /// Dropped: from a host that is not in the file.
    pub stranger_errors: u64,
    /// Dropped: the tag is wrong.
    pub tag_errors: u64,
    /// Dropped: authentic, but not understood.
    pub malformed_errors: u64,
    /// Dropped: a duplicate, overtaken, or a replay.
    pub old_errors: u64,
    /// Votes that did not count because the files of two hosts differ too much.
    pub membership: u64,
    /// Echo requests to the gateway.
    pub gateway_sent: u64,
    /// Its answers.
    pub gateway_received: u64,
}

impl Counts {
    pub(crate) fn count_discarded(&mut self, discard: Discard) {
        *match discard {
            Discard::Length => &mut self.length_errors,
            Discard::Version => &mut self.version_errors,
            Discard::Cluster => &mut self.cluster_errors,
            Discard::Receiver => &mut self.receiver_errors,
            Discard::Stranger => &mut self.stranger_errors,
            Discard::Tag => &mut self.tag_errors,
            Discard::Malformed => &mut self.malformed_errors,
            Discard::Old => &mut self.old_errors,
        } += 1;
    }
}
