//! An answer shows that its question has arrived, also where it does not acknowledge it.
//!
//! A device that takes its time acknowledges a question first, and its answer acknowledges nothing any more (Matter Core 4.12.5.2).
//! Where that acknowledgement is lost, overtaken or kept back (`heard`), rs-matter 0.4.1 has the answer in its one receive buffer,
//! does not give it out while it repeats the question (`ExchangeId::recv`), and so hears nobody: not this device's next
//! acknowledgement, and no other device. One lost datagram, and the hub is deaf until MRP gives up after six seconds. To be
//! reported upstream.
//!
//! So such an answer gets the acknowledgement that it implies. Only the exchange says which question that was, and all but
//! handshakes is encrypted: [`Opened`] is a `Crypto` for rs-matter's transport, which sees each message as it is sealed and as
//! it is opened. It refuses the answer and seals it again with the acknowledgement in it; the socket hands that out next. Not
//! here: what else passes the socket (`socket`, `heard`, `replies`).

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rs_matter::crypto::{
    AEAD_CANON_KEY_LEN, AEAD_NONCE_LEN, AEAD_TAG_LEN, Aead, CanonEcPointRef, CanonEcScalarRef, CanonPkcPublicKeyRef,
    CanonPkcSecretKeyRef, CanonUint320Ref, Crypto, CryptoSensitiveRef,
};
use rs_matter::error::{Error, ErrorCode};
use rs_matter::transport::packet::PacketHdr;
use rs_matter::utils::storage::{ParseBuf, WriteBuf};

use crate::matter::challenge::{forward_methods, forward_types};

/// MRP repeats a question for less than this, also to a peer that seldom listens.
const REPEATED_FOR: Duration = Duration::from_secs(120);

/// Our questions that nobody has acknowledged yet. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Questions(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    /// By exchange: the counter of the message that is repeated, and when it was sent last.
    open: HashMap<u16, (u32, Instant)>,
    /// Answers with their acknowledgement, for the socket to hand out.
    mended: VecDeque<Vec<u8>>,
}

impl Questions {
    /// A message leaves: its headers.
    fn handle_sent(&self, header: &PacketHdr, now: Instant) {
        if header.proto.is_initiator() && header.proto.is_reliable() {
            let open = &mut self.0.borrow_mut().open;
            open.retain(|_, (_, sent)| now.saturating_duration_since(*sent) < REPEATED_FOR);
            open.insert(header.proto.exch_id, (header.plain.ctr, now));
        }
    }

    /// A message has come: the counter that it has to acknowledge and does not.
    ///
    /// The question stays open until it is acknowledged: the answer may come several times.
    fn handle_received(&self, header: &PacketHdr) -> Option<u32> {
        let open = &mut self.0.borrow_mut().open;
        let asked =
            open.get(&header.proto.exch_id).map(|(asked, _)| *asked).filter(|_| !header.proto.is_initiator())?;
        match header.proto.get_ack() {
            Some(acknowledged) if acknowledged == asked => open.remove(&header.proto.exch_id).and(None),
            Some(_) => None,
            // An answer that nobody repeats is left as it is: it asks for no acknowledgement, and may be anything.
            None => header.proto.is_reliable().then_some(asked),
        }
    }

    /// An unsecured datagram leaves.
    pub(crate) fn handle_unsecured_sent(&self, bytes: &[u8], crypto: impl Crypto, now: Instant) {
        if let Some(header) = read(bytes, crypto) {
            self.handle_sent(&header, now);
        }
    }

    /// An unsecured datagram has come: what it should have been, where it should have acknowledged something.
    pub(crate) fn mend_unsecured(&self, bytes: &[u8], crypto: impl Crypto) -> Option<Vec<u8>> {
        let header = read(bytes, crypto)?;
        let asked = self.handle_received(&header)?;
        let (plain, rest) = bytes.split_at_checked(write(|buffer| header.plain.encode(buffer))?.len())?;
        Some([plain, &acknowledging(header, asked, rest)?].concat())
    }

    /// Whether the socket has an answer to hand out.
    pub(crate) fn is_mended(&self) -> bool {
        !self.0.borrow().mended.is_empty()
    }

    /// That answer; it comes from whoever sent the last datagram.
    pub(crate) fn take_mended(&self) -> Option<Vec<u8>> {
        self.0.borrow_mut().mended.pop_front()
    }
}

/// Both headers of a datagram that is unsecured or opened. Nothing of its payload is copied, which may be a secret.
fn read(bytes: &[u8], crypto: impl Crypto) -> Option<PacketHdr> {
    let mut headers = bytes.get(..PacketHdr::HDR_RESERVE).unwrap_or(bytes).to_vec();
    let mut buffer = ParseBuf::new(&mut headers);
    let mut header = PacketHdr::new();
    header.decode_plain_hdr(&mut buffer).ok()?;
    // There is no key, and so nothing is computed.
    header.decode_remaining(crypto, None, 0, &mut buffer).ok()?;
    Some(header)
}

