//! Keys, key derivation, and the source of randomness.

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hkdf::Hkdf;
use plugin_api::{Context, Error, Result};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::shamir::Secret;
use crate::stream::Stream;

/// A public key as sent.
pub(crate) type Public = [u8; 32];

/// Bytes of the two shares that one client sends another, sealed.
pub(crate) const SEALED: usize = 2 * 32 + 16;

/// Where a client's secrets come from.
pub(crate) enum Source {
    /// The operating system.
    System,
    /// The experiment's seed, for the client and the round of a call.
    Seed(Box<Stream>),
}

impl Source {
    pub(crate) fn new(reproducible: bool, ctx: &Context<'_>) -> Self {
        if !reproducible {
            return Self::System;
        }
        let mut key = Secret::default();
        for (place, bytes) in (0..).zip(key.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&ctx.seed().of("secure").at(place).value().to_le_bytes());
        }
        Self::Seed(Box::new(Stream::new(&key)))
    }

    pub(crate) fn secret(&mut self) -> Result<Secret> {
        let mut secret = Secret::default();
        match self {
            Self::System => getrandom::fill(&mut *secret)
                .map_err(|e| Error::other("the operating system provides no random numbers").because(&e))?,
            Self::Seed(stream) => stream.fill(&mut *secret),
        }
        Ok(secret)
    }
}

/// An x25519 key pair (RFC 7748).
pub(crate) struct Pair {
    secret: StaticSecret,
    pub(crate) public: Public,
}

impl Pair {
    pub(crate) fn of(secret: &Secret) -> Self {
        let secret = StaticSecret::from(**secret);
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }

    pub(crate) fn secret(&self) -> Secret {
        Secret::new(self.secret.to_bytes())
    }

    /// 32 bytes that only the owners of the two secrets know: HKDF-SHA256 (RFC 5869), without salt, of their shared
    /// secret. The two keys in `info` bind it to the pair, in an order that both sides know.
    fn derive(&self, theirs: &Public, label: &[u8], [first, second]: [&Public; 2]) -> Result<Secret> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(*theirs));
        if !shared.was_contributory() {
            return Err(Error::other("a public key is weak: the secret that it shares with any key is known"));
        }
        let mut derived = Secret::default();
        Hkdf::<Sha256>::new(None, shared.as_bytes())
            .expand_multi_info(&[label, first, second], &mut *derived)
            .map_err(|_| Error::other("no key of this length can be derived"))?;
        Ok(derived)
    }

    /// The key of the mask between two clients; the same at both.
    pub(crate) fn mask_key(&self, theirs: &Public) -> Result<Secret> {
        let ours = &self.public;
        let pair = if ours < theirs { [ours, theirs] } else { [theirs, ours] };
        self.derive(theirs, b"fedplug secure mask", pair)
    }

    /// Seals a sender's two shares for a receiver, so that nobody else can read or change them: ChaCha20-Poly1305 (RFC
    /// 8439). Each key belongs to one round, sender and receiver, and seals once, so the nonce can be 0.
    pub(crate) fn seal(&self, receiver: &Public, shares: [&Secret; 2]) -> Result<[u8; SEALED]> {
        let key = self.derive(receiver, b"fedplug secure shares", [&self.public, receiver])?;
        let plain = zeroize::Zeroizing::new([&shares[0][..], &shares[1][..]].concat());
        let sealed = ChaCha20Poly1305::new((&*key).into()).encrypt(&Nonce::default(), &plain[..]);
        sealed.ok().and_then(|sealed| sealed.try_into().ok()).ok_or_else(|| Error::other("the shares cannot be sealed"))
    }

    /// Opens the two shares that a sender sealed for the owner of this pair.
    ///
    /// # Errors
    /// If they are from another sender, for another receiver, or were modified.
    pub(crate) fn open(&self, sender: &Public, sealed: &[u8]) -> Result<[Secret; 2]> {
        let key = self.derive(sender, b"fedplug secure shares", [sender, &self.public])?;
        let plain = ChaCha20Poly1305::new((&*key).into()).decrypt(&Nonce::default(), sealed);
        let plain = zeroize::Zeroizing::new(plain.map_err(|_| Error::other("sealed shares were changed in transit"))?);
        let [mut b, mut s] = [Secret::default(), Secret::default()];
        if plain.len() != 64 {
            return Err(Error::other("sealed shares have another length"));
        }
        b.copy_from_slice(&plain[..32]);
        s.copy_from_slice(&plain[32..]);
        Ok([b, s])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::{Seed, context::Silent};

    fn pair(byte: u8) -> Pair {
        Pair::of(&Secret::new([byte; 32]))
    }

    #[test]
    fn both_sides_derive_the_same_key_and_a_third_another() {
        let (a, b, c) = (pair(1), pair(2), pair(3));
        assert_eq!(a.mask_key(&b.public).unwrap(), b.mask_key(&a.public).unwrap());
        assert_ne!(a.mask_key(&b.public).unwrap(), a.mask_key(&c.public).unwrap());
    }

    #[test]
    fn shares_are_opened_by_their_receiver_alone_and_only_as_they_were_sealed() {
        let (a, b, c) = (pair(1), pair(2), pair(3));
        let shares = [Secret::new([7; 32]), Secret::new([8; 32])];
        let sealed = a.seal(&b.public, [&shares[0], &shares[1]]).unwrap();
        assert_eq!(b.open(&a.public, &sealed).unwrap(), shares);
        for at in [0, 63, 64, 79] {
            let mut changed = sealed;
            changed[at] ^= 1;
            let error = b.open(&a.public, &changed).unwrap_err();
            assert_eq!(error.to_string(), "sealed shares were changed in transit");
        }
        for error in [c.open(&a.public, &sealed), b.open(&c.public, &sealed), a.open(&b.public, &sealed)] {
            assert!(error.is_err(), "another than the receiver opened them, or they passed for another sender's");
        }
    }

    #[test]
    fn a_weak_public_key_is_refused() {
        assert!(pair(1).mask_key(&[0; 32]).unwrap_err().message().contains("a public key is weak"));
    }

    #[test]
    fn secrets_differ_but_those_of_a_seed_come_again() {
        let ctx = Context::new(&Silent).with_seed(Seed::new(1)).with_client("a").with_round(2);
        let two = |reproducible, ctx: &Context<'_>| {
            let mut source = Source::new(reproducible, ctx);
            [source.secret().unwrap(), source.secret().unwrap()]
        };
        assert_eq!(two(true, &ctx), two(true, &ctx));
        assert_ne!(two(true, &ctx), two(true, &ctx.clone().with_round(3)));
        assert_ne!(two(true, &ctx), two(true, &ctx.clone().with_client("b")));
        let ([a, b], [c, d]) = (two(true, &ctx), two(false, &ctx));
        assert!(a != b && c != d && a != c);
        assert_ne!(two(false, &ctx), two(false, &ctx));
    }
}
