//! Long-term keys: they identify a client independently of the server.

use std::collections::BTreeMap;

use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use plugin_api::{Context, Error, Message, Result, Tensor};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::config::FilterConfig;
use crate::secrets::Public;
use crate::terms::Terms;

/// Bytes of an ed25519 signature (RFC 8032).
pub(crate) const SIGNATURE: usize = 64;

/// Length of a signature plus a byte that says whether its client trained.
pub(crate) const AGREED: usize = SIGNATURE + 1;

/// A client's own key, and the public keys of all clients that it knows.
pub(crate) struct Identity {
    key: SigningKey,
    members: BTreeMap<String, VerifyingKey>,
}

/// A digest of what a client was shown of a round: the round's number, the terms, and all members with their keys. The
/// client's own fresh keys are among them, so nobody can have signed this digest in an earlier round, run or attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transcript([u8; 32]);

impl Transcript {
    pub(crate) fn of(round: u64, terms: Terms, members: &[String], keys: &[[Public; 2]]) -> Self {
        let mut digest = Sha256::new();
        digest.update(b"fedplug secure round");
        digest.update(round.to_le_bytes());
        digest.update(terms.bytes());
        digest.update((members.len() as u64).to_le_bytes());
        for (name, keys) in members.iter().zip(keys) {
            digest.update((name.len() as u64).to_le_bytes());
            digest.update(name);
            digest.update(keys.as_flattened());
        }
        Self(digest.finalize().into())
    }

    /// The data that a client signs before it deals shares.
    fn of_keys(&self, client: &str) -> Vec<u8> {
        [&b"fedplug secure keys"[..], &self.0, client.as_bytes()].concat()
    }

    /// The data that a client signs when the updates have arrived.
    fn of_arrived(&self, client: &str, arrived: &[usize], sent: &Sent) -> Vec<u8> {
        let places = arrived.iter().flat_map(|&place| (place as u64).to_le_bytes()).collect::<Vec<u8>>();
        let count = (arrived.len() as u64).to_le_bytes();
        let sent = [&sent.global[..], &[sent.trained.into()]].concat();
        [&b"fedplug secure arrived"[..], &self.0, &count, &places, &sent, client.as_bytes()].concat()
    }
}

/// A client's statement about the update that it sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Whether some value of the update was not 0.
    pub(crate) trained: bool,
    /// A digest of the global model that the update is relative to.
    pub(crate) global: [u8; 32],
}

/// A digest of a global model. A server that gives each client a different model could make all updates but one 0, and
/// take the sum for that one (Pasquini, Francati and Ateniese, *Eluding Secure Aggregation in Federated Learning via
/// Model Inconsistency*, CCS 2022).
pub(crate) fn digest(global: &Message) -> [u8; 32] {
    let mut params: Vec<(&str, &Tensor)> = global.params.iter().collect();
    params.sort_unstable_by_key(|(name, _)| *name);
    let mut digest = Sha256::new();
    for (name, tensor) in params {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update(format!("{tensor:?}"));
        digest.update(tensor.buffer().as_slice());
    }
    digest.finalize().into()
}