/// The same of one that comes in its two parts.
fn read_opened(plain: &[u8], rest: &[u8], crypto: impl Crypto) -> Option<PacketHdr> {
    read(&[plain, rest.get(..PacketHdr::HDR_RESERVE).unwrap_or(rest)].concat(), crypto)
}

/// `rest` of this message, from its protocol header on, with an acknowledgement in it.
fn acknowledging(mut header: PacketHdr, counter: u32, rest: &[u8]) -> Option<Vec<u8>> {
    let payload = rest.get(write(|buffer| header.proto.encode(buffer))?.len()..)?;
    header.proto.set_ack(Some(counter));
    Some([&write(|buffer| header.proto.encode(buffer))?, payload].concat())
}

fn write(encode: impl FnOnce(&mut WriteBuf<'_>) -> Result<(), Error>) -> Option<Vec<u8>> {
    let mut bytes = [0; PacketHdr::HDR_RESERVE];
    let mut buffer = WriteBuf::new(&mut bytes);
    encode(&mut buffer).ok()?;
    Some(buffer.as_slice().to_vec())
}

/// See the module.
pub(crate) struct Opened<C> {
    inner: C,
    questions: Questions,
}

impl<C> Opened<C> {
    pub(crate) fn new(inner: C, questions: Questions) -> Self {
        Self { inner, questions }
    }
}

/// See [`Opened`].
pub(crate) struct OpenedAead<'a, C: Crypto + 'a> {
    inner: C::Aead<'a>,
    opened: &'a Opened<C>,
}

type Secret<'a, const LENGTH: usize> = CryptoSensitiveRef<'a, LENGTH>;

impl<C: Crypto> Aead<AEAD_CANON_KEY_LEN, AEAD_NONCE_LEN> for OpenedAead<'_, C> {
    fn encrypt_in_place<'a>(
        &mut self,
        key: Secret<'_, AEAD_CANON_KEY_LEN>,
        nonce: Secret<'_, AEAD_NONCE_LEN>,
        plain: &[u8],
        data: &'a mut [u8],
        length: usize,
    ) -> Result<&'a [u8], Error> {
        if let Some(header) = data.get(..length).and_then(|rest| read_opened(plain, rest, &self.opened.inner)) {
            self.opened.questions.handle_sent(&header, Instant::now());
        }
        self.inner.encrypt_in_place(key, nonce, plain, data, length)
    }

    fn decrypt_in_place<'a>(
        &mut self,
        key: Secret<'_, AEAD_CANON_KEY_LEN>,
        nonce: Secret<'_, AEAD_NONCE_LEN>,
        plain: &[u8],
        data: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        let Opened { questions, inner } = self.opened;
        let rest = self.inner.decrypt_in_place(key, nonce, plain, data)?;
        let Some(header) = read_opened(plain, rest, inner) else { return Ok(rest) };
        let Some(asked) = questions.handle_received(&header) else { return Ok(rest) };
        let mut sealed = acknowledging(header, asked, rest).ok_or(ErrorCode::Invalid)?;
        let length = sealed.len();
        sealed.resize(length + AEAD_TAG_LEN, 0);
        self.inner.encrypt_in_place(key, nonce, plain, &mut sealed, length)?;
        questions.0.borrow_mut().mended.push_back([plain, &sealed].concat());
        // rs-matter drops what does not open, and remembers nothing of it.
        Err(ErrorCode::Invalid.into())
    }
}

impl<C: Crypto> Crypto for Opened<C> {
    forward_types!(
        Rand,
        WeakRand,
        Hash,
        Hash1,
        Hmac,
        Kdf,
        PbKdf,
        PublicKey,
        SecretKey,
        SigningSecretKey,
        EcScalar,
        EcPoint
    );
    type Aead<'a>
        = OpenedAead<'a, C>
    where
        Self: 'a;

    fn aead(&self) -> Result<Self::Aead<'_>, Error> {
        Ok(OpenedAead { inner: self.inner.aead()?, opened: self })
    }

    fn rand(&self) -> Result<Self::Rand<'_>, Error> {
        self.inner.rand()
    }

    fn kdf(&self) -> Result<Self::Kdf<'_>, Error> {
        self.inner.kdf()
    }

    fn pbkdf(&self) -> Result<Self::PbKdf<'_>, Error> {
        self.inner.pbkdf()
    }

    forward_methods!();
}

#[cfg(test)]
mod tests {
    use rs_matter::crypto::CanonAeadKeyRef;

    use super::*;
    use crate::matter::credentials::backend;

    const KEY: [u8; AEAD_CANON_KEY_LEN] = [7; AEAD_CANON_KEY_LEN];
    const NODE: u64 = 0x1122;

    /// One message of one exchange.
    struct Message {
        exchange: u16,
        counter: u32,
        ours: bool,
        reliable: bool,
        acknowledges: Option<u32>,
    }

