//! Long-term keys, and the data signed with them.

use super::*;
use crate::identities::Transcript;
use crate::noise::Noise;
use crate::terms::Terms;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, EncodePublicKey};

/// The long-term keys of all clients, and the folder that holds them.
pub(super) struct Keyring {
    folder: tempfile::TempDir,
    identities: serde_json::Value,
}

impl Keyring {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut identities = serde_json::Map::new();
        for (k, name) in NAMES.iter().enumerate() {
            let key = key(k);
            let pem = key.to_pkcs8_pem(LineEnding::LF).unwrap();
            std::fs::write(folder.path().join(format!("{name}.pem")), pem.as_bytes()).unwrap();
            identities.insert((*name).to_owned(), public(&key).into());
        }
        Self { folder, identities: identities.into() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(super) fn table(&self) -> serde_json::Value {
        json!({ "key-file": self.path("{client}.pem"), "identities": self.identities })
    }

    pub(super) fn bench(&self, clients: usize, config: serde_json::Value) -> Bench {
        Bench::with(clients, config, &|_| self.table())
    }
}

fn key(k: usize) -> SigningKey {
    SigningKey::from_bytes(&[u8::try_from(k).unwrap() + 1; 32])
}

/// The middle line of the public key's PEM.
fn public(key: &SigningKey) -> String {
    let pem = key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    pem.lines().nth(1).unwrap().to_owned()
}

#[test]
fn wrong_long_term_keys_are_named() {
    let ring = Keyring::new();
    std::fs::write(ring.path("text.pem"), "no key").unwrap();
    let ctx = Context::new(&Silent).with_client("a");
    let error = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut table = ring.table();
        change(&mut table);
        Mask::new(serde_json::from_value(table).unwrap(), &ctx).err().expect("it is accepted").to_string()
    };
    let text = error(&|table| table["key-file"] = json!(null));
    assert_eq!(text, "`identities`: goes with `key-file`, which is missing");
    let text = error(&|table| table["identities"] = json!({}));
    assert_eq!(text, "`key-file`: goes with `identities`, which is missing");
    let text = error(&|table| table["identities"]["b"] = "MCow".into());
    assert!(text.starts_with("`identities.b`: is not an ed25519 public key"), "{text}");
    let text = error(&|table| table["identities"]["b"] = table["identities"]["a"].clone());
    assert_eq!(text, "`identities.b`: is also the key of `a`");
    let text = error(&|table| table["key-file"] = ring.path("b.pem").into());
    assert!(text.contains("is not that of `a` here"), "{text}");
    let text = error(&|table| drop(table["identities"].as_object_mut().unwrap().remove("a")));
    assert_eq!(text, "`identities`: does not name this client, `a`");
    let text = error(&|table| table["key-file"] = ring.path("text.pem").into());
    assert!(text.contains("text.pem") && text.contains("holds no ed25519 private key"), "{text}");
    let text = error(&|table| table["key-file"] = ring.path("none.pem").into());
    assert!(text.contains("none.pem"), "{text}");
}

#[test]
fn a_transcript_depends_on_all_that_it_is_of() {
    let terms = Terms { threshold: 3, minimum: 3, clip: 1.0, bits: 24, noise: None };
    let members = ["a", "bc"].map(str::to_owned);
    let keys = [[[1; 32], [2; 32]], [[3; 32], [4; 32]]];
    let of = Transcript::of(0, terms, &members, &keys);
    assert_eq!(of, Transcript::of(0, terms, &members, &keys));
    let mut others = vec![Transcript::of(1, terms, &members, &keys)];
    for terms in [
        Terms { threshold: 4, ..terms },
        Terms { minimum: 2, ..terms },
        Terms { clip: 2.0, ..terms },
        Terms { bits: 23, ..terms },
        Terms { noise: Some(Noise { multiplier: 1.0, delta: 1e-5, colluding: 1 }), ..terms },
        Terms { noise: Some(Noise { multiplier: 2.0, delta: 1e-5, colluding: 1 }), ..terms },
        Terms { noise: Some(Noise { multiplier: 1.0, delta: 1e-6, colluding: 1 }), ..terms },
        Terms { noise: Some(Noise { multiplier: 1.0, delta: 1e-5, colluding: 0 }), ..terms },
    ] {
        others.push(Transcript::of(0, terms, &members, &keys));
    }
    others.push(Transcript::of(0, terms, &["ab", "c"].map(str::to_owned), &keys));
    for at in 0..2 {
        let mut keys = keys;
        keys[1][at][31] ^= 1;
        others.push(Transcript::of(0, terms, &members, &keys));
    }
    assert!(others.iter().all(|other| *other != of));
}
