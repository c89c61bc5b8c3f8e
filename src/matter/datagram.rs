//! What of a Matter datagram can be read without keys (Matter Core 4.4, 4.7). Pure.
//!
//! Not here: what is concluded from it (`matter::heard`, `matter::replies`).

use rs_matter::crypto::Crypto;
use rs_matter::sc::{GeneralCode, OpCode, PROTO_ID_SECURE_CHANNEL, StatusReport};
use rs_matter::tlv::TLVElement;
use rs_matter::transport::packet::PacketHdr;
use rs_matter::utils::storage::{ParseBuf, ReadBuf};

/// A secured datagram of this length or less has no payload: eight bytes of plain header, ten of protocol header with an
/// acknowledged counter, sixteen of tag. So it is a standalone acknowledgement.
const BARE_ACKNOWLEDGEMENT: usize = 34;

/// The parts that are not encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// The receiver's id of the session; 0 where it is unsecured.
    pub session: u16,
    pub counter: u32,
    /// Source node id; on an unsecured session the initiator's, made up for this one session.
    pub source: Option<u64>,
    /// Destination node id; on an unsecured session the initiator's again, as it is echoed.
    pub destination: Option<u64>,
    /// How long it is.
    pub length: usize,
    /// What an unsecured one says.
    pub unsecured: Option<Unsecured>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsecured {
    pub message: Message,
    /// Whether it asks for an acknowledgement.
    pub reliable: bool,
    /// Which counter it acknowledges.
    pub acknowledges: Option<u32>,
}

/// What an unsecured message can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A standalone acknowledgement (4.12.5).
    Acknowledgement,
    /// A StatusReport of the secure channel (4.11.1, appendix D).
    Status(ChannelStatus),
    /// PBKDFParamRequest or Sigma1, with the id that its sender gave to the session to be, where it can be read.
    Opening {
        session: Option<u16>,
    },
    /// A check-in (4.20), with its sealed payload.
    CheckIn(Vec<u8>),
    Other,
}

/// GeneralCode and ProtocolCode of a StatusReport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelStatus {
    /// Whether GeneralCode is SUCCESS.
    pub success: bool,
    /// GeneralCode BUSY, or the secure channel's own code BUSY.
    pub busy: bool,
    /// ProtocolCode: 1 no shared trust roots, 2 invalid parameter, 3 close session, 4 busy, 5 session not found.
    pub code: u16,
}

impl Datagram {
    /// Reads what can be read; nothing where it is no Matter message.
    pub(crate) fn read(bytes: &[u8], crypto: impl Crypto) -> Option<Self> {
        let mut copy = bytes.to_vec();
        let mut buffer = ParseBuf::new(&mut copy);
        let mut header = PacketHdr::new();
        header.decode_plain_hdr(&mut buffer).ok()?;
        let unsecured = if header.plain.is_encrypted() {
            None
        } else {
            header.decode_remaining(crypto, None, 0, &mut buffer).ok()?;
            Some(Unsecured {
                message: message(&header, buffer.as_slice()),
                reliable: header.proto.is_reliable(),
                acknowledges: header.proto.get_ack(),
            })
        };
        Some(Self {
            session: header.plain.sess_id,
            counter: header.plain.ctr,
            source: header.plain.get_src_nodeid(),
            destination: header.plain.get_dst_unicast_nodeid(),
            length: bytes.len(),
            unsecured,
        })
    }

    /// Whether it says nothing but "arrived".
    pub(crate) fn is_acknowledgement(&self) -> bool {
        match &self.unsecured {
            Some(unsecured) => unsecured.message == Message::Acknowledgement,
            None => self.length <= BARE_ACKNOWLEDGEMENT,
        }
    }

    /// Whether it asks its receiver for a session.
    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.unsecured, Some(Unsecured { message: Message::Opening { .. }, .. }))
    }

    /// The StatusReport that it is.
    pub(crate) fn status(&self) -> Option<ChannelStatus> {
        match self.unsecured.as_ref()?.message {
            Message::Status(status) => Some(status),
            Message::Acknowledgement | Message::Opening { .. } | Message::CheckIn(_) | Message::Other => None,
        }
    }

    /// The sealed payload of the check-in that it is.
    pub(crate) fn check_in(&self) -> Option<&[u8]> {
        match &self.unsecured.as_ref()?.message {
            Message::CheckIn(payload) => Some(payload),
            Message::Acknowledgement | Message::Status(_) | Message::Opening { .. } | Message::Other => None,
        }
    }
}