impl Identity {
    /// The identity of the client that the filter belongs to; `None` if keys are not signed.
    ///
    /// # Errors
    /// If a key is missing, cannot be read, is listed twice or is not this client's.
    pub(crate) fn of(config: &FilterConfig, ctx: &Context<'_>) -> Result<Option<Self>> {
        let (path, client) = match (&config.key_file, config.identities.is_empty(), ctx.client()) {
            (None, true, _) => return Ok(None),
            (None, false, _) => {
                return Err(Error::config("goes with `key-file`, which is missing").at_key("identities"));
            }
            (Some(_), true, _) => {
                return Err(Error::config("goes with `identities`, which is missing").at_key("key-file"));
            }
            (Some(_), false, None) => return Ok(None),
            (Some(path), false, Some(client)) => (path.replace("{client}", client), client),
        };
        let mut members = BTreeMap::new();
        for (name, line) in &config.identities {
            let at = |error: Error| error.at_key(format!("identities.{name}"));
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", line.trim());
            let key = VerifyingKey::from_public_key_pem(&pem).map_err(|e| {
                at(Error::config("is not an ed25519 public key").because(&e))
                    .help("`openssl pkey -in KEY -pubout` writes it between `BEGIN` and `END`")
            })?;
            if let Some((other, _)) = members.iter().find(|(_, other)| **other == key) {
                return Err(at(Error::config(format!("is also the key of `{other}`"))));
            }
            members.insert(name.clone(), key);
        }
        let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(|e| Error::io(&path, &e))?);
        let key = SigningKey::from_pkcs8_pem(&text).map_err(|e| {
            Error::config("holds no ed25519 private key in PEM")
                .because(&e)
                .in_file(&path, None)
                .help("`openssl genpkey -algorithm ed25519` makes one")
        })?;
        match members.get(client) {
            Some(known) if *known == key.verifying_key() => Ok(Some(Self { key, members })),
            Some(_) => Err(Error::config(format!("the key in `{path}` is not that of `{client}` here"))
                .at_key(format!("identities.{client}"))),
            None => Err(Error::config(format!("does not name this client, `{client}`")).at_key("identities")),
        }
    }

    /// Checks that all members are known.
    pub(crate) fn know(&self, members: &[String]) -> Result<()> {
        match members.iter().find(|name| !self.members.contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err(Error::other(format!("client `{name}` is not among this client's `identities`"))
                .help("the operators of the clients exchange public keys; the server has no say in it")),
        }
    }

    pub(crate) fn sign_keys(&self, shown: &Transcript, client: &str) -> [u8; SIGNATURE] {
        self.key.sign(&shown.of_keys(client)).to_bytes()
    }

    pub(crate) fn sign_arrived(
        &self,
        shown: &Transcript,
        client: &str,
        arrived: &[usize],
        sent: &Sent,
    ) -> [u8; AGREED] {
        let mut agreed = [0; AGREED];
        agreed[..SIGNATURE].copy_from_slice(&self.key.sign(&shown.of_arrived(client, arrived, sent)).to_bytes());
        agreed[SIGNATURE] = sent.trained.into();
        agreed
    }

    /// Whether each member signed what this client was shown. A member that did not sign takes no part.
    ///
    /// # Errors
    /// If a member signed something else.
    pub(crate) fn who_signed(
        &self,
        shown: &Transcript,
        members: &[String],
        rows: &[[u8; SIGNATURE]],
    ) -> Result<Vec<bool>> {
        let signed = |(name, row): (&String, &[u8; SIGNATURE])| {
            if *row == [0; SIGNATURE] {
                return Ok(false);
            }
            self.verify(name, &shown.of_keys(name), row).then_some(true).ok_or_else(|| {
                Error::other(format!(
                    "client `{name}` did not sign the members, keys and terms that this client was shown"
                ))
                .help("a server must show the same to all clients, and it must belong to this round")
            })
        };
        members.iter().zip(rows).map(signed).collect()
    }

    /// How many clients signed the list of arrived updates and the global model that they are relative to, and how many
    /// of them trained.
    ///
    /// # Errors
    /// If a client signed something else.
    pub(crate) fn who_agreed(
        &self,
        shown: &Transcript,
        members: &[String],
        (arrived, global): (&[usize], [u8; 32]),
        rows: &[[u8; AGREED]],
    ) -> Result<(usize, usize)> {
        let (mut agreed, mut trained) = (0, 0);
        for (&place, row) in arrived.iter().zip(rows) {
            if *row == [0; AGREED] {
                continue;
            }
            let (name, sent) = (&members[place], Sent { trained: row[SIGNATURE] == 1, global });
            let mut signature = [0; SIGNATURE];
            signature.copy_from_slice(&row[..SIGNATURE]);
            if !self.verify(name, &shown.of_arrived(name, arrived, &sent), &signature) {
                let message =
                    format!("client `{name}` did not sign the same list of updates and the same global model");
                return Err(Error::other(message).help(
                    "a server must show the same of both to all clients, and filters at `client-input` must not differ",
                ));
            }
            agreed += 1;
            trained += usize::from(sent.trained);
        }
        Ok((agreed, trained))
    }

    fn verify(&self, name: &str, message: &[u8], signature: &[u8; SIGNATURE]) -> bool {
        let signature = Signature::from_bytes(signature);
        self.members.get(name).is_some_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}
