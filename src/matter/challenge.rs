//! A `Crypto` that watches a PASE handshake: how far it got, and the attestation challenge it ends with.
//!
//! rs-matter keeps the challenge in a private field and reports every refusal as `Invalid`. Its handshake uses the trait in
//! a fixed order, so the trait's calls tell both. Not here: the handshake (`matter::pase`).

use std::cell::Cell;
use std::convert::Infallible;

use rand::{Rng, TryCryptoRng, TryRng};
use rs_matter::crypto::{
    CanonEcPointRef, CanonEcScalarRef, CanonPkcPublicKeyRef, CanonPkcSecretKeyRef, CanonUint320Ref, Crypto,
    CryptoSensitive, CryptoSensitiveRef, Kdf,
};
use rs_matter::error::Error;
use zeroize::Zeroizing;

/// How far a PASE handshake got (Matter Core 4.14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PaseProgress {
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
pub(crate) struct WatchedCrypto<C> {
    inner: C,
    watch: Watch,
}

struct Watch {
    drawn: Cell<u64>,
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
    pub(crate) fn new(inner: C) -> Self {
        let watch =
            Watch { drawn: Cell::default(), progress: Cell::new(PaseProgress::Asked), challenge: Cell::new(None) };
        Self { inner, watch }
    }

    /// How far the handshake got.
    pub(crate) fn progress(&self) -> PaseProgress {
        self.watch.progress.get()
    }

    /// The last number of 64 bits that was drawn. For a new plaintext session that is the initiator's node id, which
    /// rs-matter tells nobody.
    pub(crate) fn last_drawn(&self) -> u64 {
        self.watch.drawn.get()
    }

    /// The attestation challenge, once the session keys are derived. Can be taken once.
    pub(crate) fn take_challenge(&self) -> Option<[u8; 16]> {
        self.watch.challenge.take().map(|challenge| *challenge)
    }
}

/// See [`WatchedCrypto`].
pub(crate) struct WatchedKdf<'a, K>(K, &'a Watch);

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

/// See [`WatchedCrypto::last_drawn`].
pub(crate) struct WatchedRand<'a, R>(R, &'a Watch);

impl<R: Copy> Copy for WatchedRand<'_, R> {}

impl<R: Copy> Clone for WatchedRand<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Rng> TryRng for WatchedRand<'_, R> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let number = self.0.next_u64();
        self.1.drawn.set(number);
        Ok(number)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

impl<R: rand::CryptoRng> TryCryptoRng for WatchedRand<'_, R> {}

/// For decorators of a `Crypto` named `inner`: the types that are passed on.
macro_rules! forward_types {
    ($($name:ident),*) => { $(type $name<'a> = C::$name<'a> where Self: 'a;)* };
}

/// The same for the methods that no decorator here looks at.
macro_rules! forward_methods {
    () => {
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
    };
}
pub(super) use {forward_methods, forward_types};

impl<C: Crypto> Crypto for WatchedCrypto<C> {
    forward_types!(WeakRand, Hash, Hash1, Hmac, PbKdf, Aead, PublicKey, SecretKey, SigningSecretKey, EcScalar, EcPoint);
    type Rand<'a>
        = WatchedRand<'a, C::Rand<'a>>
    where
        Self: 'a;

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
        Ok(WatchedRand(self.inner.rand()?, &self.watch))
    }

    fn aead(&self) -> Result<Self::Aead<'_>, Error> {
        self.inner.aead()
    }

    forward_methods!();
}