fn message(header: &PacketHdr, payload: &[u8]) -> Message {
    if header.proto.proto_id != PROTO_ID_SECURE_CHANNEL {
        return Message::Other;
    }
    match header.proto.opcode::<OpCode>() {
        Ok(OpCode::MRPStandAloneAck) => Message::Acknowledgement,
        Ok(OpCode::StatusReport) => status(payload).map_or(Message::Other, Message::Status),
        // Both carry the initiator's session id in tag 2 (4.14.1.2, 4.14.2.3).
        Ok(OpCode::PBKDFParamRequest | OpCode::CASESigma1) => {
            let session = TLVElement::new(payload).structure().and_then(|fields| fields.find_ctx(2)?.u16());
            Message::Opening { session: session.ok() }
        }
        Ok(OpCode::CheckIn) => Message::CheckIn(payload.to_vec()),
        Ok(_) | Err(_) => Message::Other,
    }
}

fn status(payload: &[u8]) -> Option<ChannelStatus> {
    let mut payload = ReadBuf::new(payload);
    let report = StatusReport::read(&mut payload).ok()?;
    Some(ChannelStatus {
        success: report.general_code == GeneralCode::Success,
        busy: report.general_code == GeneralCode::Busy || report.proto_code == 4,
        code: report.proto_code,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::matter::credentials::backend;

    /// An unsecured message of the secure channel, as bytes: to `destination` where one is given.
    pub(crate) fn unsecured(
        opcode: u8,
        reliable: bool,
        counter: u32,
        destination: Option<u64>,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut bytes = vec![u8::from(destination.is_some()), 0, 0, 0];
        bytes.extend(counter.to_le_bytes());
        bytes.extend(destination.iter().flat_map(|node| node.to_le_bytes()));
        bytes.extend([if reliable { 4 } else { 0 }, opcode, 7, 0, 0, 0]);
        bytes.extend(payload);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Datagram> {
        Datagram::read(bytes, backend())
    }

    #[test]
    fn a_status_report_is_understood() {
        let bytes = unsecured(0x40, true, 9, Some(77), &[1, 0, 0, 0, 0, 0, 2, 0]);
        let seen = read(&bytes).unwrap();
        assert_eq!(seen.status(), Some(ChannelStatus { success: false, busy: false, code: 2 }));
        assert_eq!((seen.counter, seen.destination, seen.source), (9, Some(77), None));
        assert!(seen.unsecured.is_some_and(|unsecured| unsecured.reliable));
        let busy = read(&unsecured(0x40, false, 9, None, &[8, 0, 0, 0, 0, 0, 4, 0])).unwrap();
        assert_eq!(busy.status(), Some(ChannelStatus { success: false, busy: true, code: 4 }));
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]).and_then(|seen| seen.status()), None, "cut to {length}");
        }
    }

    #[test]
    fn acknowledgements_are_known_by_opcode_or_by_length() {
        assert!(read(&unsecured(0x10, false, 1, None, &[])).unwrap().is_acknowledgement());
        assert!(!read(&unsecured(0x21, true, 1, None, &[])).unwrap().is_acknowledgement());
        let secured = |length: usize| {
            let mut bytes = vec![0, 5, 0, 0, 1, 0, 0, 0];
            bytes.resize(length, 0);
            bytes
        };
        assert!(read(&secured(34)).unwrap().is_acknowledgement());
        assert!(!read(&secured(35)).unwrap().is_acknowledgement());
    }

    #[test]
    fn a_check_in_keeps_its_payload_sealed() {
        let seen = read(&unsecured(0x50, false, 3, None, &[7; 35])).unwrap();
        assert_eq!(seen.check_in(), Some(&[7; 35][..]));
        assert_eq!((seen.is_opening(), seen.is_acknowledgement(), seen.status()), (false, false, None));
    }

    #[test]
    fn an_opening_tells_its_session() {
        // Structure; tag 1 an octet string of one byte; tag 2 the number 0x0102.
        let seen = read(&unsecured(0x30, true, 1, None, &[0x15, 0x30, 1, 1, 0, 0x25, 2, 2, 1, 0x18])).unwrap();
        assert!(seen.is_opening());
        assert_eq!(seen.unsecured.unwrap().message, Message::Opening { session: Some(0x0102) });
        // A stranger need not spell it right.
        let nested = read(&unsecured(0x30, true, 1, None, &[0x15; 1200])).unwrap();
        assert_eq!(nested.unsecured.unwrap().message, Message::Opening { session: None });
    }
}