    const QUESTION: Message = Message { exchange: 7, counter: 50, ours: true, reliable: true, acknowledges: None };
    const ANSWER: Message = Message { exchange: 7, counter: 900, ours: false, reliable: true, acknowledges: None };

    impl Message {
        fn header(&self, session: u16) -> PacketHdr {
            let mut header = PacketHdr::new();
            header.plain.sess_id = session;
            header.plain.ctr = self.counter;
            header.proto.exch_id = self.exchange;
            (header.proto.proto_id, header.proto.proto_opcode) = (1, 9);
            header.proto.set_ack(self.acknowledges);
            if self.ours {
                header.proto.set_initiator();
            }
            if self.reliable {
                header.proto.set_reliable();
            }
            header
        }

        /// As it is on the wire: unsecured on session 0.
        fn write(&self, session: u16, crypto: impl Crypto) -> Vec<u8> {
            let mut bytes = [0; 200];
            let mut buffer = WriteBuf::new_with(&mut bytes, PacketHdr::HDR_RESERVE, PacketHdr::HDR_RESERVE);
            buffer.append(b"payload").unwrap();
            let key = (session != 0).then_some(CanonAeadKeyRef::new(&KEY));
            self.header(session).encode(crypto, key, NODE, &mut buffer).unwrap();
            buffer.as_slice().to_vec()
        }
    }

    /// What it acknowledges, and its payload.
    fn open(bytes: &[u8], crypto: impl Crypto) -> Result<(Option<u32>, Vec<u8>), Error> {
        let mut copy = bytes.to_vec();
        let mut buffer = ParseBuf::new(&mut copy);
        let mut header = PacketHdr::new();
        header.decode_plain_hdr(&mut buffer)?;
        let key = header.plain.is_encrypted().then_some(CanonAeadKeyRef::new(&KEY));
        header.decode_remaining(crypto, key, NODE, &mut buffer)?;
        Ok((header.proto.get_ack(), buffer.as_slice().to_vec()))
    }

    #[test]
    fn an_answer_in_a_handshake_acknowledges_its_question() {
        let (questions, crypto) = (Questions::default(), backend());
        let mended = |message: Message| {
            let mended = questions.mend_unsecured(&message.write(0, &crypto), &crypto)?;
            Some(open(&mended, &crypto).expect("a message"))
        };
        // There is no question.
        assert_eq!(mended(ANSWER), None);
        questions.handle_unsecured_sent(&QUESTION.write(0, &crypto), &crypto, Instant::now());
        for _repetition in 0..2 {
            assert_eq!(mended(ANSWER), Some((Some(50), b"payload".to_vec())));
        }
        // None of these is the answer, or nobody repeats it.
        assert_eq!(mended(Message { exchange: 8, ..ANSWER }), None);
        assert_eq!(mended(Message { ours: true, ..ANSWER }), None);
        assert_eq!(mended(Message { reliable: false, ..ANSWER }), None);
        assert_eq!(mended(Message { acknowledges: Some(49), ..ANSWER }), None);
        assert!(mended(ANSWER).is_some());
        assert_eq!(mended(Message { acknowledges: Some(50), reliable: false, ..ANSWER }), None);
        assert_eq!(mended(ANSWER), None);
    }

    #[test]
    fn a_sealed_answer_is_sealed_again_with_its_acknowledgement() {
        let (questions, device) = (Questions::default(), backend());
        let hub = Opened::new(backend(), questions.clone());
        assert!(open(&QUESTION.write(3, &hub), &device).is_ok(), "the device reads it as before");
        let answer = ANSWER.write(4, &device);
        assert!(open(&answer, &hub).is_err());
        assert!(questions.is_mended());
        let mended = questions.take_mended().expect("it is mended");
        assert_eq!(open(&mended, &hub).expect("it opens"), (Some(50), b"payload".to_vec()));
        // The next one acknowledges another question, and nobody waits for this one any more.
        assert_eq!(open(&answer, &hub).expect("it opens"), (None, b"payload".to_vec()));
        assert!(!questions.is_mended());
        // What does not open with the key is nobody's answer.
        open(&QUESTION.write(3, &hub), &device).expect("it is asked again");
        let mut broken = answer.clone();
        *broken.last_mut().expect("a tag") ^= 1;
        assert!(open(&broken, &hub).is_err());
        assert!(!questions.is_mended());
    }

    #[test]
    fn what_mrp_has_given_up_is_forgotten() {
        let (questions, begin) = (Questions::default(), Instant::now());
        questions.handle_sent(&QUESTION.header(3), begin);
        let other = Message { exchange: 9, ..QUESTION };
        questions.handle_sent(&other.header(3), begin + REPEATED_FOR);
        assert_eq!(questions.handle_received(&ANSWER.header(4)), None);
        assert_eq!(questions.handle_received(&Message { exchange: 9, ..ANSWER }.header(4)), Some(50));
    }
}
