//! A `Crypto` that watches a PASE handshake: how far it got, and the attestation challenge it ends with.
//!
//! rs-matter keeps the challenge in a private field and reports every refusal as `Invalid`. Its handshake uses the trait in
//! a fixed order, so the trait's calls tell both. Not here: the handshake (`matter::pase`).

use std::cell::Cell;

use rs_matter::crypto::{
    CanonEcPointRef, CanonEcScalarRef, CanonPkcPublicKeyRef, CanonPkcSecretKeyRef, CanonUint320Ref, Crypto,
    CryptoSensitive, CryptoSensitiveRef, Kdf,
};
use rs_matter::error::Error;
use zeroize::Zeroizing;

/// How far a PASE handshake got (Matter Core 4.14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PaseProgress {
    /// PBKDFParamRequest is under way; nothing about the passcode has been sent.
    Asked,
    /// PBKDFParamResponse has come: from now on the device may count a try.
    Parameters,
    /// Pake2 has come and its confirmation `cB` is being compared.
    Confirming,
    /// Both sides have proved the passcode.
    Proved,
}

/// The decorator; one for each handshake.
pub struct WatchedCrypto<C> {
    inner: C,
    watch: Watch,
}

struct Watch {
    progress: Cell<PaseProgress>,
    challenge: Cell<Option<Zeroizing<[u8; 16]>>>,
}

impl Watch {
    fn reached(&self, progress: PaseProgress) {
        self.progress.set(self.progress.get().max(progress));
    }
}

impl<C> WatchedCrypto<C> {
    /// Watches `inner`.
    pub fn new(inner: C) -> Self {
        let watch = Watch { progress: Cell::new(PaseProgress::Asked), challenge: Cell::new(None) };
        Self { inner, watch }
    }

    /// How far the handshake got.
    pub fn progress(&self) -> PaseProgress {
        self.watch.progress.get()
    }

    /// The attestation challenge, once the session keys are derived. Can be taken once.
    pub fn take_challenge(&self) -> Option<[u8; 16]> {
        self.watch.challenge.take().map(|challenge| *challenge)
    }
}

/// See [`WatchedCrypto`].
pub struct WatchedKdf<'a, K>(K, &'a Watch);

impl<K: Kdf> Kdf for WatchedKdf<'_, K> {
    fn expand<const IKM: usize, const KEY: usize>(
        self,
        salt: &[u8],
        ikm: CryptoSensitiveRef<'_, IKM>,
        info: &[u8],
        key: &mut CryptoSensitive<KEY>,
    ) -> Result<(), Error> {
        self.0.expand(salt, ikm, info, key)?;
        match info {
            b"ConfirmationKeys" => self.1.reached(PaseProgress::Confirming),
            // I2RKey, R2IKey and AttestationChallenge, 16 bytes each (Matter Core 4.14.1.2).
            b"SessionKeys" => {
                self.1.reached(PaseProgress::Proved);
                let challenge = key.access().get(32..48).and_then(|tail| tail.try_into().ok());
                self.1.challenge.set(challenge.map(Zeroizing::new));
            }
            _ => {}
        }
        Ok(())
    }
}

macro_rules! forward_types {
    ($($name:ident),*) => { $(type $name<'a> = C::$name<'a> where Self: 'a;)* };
}

impl<C: Crypto> Crypto for WatchedCrypto<C> {
    forward_types!(
        Rand,
        WeakRand,
        Hash,
        Hash1,
        Hmac,
        PbKdf,
        Aead,
        PublicKey,
        SecretKey,
        SigningSecretKey,
        EcScalar,
        EcPoint
    );
    type Kdf<'a>
        = WatchedKdf<'a, C::Kdf<'a>>
    where
        Self: 'a;

    fn kdf(&self) -> Result<Self::Kdf<'_>, Error> {
        Ok(WatchedKdf(self.inner.kdf()?, &self.watch))
    }

    fn pbkdf(&self) -> Result<Self::PbKdf<'_>, Error> {
        self.watch.reached(PaseProgress::Parameters);
        self.inner.pbkdf()
    }

    fn rand(&self) -> Result<Self::Rand<'_>, Error> {
        self.inner.rand()
    }

    fn weak_rand(&self) -> Result<Self::WeakRand<'_>, Error> {
        self.inner.weak_rand()
    }

    fn hash(&self) -> Result<Self::Hash<'_>, Error> {
        self.inner.hash()
    }

    fn hash1(&self) -> Result<Self::Hash1<'_>, Error> {
        self.inner.hash1()
    }

    fn hmac<const LEN: usize>(&self, key: CryptoSensitiveRef<'_, LEN>) -> Result<Self::Hmac<'_>, Error> {
        self.inner.hmac(key)
    }

    fn aead(&self) -> Result<Self::Aead<'_>, Error> {
        self.inner.aead()
    }

    fn pub_key(&self, key: CanonPkcPublicKeyRef<'_>) -> Result<Self::PublicKey<'_>, Error> {
        self.inner.pub_key(key)
    }

    fn secret_key(&self, key: CanonPkcSecretKeyRef<'_>) -> Result<Self::SecretKey<'_>, Error> {
        self.inner.secret_key(key)
    }

    fn generate_secret_key(&self) -> Result<Self::SecretKey<'_>, Error> {
        self.inner.generate_secret_key()
    }

    fn singleton_singing_secret_key(&self) -> Result<Self::SigningSecretKey<'_>, Error> {
        self.inner.singleton_singing_secret_key()
    }

    fn ec_scalar(&self, scalar: CanonEcScalarRef<'_>) -> Result<Self::EcScalar<'_>, Error> {
        self.inner.ec_scalar(scalar)
    }

    fn ec_scalar_mod_p(&self, uint: CanonUint320Ref<'_>) -> Result<Self::EcScalar<'_>, Error> {
        self.inner.ec_scalar_mod_p(uint)
    }

    fn generate_ec_scalar(&self) -> Result<Self::EcScalar<'_>, Error> {
        self.inner.generate_ec_scalar()
    }

    fn ec_point(&self, point: CanonEcPointRef<'_>) -> Result<Self::EcPoint<'_>, Error> {
        self.inner.ec_point(point)
    }

    fn ec_generator_point(&self) -> Result<Self::EcPoint<'_>, Error> {
        self.inner.ec_generator_point()
    }
}
