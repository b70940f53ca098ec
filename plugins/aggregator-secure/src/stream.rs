//! ChaCha20 streams (RFC 8439) as masks: the paper's PRG.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};

use crate::shamir::Secret;

/// Words generated at a time; they fit in the L1 cache.
const BLOCK: usize = 2048;

/// The key stream of one key with nonce 0, in little-endian words.
pub(crate) struct Stream(ChaCha20);

impl Stream {
    pub(crate) fn new(key: &Secret) -> Self {
        Self(ChaCha20::new((&**key).into(), &[0; 12].into()))
    }

    /// The next bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
        self.0.apply_keystream(bytes);
    }

    /// Adds the next words to the values, or subtracts them, modulo 2³².
    pub(crate) fn mask(&mut self, values: &mut [u32], sign: Sign) {
        let mut bytes = [0; 4 * BLOCK];
        for values in values.chunks_mut(BLOCK) {
            let bytes = &mut bytes[..4 * values.len()];
            self.fill(bytes);
            for (value, word) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                let word = u32::from_le_bytes(*word);
                *value = match sign {
                    Sign::Plus => value.wrapping_add(word),
                    Sign::Minus => value.wrapping_sub(word),
                };
            }
        }
    }
}

/// Whether a mask is added or subtracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Plus,
    Minus,
}

impl Sign {
    /// The sign with which the client at position `mine` applies the mask it shares with the one at `theirs`; the two
    /// cancel in the sum.
    pub(crate) fn between(mine: usize, theirs: usize) -> Self {
        if mine < theirs { Self::Plus } else { Self::Minus }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_taken_off_in_other_pieces_leaves_the_values() {
        let key = Secret::new([9; 32]);
        let values: Vec<u32> = (0..5000).map(|i: u32| i.wrapping_mul(1_000_003)).collect();
        let mut masked = values.clone();
        Stream::new(&key).mask(&mut masked, Sign::Plus);
        assert!(masked.iter().zip(&values).filter(|(a, b)| a == b).count() < 3);
        let mut stream = Stream::new(&key);
        for piece in masked.chunks_mut(777) {
            stream.mask(piece, Sign::Minus);
        }
        assert_eq!(masked, values);
    }
}
