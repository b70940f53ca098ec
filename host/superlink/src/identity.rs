//! A site's key.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use p384::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
use p384::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use p384::elliptic_curve::Generate as _;
use p384::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding,
};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::{files, hex};

/// A site's private key: ECDSA on P-384, as Flower's nodes have it. A site is named by its [`fingerprint`](Self::fingerprint).
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
    pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

impl Identity {
    /// A new key.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn generate() -> Result<Self, Error> {
        Self::new(SigningKey::try_generate().map_err(|error| Error::Random(error.to_string()))?)
    }

    /// Reads a private key: PKCS #8 in PEM, as [`save`](Self::save) and `openssl genpkey` write it.
    ///
    /// # Errors
    /// If the file cannot be read or is no such key.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::file(path, source))?;
        Self::from_pem(&text).map_err(|error| Error::Content { path: path.to_owned(), reason: error.to_string() })
    }

    /// Reads a private key from the text of a PEM file.
    ///
    /// # Errors
    /// If it is not a P-384 key in PKCS #8.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        Self::new(SigningKey::from_pkcs8_pem(text).map_err(|error| Error::Key(error.to_string()))?)
    }

    fn new(key: SigningKey) -> Result<Self, Error> {
        let pem = key.verifying_key().to_public_key_pem(LineEnding::LF);
        Ok(Self { pem: pem.map_err(|error| Error::Key(error.to_string()))?, key })
    }

    /// Writes the private key to a new file that only its owner can read.
    ///
    /// # Errors
    /// If the file exists or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = self.key.to_pkcs8_pem(LineEnding::LF).map_err(|error| Error::Key(error.to_string()))?;
        files::create_private(path, text.as_bytes())
    }

    /// The public key in PEM, as the SuperLink keeps and compares it.
    pub fn public_pem(&self) -> &str {
        &self.pem
    }

    /// The name of this key.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.pem.as_bytes())
    }

    /// An ECDSA signature over the SHA-256 of `data`, in DER. The same data gives the same signature (RFC 6979).
    pub(crate) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: DerSignature =
            self.key.sign_prehash(&Sha256::digest(data)).map_err(|error| Error::Key(error.to_string()))?;
        Ok(signature.as_bytes().to_vec())
    }

    /// The three headers of a call to the Fleet API, for the moment `timestamp`.
    pub(crate) fn headers(&self, timestamp: String) -> Result<Vec<(&'static str, String)>, Error> {
        let signature = BASE64_STANDARD.encode(self.sign(timestamp.as_bytes())?);
        Ok(vec![
            ("flwr-public-key", BASE64_STANDARD.encode(&self.pem)),
            ("flwr-timestamp", timestamp),
            ("flwr-signature", signature),
        ])
    }
}

/// The name of a public key: the SHA-256 of its PEM, in lower-case hexadecimal digits.
pub fn fingerprint(public_pem: &[u8]) -> String {
    hex::encode(&Sha256::digest(public_pem))
}

/// Whether `signature` is that of the key's owner over `data`.
pub(crate) fn verify(public_pem: &[u8], data: &[u8], signature: &[u8]) -> bool {
    let Ok(pem) = std::str::from_utf8(public_pem) else { return false };
    let Ok(key) = VerifyingKey::from_public_key_pem(pem) else { return false };
    let Ok(signature) = DerSignature::from_bytes(signature) else { return false };
    key.verify_prehash(&Sha256::digest(data), &signature).is_ok()
}
